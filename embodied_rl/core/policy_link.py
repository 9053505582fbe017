"""Which policy a command gate obeys: one at a time, known by its session and not by its luck."""

from __future__ import annotations

from embodied_rl.core.errors import MessageError
from embodied_rl.core.heartbeat import Heartbeat


class PolicyLink:
    """Follows the heartbeats of one policy, and refuses what comes from any other.

    The first session that speaks is obeyed. Another one takes its place only after that one has
    fallen silent and when it is the only publisher left, or after :meth:`forget`.

    Args:
        silence_s: time without a heartbeat after which a policy counts as silent, steady clock.
    """

    def __init__(self, silence_s: float):
        self._silence_s = silence_s
        self.forget()

    def forget(self) -> None:
        """Obey whoever speaks first from now on."""
        self.session: str | None = None
        self.tick_ns = self.chunk_ns = 0
        self.refusal = ""
        self._heard_s = float("-inf")

    def hear(self, beat: Heartbeat, tick_ns: int, now_s: float, alone: bool) -> None:
        """Take a heartbeat.

        Args:
            tick_ns: its stamp, the last tick that the policy has dealt with.
            alone: whether a single publisher of heartbeats is known.

        Raises:
            MessageError: of another policy than the one that is obeyed.
        """
        self._admit(beat.session, now_s, alone, "policy/heartbeat")
        self._heard_s = now_s
        self.tick_ns, self.chunk_ns, self.refusal = tick_ns, beat.chunk_ns, beat.refusal

    def check(self, session: str, now_s: float, alone: bool) -> None:
        """Whether a chunk of ``session`` is to be obeyed.

        Raises:
            MessageError: of another policy than the one that is obeyed.
        """
        self._admit(session, now_s, alone, "policy/chunk")

    def silent_s(self, now_s: float) -> float:
        """Time since the last heartbeat; infinite when there was none."""
        return now_s - self._heard_s

    def _admit(self, session: str, now_s: float, alone: bool, topic: str) -> None:
        if session == self.session:
            return
        if self.session is not None and not (alone and self.silent_s(now_s) > self._silence_s):
            raise MessageError(
                f"{topic}: expected the policy of session '{self.session}', saw another one, "
                f"'{session}': end one of the two, or call command_gate_node/reset_episode"
            )
        self.forget()
        self.session, self._heard_s = session, now_s
