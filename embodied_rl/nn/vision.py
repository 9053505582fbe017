"""Cameras: from an image to a short vector of features, one encoder a camera.

Images are RGB or grey bytes ``(H, W, 3)`` and ``(H, W)``, or depth ``(H, W)`` in metres.

Crop, normalisation and backbone sit in one module, so whoever has the module has all of them: the
live policy cannot crop or scale another way than training did. The backbones use group norm and
not batch norm: the statistics of a batch mix frames of one episode with each other, and an
averaged copy of the weights (EMA) would not have matching ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embodied_rl.core.ranges import check_range

CHANNELS_PER_GROUP = 16


@dataclass(frozen=True)
class ImageSettings:
    """How one camera is encoded.

    Attributes:
        kind: "small_cnn", for a CPU, or "resnet18".
        crop: side in pixels of the square cut from the image, at a random place in training and
            from the centre otherwise; 0 takes the whole image.
        keypoints: maps of the spatial softmax; each gives one position in the image.
        features: length of the vector that comes out.
        jitter: whether brightness, contrast, saturation and hue are shaken in training.
        depth_m: of a depth camera, the distance in metres that the network sees as its farthest;
            0 for images of bytes.
    """

    kind: str = "small_cnn"
    crop: int = 0
    keypoints: int = 32
    features: int = 64
    jitter: bool = False
    # Not in the repr, which hashes of encoders without depth are made of; a buffer stands for it.
    depth_m: float = field(default=0.0, repr=False)

    def __post_init__(self) -> None:
        if self.kind not in BACKBONES:
            raise ValueError(f"kind: expected one of {sorted(BACKBONES)}, saw {self.kind!r}")
        check_range(self, "crop", "depth_m", least=0)
        check_range(self, "keypoints", "features", least=1)


def group_norm(channels: int) -> nn.GroupNorm:
    """Group norm with one group for 16 channels; it stands wherever batch norm would."""
    if channels % CHANNELS_PER_GROUP:
        raise ValueError(f"{channels} channels are not a multiple of {CHANNELS_PER_GROUP}")
    return nn.GroupNorm(channels // CHANNELS_PER_GROUP, channels)


def _convolution(inputs: int, outputs: int, size: int, stride: int) -> nn.Conv2d:
    """Without a bias: the norm behind it has one."""
    layer = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a way around them, which is a 1x1 convolution if shapes change."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _convolution(inputs, outputs, 3, stride),
            group_norm(outputs),
            nn.ReLU(inplace=True),
            _convolution(outputs, outputs, 3, 1),
            group_norm(outputs),
        )
        self.around: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.around = nn.Sequential(
                _convolution(inputs, outputs, 1, stride), group_norm(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""
        return F.relu(self.body(x) + self.around(x))


def resnet18(channels: int = 3) -> nn.Sequential:
    """The 18-layer residual net without its classifier: (N, C, H, W) -> (N, 512, H/32, W/32)."""
    layers: list[nn.Module] = [
        _convolution(channels, 64, 7, 2),
        group_norm(64),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, padding=1),
    ]
    inputs = 64
    for outputs, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [ResidualBlock(inputs, outputs, stride), ResidualBlock(outputs, outputs, 1)]
        inputs = outputs
    return nn.Sequential(*layers)


def small_cnn(channels: int = 3) -> nn.Sequential:
    """Three convolutions for a CPU, about 20 times cheaper: (N, C, H, W) -> (N, 64, H/4, W/4)."""
    layers: list[nn.Module] = []
    for inputs, outputs, size, stride in ((channels, 16, 5, 2), (16, 32, 3, 2), (32, 64, 3, 1)):
        layers += [
            _convolution(inputs, outputs, size, stride),
            group_norm(outputs),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


# kind -> (maker, channels that come out)
BACKBONES: dict[str, tuple[Callable[[int], nn.Sequential], int]] = {
    "resnet18": (resnet18, 512),
    "small_cnn": (small_cnn, 64),
}


class SpatialSoftmax(nn.Module):
    """Each of K maps, read as a distribution over the image, becomes its mean position in [-1, 1].

    Left and top are -1, right and bottom +1.
    """

    def __init__(self, channels: int, keypoints: int) -> None:
        super().__init__()
        self.keypoints = keypoints
        self.maps = nn.Conv2d(channels, keypoints, 1)
        # Behind a norm and a ReLU inputs have a mean square of 1/2: maps with a spread of 2 have
        # peaks from the start. With torch's own scale all points begin in the middle of the image.
        nn.init.normal_(self.maps.weight, std=2.0 * math.sqrt(2.0 / channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 2 K): x of all keypoints, then y of all."""
        maps = self.maps(x)
        height, width = maps.shape[-2:]
        weight = maps.flatten(2).softmax(dim=-1).unflatten(-1, (height, width))
        across = _places(width, x)
        down = _places(height, x)
        return torch.cat([weight.sum(dim=2) @ across, weight.sum(dim=3) @ down], dim=-1)


def _places(count: int, like: Tensor) -> Tensor:
    """Positions (count,) of the cells along one side; one cell alone is the middle."""
    if count == 1:
        return like.new_zeros(1)
    return torch.linspace(-1.0, 1.0, count, dtype=like.dtype, device=like.device)


