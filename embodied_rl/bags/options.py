"""How a user wants bags to be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from embodied_rl.bags.parts import WHOLE, Cuts


@dataclass(frozen=True)
class Options:
    """What the recordings themselves do not tell.

    Args:
        namespace: of the robot's topics; None: found.
        remap: name in the embodiment file -> recorded name (:class:`.topics.Names`).
        measured: actions are the next measured state of the actuators, not the commands.
        cuts: where a bag is cut into episodes.
    """

    namespace: str | None = None
    remap: Mapping[str, str] = field(default_factory=dict)
    measured: bool = False
    cuts: Cuts = WHOLE


AS_RECORDED = Options()
