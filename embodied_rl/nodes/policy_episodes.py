"""Which episode a policy node is in: announced by a conductor, or begun by services."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from rclpy.node import Node

from embodied_rl.core.embodiment import NANOSECONDS
from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import EpisodeInfo, InContext, Policy
from embodied_rl.core.schema import LONGEST_MESSAGE
from embodied_rl.nodes import messages

START = "episode/start"
AWAY_NS = 60 * NANOSECONDS  # an announced start lies no further than this from the clock
_BLANKS = "\n\t\r"


class Episodes:
    """Decides what begins; ``begin`` carries it out.

    Args:
        begin: called with each episode that begins.
    """

    def __init__(self, node: Node, task: str, begin: Callable[[EpisodeInfo], None]):
        self._node, self._task, self._begin = node, task, begin
        self.current: EpisodeInfo | None = None  # the newest that has begun
        self._announced: EpisodeInfo | None = None
        self._instruction = ""
        self._own_trials = 0

    def has_conductor(self) -> bool:
        return self._node.count_publishers(START) > 0

    def activate(self) -> None:
        """Begin now what was announced, or an episode of our own if nobody announces any."""
        self.current = None
        now_ns = messages.now_ns(self._node)
        if self._announced is not None and self._announced.start_ns <= now_ns + AWAY_NS:
            # Rows before now were not seen; a history that pretends otherwise would be a lie.
            start_ns = max(self._announced.start_ns, now_ns)
            self._start(replace(self._announced, start_ns=start_ns))
        elif not self.has_conductor():
            self._start(self._own())

    def announced(self, text: str, active: bool) -> None:
        """Take what a conductor announces.

        Raises:
            UserError: not an episode, one that begins far from now, or one of two conductors.
        """
        info = EpisodeInfo.from_yaml(text, START)
        check_text(info.instruction, START)
        conductors = self._node.get_publishers_info_by_topic(START)
        if len(conductors) > 1:
            names = sorted({one.node_name for one in conductors})
            raise UserError(
                f"{START}: expected one publisher, saw {len(conductors)} ({', '.join(names)}); "
                "the announcement is ignored"
            )
        now_ns = messages.now_ns(self._node)
        if active and abs(info.start_ns - now_ns) > AWAY_NS:
            raise UserError(
                f"{START}: start_ns: expected a time within {AWAY_NS // NANOSECONDS} s of the "
                f"clock ({now_ns}), saw {info.start_ns}"
            )
        self._announced = info
        if active:
            self._start(info)

    def instructed(self, text: str) -> None:
        """Remember the newest instruction.

        Raises:
            UserError: longer than any instruction, or with control characters.
        """
        check_text(text, "instruction")
        self._instruction = text

    def restart(self) -> None:
        """Where nobody announces episodes, begin a new trial."""
        if not self.has_conductor():
            self._start(self._own())

    def next(self, policy: Policy) -> EpisodeInfo:
        """Begin the next episode of the trial, where nobody announces episodes.

        Raises:
            UserError: there is no trial to go on with.
        """
        before = self.current
        if before is None:
            raise UserError("no episode yet")
        if not isinstance(policy, InContext):
            raise UserError(
                f"policy {policy.spec.name} has no trials: nothing that it learns in one "
                "episode is kept for the next; use ~/reset_episode"
            )
        if self.has_conductor():
            publishers = self._node.get_publishers_info_by_topic(START)
            names = sorted({info.node_name for info in publishers})
            raise UserError(f"{', '.join(names)} announces the episodes on {START}")
        now_ns = messages.now_ns(self._node)
        info = replace(
            before,
            episode=before.episode + 1,
            seed=now_ns % 2**32,
            instruction=self._instruction or before.instruction,
            start_ns=now_ns,
        )
        self._start(info)
        return info

    def _own(self) -> EpisodeInfo:
        """On a robot nobody announces episodes: the first of a trial begins now, with the latest
        instruction."""
        now_ns, trial = messages.now_ns(self._node), self._own_trials
        self._own_trials += 1
        return EpisodeInfo(0, now_ns % 2**32, self._task, self._instruction, now_ns, trial)

    def _start(self, info: EpisodeInfo) -> None:
        self.current = info
        self._begin(info)


def check_text(text: str, origin: str) -> None:
    """Raises UserError for a text that no person would send as a task."""
    if len(text) > LONGEST_MESSAGE:
        raise UserError(f"{origin}: expected at most {LONGEST_MESSAGE} characters, saw {len(text)}")
    strange = [c for c in text if not c.isprintable() and c not in _BLANKS]
    if strange:
        raise UserError(f"{origin}: expected plain text, saw the character {ascii(strange[0])}")
