"""What a policy node counts and what it says of itself."""

from __future__ import annotations

from collections.abc import Mapping

from embodied_rl.core.embodiment import NANOSECONDS
from embodied_rl.core.loop import ControlLoop
from embodied_rl.core.policy import Cautious, Policy, Reporting
from embodied_rl.core.window import Arrival, Observation
from embodied_rl.nodes import diagnostics

PATIENCE_S = 0.5  # that a stream may be missing before that is worth a line


class PolicyReport:
    """Of the running episode of one control loop."""

    def __init__(self) -> None:
        self.latency = diagnostics.Percentiles()
        self.ticks = self.chunks = self.misses = self.skipped = self.unconfirmed = 0
        self.error = ""
        self.refused_instruction = ""
        self._missing = self._refusal = ""
        self._missing_ticks = 0

    def saw(self, observation: Observation, policy: Policy, period_ns: int) -> str:
        """Note the row of a tick and what the policy makes of it; what has become worse by it."""
        self.ticks += 1
        before = self._missing, self._refusal
        self._missing_ticks = self._missing_ticks + 1 if observation.missing else 0
        self._missing = ""
        if self._missing_ticks * period_ns >= PATIENCE_S * NANOSECONDS:
            self._missing = f"not acting: no sample of {', '.join(observation.missing)} in time"
        self._refusal = policy.refusal() if isinstance(policy, Cautious) else ""
        lines = (self._missing, self._refusal)
        return next((new for new, old in zip(lines, before) if new and new != old), "")

    def figures(
        self, loop: ControlLoop, period_s: float, rates: Mapping[str, object]
    ) -> dict[str, object]:
        """Everything that is counted, the policy's own figures last."""
        arrivals, episode = loop.builder.counts, loop.episode
        return {
            "policy": loop.policy.spec.name,
            "episode": episode.episode if episode else -1,
            "trial": episode.trial if episode else -1,
            "period_s": period_s,
            "ticks": self.ticks,
            "chunks": self.chunks,
            **self.latency.figures("latency"),
            "deadline_misses": self.misses,
            "skipped_ticks": self.skipped,
            "unconfirmed_chunks": self.unconfirmed,
            "invalid_rows": loop.invalid_rows,
            "late_samples": arrivals[Arrival.LATE],
            "disordered_samples": arrivals[Arrival.DISORDERED],
            "duplicate_samples": arrivals[Arrival.DUPLICATE],
            **rates,
            **(loop.policy.figures() if isinstance(loop.policy, Reporting) else {}),
        }

    def status(self, figures: Mapping[str, object], slow: str) -> diagnostics.Status:
        """Of an active node: all that is wrong, what is worse first.

        Args:
            slow: what is wrong with a stream's rate, empty when nothing is.
        """
        errors = [line for line in (self._missing, slow, self.error) if line]
        warnings = [line for line in (self.refused_instruction, self._refusal) if line]
        if self.misses or self.skipped:
            warnings.append(f"{self.misses} deadlines missed")
        level = diagnostics.ERROR if errors else diagnostics.WARN if warnings else diagnostics.OK
        return level, "; ".join(errors + warnings) or "active", figures
