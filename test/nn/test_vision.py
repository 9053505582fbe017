"""Image encoders: norm, spatial softmax against its definition, crops, colours, cost."""

import colorsys
from math import prod

import numpy as np
import pytest
import torch
from torch import nn

from embodied_rl.nn.vision import (
    BACKBONES,
    ImageEncoder,
    ImageSettings,
    SpatialSoftmax,
    group_norm,
    resnet18,
    shake_colours,
)

torch.set_num_threads(1)


def images(count, side=40, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8))


def encoder(kind="small_cnn", crop=32, **kwargs):
    torch.manual_seed(0)
    return ImageEncoder((40, 40, 3), ImageSettings(kind, crop, **kwargs))


def test_resnet18_is_the_known_one_with_group_norm():
    net = resnet18()
    # 11,689,512 is the published count with the classifier of 512 x 1000 + 1000
    assert sum(p.numel() for p in net.parameters()) == 11_689_512 - 513_000
    norms = [m for m in net.modules() if isinstance(m, nn.GroupNorm)]
    assert len(norms) == 20 and not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    assert all(m.num_channels == 16 * m.num_groups for m in norms)
    with torch.no_grad():
        assert net(torch.zeros(2, 3, 64, 96)).shape == (2, 512, 2, 3)
    with pytest.raises(ValueError, match="24 channels"):
        group_norm(24)


