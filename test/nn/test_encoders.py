import torch

from embodied_rl.nn.encoders import FrameEncoder, VectorEncoder


def test_streams_are_concatenated_in_order_frame_by_frame():
    encoder = FrameEncoder({"a": VectorEncoder((2,)), "b": VectorEncoder((1, 3))})
    assert encoder.dim == 5
    frames = {"b": torch.rand(4, 6, 1, 3), "a": torch.rand(4, 6, 2)}
    both = encoder(frames)
    assert both.shape == (4, 6, 5)
    torch.testing.assert_close(both[..., :2], frames["a"])  # limits start as [-1, 1]
    torch.testing.assert_close(both[..., 2:], frames["b"].flatten(2))
    one = encoder({k: v[1:2, 3:4] for k, v in frames.items()})
    torch.testing.assert_close(one[0, 0], both[1, 3])