class ImageEncoder(nn.Module):
    """One camera: crop, scale, backbone, spatial softmax, linear layer."""

    def __init__(self, shape: tuple[int, ...], settings: ImageSettings) -> None:
        """`shape` is that of an image, (H, W, 3) or (H, W).

        Raises:
            ValueError: another shape, or a crop that does not fit into the image.
        """
        super().__init__()
        self.colour = len(shape) == 3 and shape[2] == 3
        if not self.colour and len(shape) != 2:
            raise ValueError(
                f"expected an RGB image (H, W, 3) or one of grey or depth (H, W), "
                f"saw shape {list(shape)}"
            )
        if settings.jitter and not self.colour:
            raise ValueError("jitter: expected false for an image without colours, saw true")
        if settings.depth_m and self.colour:
            raise ValueError(f"depth_m: expected 0 for an RGB image, saw {settings.depth_m:g}")
        if settings.crop > min(shape[:2]):
            raise ValueError(
                f"crop: expected at most {min(shape[:2])}, the image being "
                f"{shape[0]} x {shape[1]}, saw {settings.crop}"
            )
        self.shape, self.settings = tuple(shape), settings
        self.size = (settings.crop, settings.crop) if settings.crop else tuple(shape[:2])
        make, channels = BACKBONES[settings.kind]
        self.backbone = make(3 if self.colour else 1)
        if settings.depth_m:  # in the state, so that whoever has the weights has the range too
            self.register_buffer("depth_m", torch.tensor(settings.depth_m))
        self.softmax = SpatialSoftmax(channels, settings.keypoints)
        self.out = nn.Linear(2 * settings.keypoints, settings.features)
        # Points move by some hundredths only at first; features should have the spread of the
        # normalised state beside them, or the head is slow to notice the cameras.
        nn.init.normal_(self.out.weight, std=8.0 / math.sqrt(2 * settings.keypoints))
        self.dim = settings.features

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, H, W[, 3]), 0 to 255, bytes or floats, or metres -> features (N, dim).

        In training, places and colours are drawn from torch's global generator.
        """
        pixels = self._cut(x).float()
        pixels = pixels.permute(0, 3, 1, 2) if self.colour else pixels[:, None]
        pixels = (self._nearness(pixels) if self.settings.depth_m else pixels / 127.5) - 1.0
        if self.training and self.settings.jitter:
            pixels = shake_colours(pixels)
        return self.out(self.softmax(self.backbone(pixels.contiguous())))

    def _nearness(self, metres: Tensor) -> Tensor:
        """Depth in [0, 2], 2 at `depth_m` and beyond. Without a measurement (NaN, -inf or 0, see
        REP 118) it is 0, where nothing real can be; +inf is too far to measure."""
        far = self.settings.depth_m
        known = torch.nan_to_num(metres, nan=0.0, posinf=far, neginf=0.0)
        return known.clamp(0.0, far) * (2.0 / far)

    def _cut(self, x: Tensor) -> Tensor:
        """(N, H, W[, 3]) -> (N, *size[, 3])."""
        spare = x.shape[1] - self.size[0], x.shape[2] - self.size[1]
        if not any(spare):
            return x
        if not self.training:
            top, left = spare[0] // 2, spare[1] // 2
            return x[:, top : top + self.size[0], left : left + self.size[1]]
        count = x.shape[0]
        corner = [torch.randint(0, s + 1, (count, 1), device=x.device) for s in spare]
        rows, columns = (
            c + torch.arange(s, device=x.device) for c, s in zip(corner, self.size, strict=True)
        )
        each = torch.arange(count, device=x.device)[:, None, None]
        return x[each, rows[:, :, None], columns[:, None, :]]


# RGB -> brightness and two colour axes (NTSC's YIQ); a turn of the two axes is a change of hue
_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE_TURNS = 0.2, 0.2, 0.2, 0.05


def shake_colours(pixels: Tensor) -> Tensor:
    """Random brightness, contrast, saturation and hue for each image of (N, 3, H, W) in [-1, 1].

    Brightness, contrast and saturation are scaled by 0.8 to 1.2, hue is turned by up to 0.05
    turns.
    """
    count = pixels.shape[0]

    def draw(spread: float) -> Tensor:
        return (2.0 * torch.rand(count, device=pixels.device) - 1.0) * spread

    light, contrast, saturation = (1.0 + draw(s) for s in (_BRIGHTNESS, _CONTRAST, _SATURATION))
    angle = draw(2.0 * math.pi * _HUE_TURNS)
    cos, sin = saturation * angle.cos(), saturation * angle.sin()
    zero, one = torch.zeros_like(cos), torch.ones_like(cos)
    turn = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], dim=-1)
    yiq = _YIQ.to(pixels)
    colour = torch.linalg.inv(yiq) @ turn.reshape(count, 3, 3) @ yiq
    rgb = (pixels + 1.0) / 2.0
    rgb = torch.einsum("nij,njhw->nihw", colour, rgb) * light[:, None, None, None]
    grey = torch.einsum("c,nchw->nhw", yiq[0], rgb).mean(dim=(1, 2))[:, None, None, None]
    rgb = grey + contrast[:, None, None, None] * (rgb - grey)
    return rgb.clamp(0.0, 1.0) * 2.0 - 1.0