def test_group_norm_against_its_definition():
    norm = group_norm(32)
    x = torch.randn(3, 32, 5, 4, generator=torch.Generator().manual_seed(0))
    expected = np.empty(x.shape)
    for n in range(3):
        for first in (0, 16):
            part = x[n, first : first + 16].double().numpy()
            expected[n, first : first + 16] = (part - part.mean()) / np.sqrt(part.var() + 1e-5)
    np.testing.assert_allclose(norm(x).detach().numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("kind", sorted(BACKBONES))
def test_an_image_is_encoded_on_its_own(kind):
    net = encoder(kind).eval()
    pictures = images(3)
    with torch.no_grad():
        together = net(pictures)
        alone = torch.cat([net(picture[None]) for picture in pictures])
    assert together.shape == (3, net.dim) == (3, 64)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_spatial_softmax_is_the_mean_position():
    torch.manual_seed(0)
    layer = SpatialSoftmax(6, 4).double()
    x = torch.randn(2, 6, 5, 7, dtype=torch.float64)
    found = layer(x).detach().numpy()
    maps = layer.maps(x).detach().numpy()
    for n in range(2):
        for k in range(4):
            weight = np.exp(maps[n, k]) / np.exp(maps[n, k]).sum()
            across = down = 0.0
            for row in range(5):
                for column in range(7):
                    across += weight[row, column] * (-1 + 2 * column / 6)
                    down += weight[row, column] * (-1 + 2 * row / 4)
            assert found[n, k] == pytest.approx(across) and found[n, 4 + k] == pytest.approx(down)
    one = SpatialSoftmax(6, 4)(torch.randn(2, 6, 1, 1))
    assert one.abs().max() == 0  # a single cell is the middle


def test_crop_is_the_centre_in_evaluation_and_random_in_training():
    net, pictures = encoder(), images(2)
    net.eval()
    assert torch.equal(net._cut(pictures), pictures[:, 4:36, 4:36])
    with torch.no_grad():
        assert torch.equal(net(pictures), net(pictures))
        # what lies outside the centre is not seen
        framed = pictures.clone()
        framed[:, :4] = 0
        assert torch.equal(net(pictures), net(framed))
        assert torch.equal(net(pictures), net(pictures.float()))  # bytes or floats
    net.train()
    many = pictures[:1].expand(200, -1, -1, -1)
    torch.manual_seed(1)
    cuts = net._cut(many)
    torch.manual_seed(1)
    assert torch.equal(cuts, net._cut(many))
    patches = pictures[0].unfold(0, 32, 1).unfold(1, 32, 1).permute(0, 1, 3, 4, 2)
    same = (patches[None] == cuts[:, None, None]).flatten(3).all(-1)
    assert (same.flatten(1).sum(1) == 1).all()  # every cut is one place of the image
    rows, columns = same.any(2).any(0), same.any(1).any(0)
    assert rows.all() and columns.all()  # and all places come up


def test_colours_are_shaken_image_by_image_within_bounds():
    torch.manual_seed(0)
    # saturated enough to have a hue, dark enough not to be clipped
    colour = torch.tensor([0.6, 0.3, 0.25])
    pixels = (2 * colour - 1)[None, :, None, None].expand(500, 3, 2, 2)
    shaken = (shake_colours(pixels)[:, :, 0, 0] + 1) / 2
    assert shaken.min() >= 0 and shaken.max() <= 1
    hues = np.array([colorsys.rgb_to_hsv(*c.tolist())[0] for c in shaken])
    turned = (hues - colorsys.rgb_to_hsv(*colour.tolist())[0] + 0.5) % 1 - 0.5
    assert 0.02 < np.abs(turned).max() < 0.09
    light = shaken @ torch.tensor([0.299, 0.587, 0.114])
    before = float(colour @ torch.tensor([0.299, 0.587, 0.114]))
    assert light.min() > 0.79 * before and light.max() < 1.21 * before and light.std() > 0.01
    net, pictures = encoder(jitter=True), images(2)
    with torch.no_grad():
        assert not torch.equal(net.train()(pictures), net(pictures))
        assert torch.equal(net.eval()(pictures), net(pictures))


@pytest.mark.parametrize(
    "kwargs, words",
    [
        ({"kind": "resnet"}, "kind: expected one of .*'resnet18'.*saw 'resnet'"),
        ({"crop": -1}, "crop: expected at least 0"),
        ({"features": 0}, "features: expected at least 1, saw 0"),
        ({"crop": 41}, "crop: expected at most 40.*saw 41"),
    ],
)
def test_unsound_settings(kwargs, words):
    with pytest.raises(ValueError, match=words):
        ImageEncoder((40, 40, 3), ImageSettings(**kwargs))


def test_the_whole_image_without_a_crop():
    net = encoder(crop=0).train()
    assert net.size == (40, 40) and prod(net(images(2)).shape) == 2 * 64


def test_it_learns_where_something_is():
    rng = np.random.default_rng(0)
    places = rng.integers(4, 36, 32)
    pictures = torch.full((32, 40, 40, 3), 20, dtype=torch.uint8)
    for picture, place in zip(pictures, places, strict=True):
        picture[18:23, place - 2 : place + 3] = 220
    target = torch.from_numpy((places - places.mean()) / places.std()).float()[:, None]
    net = encoder(crop=0, keypoints=8, features=6)
    out = nn.Linear(6, 1)
    optimizer = torch.optim.AdamW([*net.parameters(), *out.parameters()], lr=3e-3)
    for _ in range(40):
        loss = (out(net(pictures)) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1  # 1 is what the mean place gives


# Cameras of one channel


@pytest.mark.parametrize("kind", sorted(BACKBONES))
def test_a_grey_image_is_scaled_as_a_colour_is(kind):
    torch.manual_seed(0)
    net = ImageEncoder((40, 40), ImageSettings(kind, crop=32)).eval()
    grey = images(2)[..., 0]
    seen = []
    net.backbone.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        assert net(grey).shape == (2, 64)
    expected = grey[:, None, 4:36, 4:36].float() / 127.5 - 1
    torch.testing.assert_close(seen[0], expected)


def test_depth_has_a_range_and_nothing_measured_is_no_distance():
    net = ImageEncoder((1, 8), ImageSettings(depth_m=2.0)).eval()
    inf = float("inf")
    metres = torch.tensor([[[0.0, 0.5, 1.0, 2.0, 9.0, inf, -inf, float("nan")]]])
    seen = []
    net.backbone.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        assert torch.isfinite(net(metres)).all()
    assert seen[0].flatten().tolist() == [-1, -0.5, 0, 1, 1, 1, -1, -1]
    assert net.state_dict()["depth_m"] == 2.0  # and so in the hash of the encoder
    assert "depth_m" not in encoder().state_dict()


@pytest.mark.parametrize(
    ("shape", "settings", "said"),
    [
        ((40, 40, 3), {"depth_m": 2.0}, "depth_m: expected 0 for an RGB image"),
        ((40, 40), {"jitter": True}, "jitter: expected false"),
        ((40, 40, 1), {}, r"expected an RGB image \(H, W, 3\) or one of grey or depth"),
    ],
)
def test_settings_of_another_kind_of_camera_are_refused(shape, settings, said):
    with pytest.raises(ValueError, match=said):
        ImageEncoder(shape, ImageSettings(**settings))
