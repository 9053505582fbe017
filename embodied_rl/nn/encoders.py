"""From the streams of one frame to one embedding: the concatenation of what each stream's encoder
makes.

State vectors are normalised and flattened. A camera gets an encoder of its own, with weights of
its own, that maps (N, H, W[, 3]) to (N, D); nothing downstream changes, because a policy sees only
the concatenation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from math import prod

from torch import Tensor, cat, nn

from embodied_rl.core.errors import UserError
from embodied_rl.nn.normalizer import MinMax
from embodied_rl.nn.vision import ImageEncoder, ImageSettings


class VectorEncoder(nn.Module):
    """A numeric stream, flattened and mapped to [-1, 1]: limits to fit, nothing to learn."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        self.dim = prod(shape)
        self.limits = MinMax(self.dim)

    def forward(self, x: Tensor) -> Tensor:
        """(N, *shape) -> (N, dim)."""
        return self.limits(x.reshape(x.shape[0], self.dim))


class FrameEncoder(nn.Module):
    """One embedding a frame. The order of `encoders` is the order of the concatenation."""

    def __init__(self, encoders: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.streams = nn.ModuleDict(dict(encoders))
        self.dim = sum(int(e.dim) for e in self.streams.values())

    def forward(self, frames: Mapping[str, Tensor]) -> Tensor:
        """{key: (B, F, *shape)} -> (B, F, dim). Every frame is encoded on its own."""
        parts = []
        for key, encoder in self.streams.items():
            x = frames[key]
            batch, length = x.shape[:2]
            encoded = encoder(x.reshape(batch * length, *x.shape[2:]))
            parts.append(encoded.reshape(batch, length, -1))
        return cat(parts, dim=-1)


def make_frame_encoder(
    shapes: Mapping[str, tuple[int, ...]], images: Mapping[str, ImageSettings]
) -> FrameEncoder:
    """The encoder of streams of these shapes, in this order; `images` says which are cameras.

    Raises:
        UserError: a camera without settings, or settings that do not fit the stream.
    """
    encoders: dict[str, nn.Module] = {}
    for key, shape in shapes.items():
        if key in images:
            try:
                encoders[key] = ImageEncoder(shape, images[key])
            except ValueError as error:
                raise UserError(f"model.encoders.{key}: {error}") from error
        elif len(shape) > 1:
            raise UserError(
                f"model.encoders.{key}: expected the settings of an image encoder, the stream "
                f"having shape {list(shape)}, saw none"
            )
        else:
            encoders[key] = VectorEncoder(shape)
    return FrameEncoder(encoders)


def encoder_hash(encoder: FrameEncoder) -> str:
    """16 hex digits of all that an embedding depends on: streams and their order, crop, weights,
    limits of the normalisers.
    """
    digest = hashlib.sha256()
    for key, part in encoder.streams.items():
        settings = getattr(part, "settings", None)
        digest.update(repr((key, part.shape, settings)).encode())
        for name, tensor in sorted(part.state_dict().items()):
            digest.update(repr((name, tensor.dtype, tuple(tensor.shape))).encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
