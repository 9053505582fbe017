"""The open-loop check of a policy: what it would have commanded along recorded episodes.

Every row of a recording is shown to the policy as the live loop would show it, and each of its
plans is held against what was commanded there. Nothing is moved, so errors do not add up, and what
the policy would make of its own mistakes stays unknown: small errors are needed for a policy that
works, and do not prove that it does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from embodied_rl.bags.episode import Episode
from embodied_rl.core.policy import ActionChunk, EpisodeInfo, Policy, check_chunk, check_fits
from embodied_rl.core.window import Observation


@dataclass(frozen=True)
class OpenLoop:
    """Errors of all plans of some episodes, in the units of the commands.

    Attributes:
        horizons: (H,) control periods ahead that are looked at.
        policy: (H, A) mean absolute error of the plans.
        hold_still: (H, A) the same of a policy that keeps the last target, or a base at rest.
        counts: (H,) plans that reach so far within their episode.
    """

    horizons: tuple[int, ...]
    policy: np.ndarray
    hold_still: np.ndarray
    counts: np.ndarray


def horizons_of(policy: Policy) -> tuple[int, ...]:
    """What matters: the next target, the last one before a new plan, the last one of the plan."""
    return tuple(sorted({1, policy.spec.execute, policy.spec.chunk}))


class OpenLoopMeter:
    """Shows episodes to a policy and gathers the errors of its plans."""

    def __init__(self, policy: Policy):
        self._policy = policy
        self.horizons = horizons_of(policy)
        shape = (len(self.horizons), policy.spec.action_dim)
        self._sums = np.zeros((2, *shape))  # of the policy, of holding still
        self._counts = np.zeros(len(self.horizons), dtype=np.int64)
        self.plans = 0

    def add(self, episode: Episode) -> None:
        """Replay one episode.

        Raises:
            UserError: the policy does not fit the robot, or its plan is not sound.
        """
        check_fits(self._policy.spec, episode.embodiment)
        for row, chunk in self._plans(episode):
            self.plans += 1
            still = episode.embodiment.at_rest(episode.actions[row - 1])
            for place, ahead in enumerate(self.horizons):
                due = row + ahead - 1
                if due >= len(episode) or not episode.action_valid[due]:
                    continue
                wanted = episode.actions[due]
                self._sums[0, place] += np.abs(chunk.values[ahead - 1] - wanted)
                self._sums[1, place] += np.abs(still - wanted)
                self._counts[place] += 1

    def result(self) -> OpenLoop:
        """NaN where no plan reached so far."""
        with np.errstate(invalid="ignore"):
            means = self._sums / self._counts[:, None]
        return OpenLoop(self.horizons, means[0], means[1], self._counts)

    def _plans(self, episode: Episode) -> Iterator[tuple[int, ActionChunk]]:
        """Row and plan, every ``execute`` ticks from the first target in force on; as on the robot,
        none is made on a row that lacks a stream."""
        policy, spec = self._policy, self._policy.spec
        policy.reset(_info(episode))
        due = 1  # the first row that may have a target before it
        for row in range(len(episode)):
            observation = _observation(episode, row, tuple(spec.streams))
            policy.observe(observation)
            if row < due or observation.missing or not episode.action_valid[row - 1]:
                continue
            chunk = policy.act()
            check_chunk(chunk, spec)
            yield row, chunk
            due = row + spec.execute
            # what was in force from here on is what the recording says, whatever the plan was
            done = slice(row, min(due, len(episode)))
            if episode.action_valid[done].all():
                values = episode.actions[done]
                policy.executed(ActionChunk(chunk.stamp_ns, chunk.period_ns, values))


def _info(episode: Episode) -> EpisodeInfo:
    """Its own, or for a robot where nobody announces episodes the same without a name."""
    if episode.info is not None:
        return episode.info
    start_ns = int(episode.stamps_ns[0]) if len(episode) else 0
    return EpisodeInfo(0, 0, "", episode.instruction, start_ns)


def _observation(episode: Episode, row: int, keys: Sequence[str]) -> Observation:
    return Observation(
        int(episode.stamps_ns[row]),
        {key: episode.values[key][row] for key in keys},
        {key: bool(episode.valid[key][row]) for key in keys},
    )
