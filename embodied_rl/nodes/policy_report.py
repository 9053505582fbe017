"""What a policy node counts and what it says of itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from embodied_rl.core.embodiment import NANOSECONDS, Embodiment
from embodied_rl.core.loop import ControlLoop
from embodied_rl.core.policy import Cautious, Policy, Reporting
from embodied_rl.core.training_range import TrainingRange
from embodied_rl.core.window import Arrival, Observation, RowBuilder
from embodied_rl.nodes import diagnostics

# A row lacks a stream that is older than its maximum age. So many such rows in a row are too much:
# a chunk is carried out at most a period and a half beyond the age of what it was planned from.
INVALID_ROWS = 2
# Samples after their row that are no reason to speak of: so many, or this share of the ticks.
FEW_LATE, LATE_SHARE = 3, 0.05
PATIENCE_S = 0.5  # that the first rows of an episode may lack a stream


class PolicyReport:
    """Of the running episode of one control loop."""

    def __init__(self, policy: Policy, embodiment: Embodiment, builder: RowBuilder) -> None:
        self.range = TrainingRange(policy, embodiment)
        self._policy, self._builder = policy, builder
        patience_ns = PATIENCE_S * NANOSECONDS
        self._first_rows = max(INVALID_ROWS, round(patience_ns / embodiment.period_ns))
        self.clear()

    def clear(self) -> None:
        self.latency = diagnostics.Percentiles()
        self.ticks = self.chunks = self.misses = self.skipped = self.unconfirmed = 0
        self.error = ""
        self.refused_instruction = ""
        self.missing = ""  # why rows are not sound; the robot must hold
        self._refusal = self._warned = ""
        self._missing_ticks = 0
        self._missing_keys: list[str] = []
        self._sound_once = False
        self.range.clear()
        self._late_before = Counter(self._builder.late)

    def saw(self, observation: Observation, why_missing: Callable[[list[str]], str]) -> str:
        """Note the row of a tick and what the policy makes of it; what has become worse by it."""
        self.ticks += 1
        refusal, before, warned = self._refusal, self.missing, self._warned
        self._sound_once |= not observation.missing
        self._missing_ticks = self._missing_ticks + 1 if observation.missing else 0
        limit = INVALID_ROWS if self._sound_once else self._first_rows
        if self._missing_ticks < limit:
            self.missing = ""
        elif not self.missing or self._missing_keys != observation.missing:
            # as long as the same streams are missing the line stays as it is
            self.missing = why_missing(observation.missing)
            self._missing_keys = observation.missing
        self._refusal = self._policy.refusal() if isinstance(self._policy, Cautious) else ""
        self.range.saw(observation)
        self._warned = self.range.warning or self._warned
        if self.missing and self.missing != before:
            return f"not acting: {self.missing}"
        if self._refusal and self._refusal != refusal:
            return self._refusal
        return "" if warned else self._warned  # said once an episode, then counted

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
            "stray_samples": arrivals[Arrival.STRAY],
            **rates,
            **self.range.figures(),
            **(loop.policy.figures() if isinstance(loop.policy, Reporting) else {}),
        }

    def status(self, figures: Mapping[str, object], unsound: list[str]) -> diagnostics.Status:
        """Of an active node: all that is wrong, what is worse first.

        Args:
            unsound: what is wrong with the streams.
        """
        missing = f"not acting: {self.missing}" if self.missing else ""
        errors = [line for line in (missing, *unsound, self.error) if line]
        warnings = [line for line in (self.refused_instruction, self._refusal) if line]
        outside = sum(self.range.outside.values())
        if outside:
            warnings.append(f"{outside} rows outside the training range; {self._warned}")
        if self.misses or self.skipped:
            warnings.append(f"{self.misses} deadlines missed")
        for key, count in (self._builder.late - self._late_before).most_common(1):
            if count <= max(FEW_LATE, LATE_SHARE * self.ticks):
                break
            warnings.append(f"{count} samples of {key} came after their row: see {key}.hint")
        level = diagnostics.ERROR if errors else diagnostics.WARN if warnings else diagnostics.OK
        return level, "; ".join(errors + warnings) or "active", figures
