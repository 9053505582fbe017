import pytest
import torch

from embodied_rl.core.errors import UserError
from embodied_rl.nn.encoders import FrameEncoder, VectorEncoder, encoder_hash, make_frame_encoder
from embodied_rl.nn.vision import ImageSettings

SHAPES = {"left": (24, 24, 3), "place": (2,), "right": (24, 24, 3)}
CAMERAS = {"left": ImageSettings(crop=16), "right": ImageSettings(crop=20, features=8)}


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


def test_every_camera_has_weights_of_its_own():
    torch.manual_seed(0)
    encoder = make_frame_encoder(SHAPES, CAMERAS).eval()
    assert list(encoder.streams) == list(SHAPES) and encoder.dim == 64 + 2 + 8
    left, right = (list(encoder.streams[k].parameters()) for k in ("left", "right"))
    assert not {id(p) for p in left} & {id(p) for p in right}
    assert not torch.equal(left[0], right[0])
    frames = {k: torch.rand(2, 3, *s) * (255 if len(s) == 3 else 1) for k, s in SHAPES.items()}
    with torch.no_grad():
        out = encoder(frames)
        assert out.shape == (2, 3, 74)
        torch.testing.assert_close(out[..., 64:66], frames["place"])
        frames["right"] = frames["right"].flip(2)
        changed = (encoder(frames) != out).any(0).any(0)
    assert not changed[:66].any() and changed[66:].any()


@pytest.mark.parametrize(
    "cameras, words",
    [
        ({}, r"model.encoders.left: expected the settings.*\[24, 24, 3\], saw none"),
        ({**CAMERAS, "left": ImageSettings(crop=99)}, "model.encoders.left: crop:.*24.*99"),
        ({**CAMERAS, "place": ImageSettings()}, r"model.encoders.place:.*saw shape \[2\]"),
    ],
)
def test_cameras_without_a_fitting_encoder(cameras, words):
    with pytest.raises(UserError, match=words):
        make_frame_encoder(SHAPES, cameras)


def test_hash_names_all_that_an_embedding_depends_on():
    def make(shapes=SHAPES, cameras=CAMERAS):
        torch.manual_seed(0)
        return make_frame_encoder(shapes, cameras)

    base = encoder_hash(make())
    assert base == encoder_hash(make()) == encoder_hash(make().train())
    others = [
        make(dict(reversed(SHAPES.items()))),
        make(cameras={**CAMERAS, "left": ImageSettings(crop=18)}),
        make(),
        make(),
    ]
    with torch.no_grad():
        others[2].streams["right"].out.bias[0] += 1e-6
        others[3].streams["place"].limits.high[1] = 1.5
    hashes = [encoder_hash(o) for o in others]
    assert len({base, *hashes}) == 5
