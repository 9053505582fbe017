"""Options of the verbs that read recordings by others: names, actions, where episodes are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from embodied_rl.bags.options import Options
from embodied_rl.bags.parts import Cuts
from embodied_rl.bags.topics import parse_remaps
from embodied_rl.cli import UsageError


@dataclass(frozen=True)
class Cutting:
    """Where the episodes of a bag are, and what its topics are called."""

    namespace: str | None = None
    """namespace of the robot's topics, such as /robot1; default: found"""
    remap: tuple[str, ...] = ()
    """FROM:=TO: a topic of the embodiment file and the recorded one; 'a/:=b/' for all below"""
    cut: tuple[float, ...] = ()
    """seconds after the bag's first message at which another episode begins"""
    marks: str = ""
    """topic of which each message begins an episode"""
    gap: float = 10.0
    """a longer silence of all streams, in seconds, ends an episode"""

    def options(self) -> Options:
        """The options for the reader of bags.

        Raises:
            UsageError: two ways to cut, or a gap that is shorter than a second.
        """
        if self.cut and self.marks:
            raise UsageError("--cut and --marks: expected one of them, saw both")
        if not self.gap >= 1.0:
            raise UsageError(f"--gap: expected 1 s or more, saw {self.gap:g}")
        cuts = Cuts(tuple(sorted(self.cut)), self.marks, self.gap)
        return Options(self.namespace, parse_remaps(self.remap), cuts=cuts)


@dataclass(frozen=True)
class Reading(Cutting):
    """What recordings themselves do not tell."""

    actions: Literal["commands", "measured"] = "commands"
    """measured: the action of a tick is the measured state of the actuators at the next one"""

    def options(self) -> Options:
        return replace(super().options(), measured=self.actions == "measured")
