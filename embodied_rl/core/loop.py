"""The control loop that in-process evaluation, the policy node and the replay of a bag share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from embodied_rl.core.embodiment import NANOSECONDS, Embodiment, Stream
from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import ActionChunk, EpisodeInfo, InContext, Policy, check_chunk
from embodied_rl.core.window import Arrival, Observation, RowBuilder, Sample, first_tick

SHOWN_NS = 5 * NANOSECONDS  # skipped rows are shown over this time, or a longer history


class ControlLoop:
    """Samples in, one row a control tick to the policy, a chunk out every ``spec.execute`` ticks.

    What the limits made of a chunk comes back through :meth:`executed`, so that a policy never
    takes what it asked for as what it did.

    The caller decides when a tick is due: as soon as :meth:`owing` is empty, or when it has waited
    long enough. A row with a missing stream is shown to the policy as such, but never acted upon.

    Args:
        jitter: see :class:`~embodied_rl.core.window.RowBuilder`.
        trust_stamps: of the samples, where the caller has no clock; one that has calls
            :meth:`set_back`.
    """

    def __init__(
        self,
        policy: Policy,
        embodiment: Embodiment,
        jitter: Callable[[Stream], int] | None = None,
        trust_stamps: bool = True,
    ):
        self.policy = policy
        self.period_ns = embodiment.period_ns
        self.builder = RowBuilder(embodiment, policy.spec.streams, jitter, trust_stamps)
        self.episode: EpisodeInfo | None = None
        self.next_tick_ns = 0
        self._next_act_ns = 0
        self._awaited_ns: int | None = None
        self.invalid_rows = 0

    def reset(self, episode: EpisodeInfo) -> None:
        """Begin an episode; its first tick is the first one on the grid from ``start_ns`` on.

        A policy that learns in context keeps its memory from one episode of a trial to the next,
        not when an episode begins again.
        """
        before, self.episode = self.episode, episode
        self.builder.reset(episode.start_ns)
        follows = before is not None and (
            before.trial == episode.trial and before.episode < episode.episode
        )
        if follows and isinstance(self.policy, InContext):
            self.policy.next_episode(episode)
        else:
            self.policy.reset(episode)
        self.next_tick_ns = self._next_act_ns = first_tick(episode.start_ns, self.period_ns)
        self._awaited_ns = None
        self.invalid_rows = 0

    def add(self, key: str, sample: Sample) -> Arrival:
        """Hand over a sample. A clock that was set back begins the episode anew from there."""
        arrival = self.builder.add(key, sample)
        if arrival is Arrival.CLOCK_JUMP and self.episode is not None:
            self.reset(replace(self.episode, start_ns=self.builder.start_ns))
        return arrival

    def set_back(self, now_ns: int) -> None:
        """The clock was set back to ``now_ns``: begin the episode anew from there."""
        self.builder.set_back(now_ns)
        if self.episode is not None:
            self.reset(replace(self.episode, start_ns=now_ns))

    @property
    def awaiting(self) -> bool:
        """Whether it is still unknown what became of the last chunk (see :meth:`executed`)."""
        return self._awaited_ns is not None

    def executed(self, chunk: ActionChunk) -> bool:
        """Tell the policy which chunk is now in force, after the limits.

        Returns:
            False for a chunk that began before this episode; the policy does not hear of it.
        """
        if self.episode is None or chunk.stamp_ns + self.period_ns <= self.episode.start_ns:
            return False
        if self._awaited_ns is not None and chunk.stamp_ns >= self._awaited_ns:
            self._awaited_ns = None
        self.policy.executed(chunk)
        return True

    def give_up_waiting(self) -> None:
        """The answer to the last chunk is lost; go on without it."""
        self._awaited_ns = None

    def owing(self) -> list[str]:
        """The streams that the next tick still waits for."""
        return self.builder.owing(self.next_tick_ns)

    def tick(self, may_act: bool = True) -> tuple[Observation, ActionChunk | None]:
        """Build the next row, let the policy see it and, when it is time, act.

        Args:
            may_act: False while the policy must not be obeyed; it acts on the first row after.

        Raises:
            UserError: the policy's chunk has a wrong shape or a value that is not finite.
        """
        now_ns = self.next_tick_ns
        observation = self.builder.row(now_ns)
        self.next_tick_ns = now_ns + self.period_ns
        self.policy.observe(observation)
        if observation.missing:
            self.invalid_rows += 1
            return observation, None
        if not may_act:
            self._next_act_ns = self.next_tick_ns
        if now_ns < self._next_act_ns:
            return observation, None
        chunk = self.policy.act()
        check_chunk(chunk, self.policy.spec)
        self._next_act_ns = now_ns + self.policy.spec.execute * self.period_ns
        self._awaited_ns = chunk.stamp_ns
        return observation, chunk

    @property
    def reach_ns(self) -> int:
        """The longest gap over which rows are shown one by one; a longer one outlasts the memory
        of rows anyway."""
        spec = self.policy.spec
        return max(SHOWN_NS, spec.history * spec.stride * self.period_ns)

    def newest_tick(self, now_ns: int) -> int:
        """The newest tick until ``now_ns`` that owes nothing, the next one at least."""
        whole_ns = self.builder.whole_until_ns()
        if whole_ns is None:
            return self.next_tick_ns
        return max(min(now_ns, whole_ns) // self.period_ns * self.period_ns, self.next_tick_ns)

    def skip_to(self, tick_ns: int) -> int:
        """Leave out ticks up to ``tick_ns`` that came too late to be of use; how many they were.

        Their rows are built and shown all the same, so that the memory keeps its spacing. A gap
        longer than :attr:`reach_ns` is left by :meth:`leap_to`.
        """
        skipped = 0
        while self.next_tick_ns < tick_ns:
            self.policy.observe(self.builder.row(self.next_tick_ns))
            self.next_tick_ns += self.period_ns
            skipped += 1
        return skipped

    def leap_to(self, now_ns: int) -> bool:
        """Begin the episode anew at ``now_ns`` if the next tick lies further back than
        :attr:`reach_ns`; whether it did."""
        if self.episode is None or now_ns - self.next_tick_ns <= self.reach_ns:
            return False
        self.reset(replace(self.episode, start_ns=now_ns))
        return True

    def load_memory(self, blob: bytes) -> None:
        """Replace the policy's memory and plan anew on the next row. What the robot did between
        the saving and now is a gap in it. A memory that is refused changes nothing.

        Raises:
            UserError: not a memory of this policy.
        """
        before = self.policy.save_memory()
        try:
            self.policy.load_memory(blob)
        except Exception as error:
            self.policy.load_memory(before)
            if isinstance(error, UserError):
                raise
            raise UserError(
                f"memory: expected one of {self.policy.spec.name}, saw a damaged one "
                f"({type(error).__name__}: {error})"
            ) from error
        self._awaited_ns = None
        self._next_act_ns = self.next_tick_ns
