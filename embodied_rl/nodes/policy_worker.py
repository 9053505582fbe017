"""The thread that owns a policy: samples and requests in, rows and chunks out.

Nobody else touches the control loop or the policy, so there is no lock to wait for. Whatever comes
is put into one inbox in the order in which it came, and is taken out between two ticks: also
between two that are overdue because a plan took long, so that no row lacks a sample that has
arrived. A request that begins an episode or lets the policy rest counts from the moment it is
made: the plan under way then is finished and thrown away.

What must not be believed of the clocks is settled here. Only the node's own clock says that time
was set back or leapt ahead; a stray stamp is dropped and counted.
"""

from __future__ import annotations

import queue
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from embodied_rl.core.embodiment import NANOSECONDS, Embodiment, Stream
from embodied_rl.core.errors import UserError
from embodied_rl.core.loop import ControlLoop
from embodied_rl.core.policy import ActionChunk, EpisodeInfo, Instructable, Policy
from embodied_rl.core.schema import plain
from embodied_rl.core.window import CLOCK_JUMP_NS, Arrival, Sample
from embodied_rl.nodes.policy_report import PolicyReport

GRACE_PERIODS = 0.5  # how long a tick waits for a stream that is late
# Stamps of a real driver may be this uneven before a row can lack a sample of its time.
JITTER_SHARE, LEAST_JITTER_NS = 0.25, 5_000_000
MOVING = 0.01  # change of a target within a chunk, or a velocity, in its unit, that is motion


class Outlet(Protocol):
    """What a worker asks of its node. All of it is called on the worker's thread."""

    def now_ns(self) -> int: ...

    def take_waiting(self) -> None:
        """Hand over the samples that have come but were not dispatched yet."""

    def send(self, chunk: ActionChunk) -> None: ...

    def beat(self) -> None: ...

    def show_plan(self, policy: Policy) -> None: ...

    def unsound(self) -> str:
        """Why the streams must not be acted upon, whatever the rows say; empty if they may."""

    def why_missing(self, keys: list[str]) -> str: ...

    def say(self, line: str, level: str = "error") -> None:
        """Log a line once a cause; a ``fault`` also stays in the diagnostics for the episode."""

    def broken(self, trace: str) -> None:
        """The policy has raised what it must not: the process ends and the gate holds."""


@dataclass(frozen=True)
class _Begin:
    """An episode begins; without one, the policy rests."""

    info: EpisodeInfo | None
    epoch: int


@dataclass(frozen=True)
class _Instruction:
    text: str


@dataclass(frozen=True, eq=False)
class _Ask:
    action: Callable[[ControlLoop | None], None]


_Item = tuple[str, Sample, float] | ActionChunk | _Begin | _Instruction | _Ask | None


class PolicyWorker:
    """Runs one policy until :meth:`stop`."""

    def __init__(self, policy: Policy, embodiment: Embodiment, lockstep: bool, outlet: Outlet):
        # In lockstep stamps lie on an exact grid, and time waits for the answer.
        self.loop = ControlLoop(
            policy, embodiment, None if lockstep else _jitter_ns, trust_stamps=False
        )
        self.report = PolicyReport(policy, embodiment, self.loop.builder)
        self.last_tick_ns = self.last_chunk_ns = 0
        self.moving_since_ns: int | None = None  # first of the latest chunks that ask for motion
        self._period_ns, self._lockstep, self._outlet = embodiment.period_ns, lockstep, outlet
        self._velocities = embodiment.velocities
        self._inbox: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        self._epoch = self._begun = 0  # of the newest request, and of the newest carried out
        self._resting, self._stopped, self._refused = True, False, False
        self._newest_instruction: _Instruction | None = None
        self._asking, self._asked = threading.Lock(), list[_Ask]()
        self._clock_ns = 0
        self._row_s = time.monotonic()
        self._last_arrival_s = 0.0
        self._thread = threading.Thread(target=self._work, name="policy", daemon=True)

    def start(self) -> None:
        """Called once everything that it hands on to is there."""
        self._thread.start()

    # ---------------------------------------------------------------- from other threads
    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and not self._stopped

    @property
    def running(self) -> bool:
        """Whether its thread has not ended yet."""
        return self._thread.is_alive()

    def put(self, key: str, sample: Sample, arrival_s: float) -> None:
        self._inbox.put((key, sample, arrival_s))

    def executed(self, chunk: ActionChunk) -> None:
        """What the gate let through."""
        self._inbox.put(chunk)

    def begin(self, info: EpisodeInfo) -> None:
        self._epoch += 1
        self._inbox.put(_Begin(info, self._epoch))

    def rest(self) -> None:
        """Look and act no more until the next :meth:`begin`."""
        self._epoch += 1
        self._inbox.put(_Begin(None, self._epoch))

    def instruct(self, text: str) -> None:
        self._newest_instruction = _Instruction(text)
        self._inbox.put(self._newest_instruction)

    def ask(self, action: Callable[[ControlLoop | None], None]) -> None:
        """Do something with the loop between two ticks; without a loop if there are no more."""
        request = _Ask(action)
        with self._asking:
            self._asked.append(request)
        self._inbox.put(request)

    def stop(self) -> None:
        """Send nothing from now on; the thread ends after the plan under way, if there is one."""
        self._stopped = True
        self._inbox.put(None)
        with self._asking:
            left, self._asked = self._asked, []
        for request in left:
            request.action(None)

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout=timeout_s)

    # ---------------------------------------------------------------- the thread
    def _work(self) -> None:
        while not self._stopped:
            try:
                item = self._next()
                if item is not None:
                    self._take(item)
                self._run_ticks()
            except UserError as error:
                self._outlet.say(str(error), "fault")
            except Exception:
                # A defect in a policy must not leave a silent thread: the gate holds, the
                # process ends and the bring-up says which node it was.
                self._stopped = True
                self._outlet.broken(traceback.format_exc())

    def _next(self) -> _Item:
        """The next thing that comes; None if a twentieth of a control period passes first."""
        try:
            return self._inbox.get(timeout=self._period_ns / 20e9)
        except queue.Empty:
            return None

    def _drain(self) -> None:
        while not self._stopped:
            try:
                item = self._inbox.get_nowait()
            except queue.Empty:
                return
            if item is not None:
                self._take(item)

    def _take(self, item: _Item) -> None:
        if isinstance(item, _Begin):
            self._carry_out(item)
        elif isinstance(item, _Instruction):
            if item is self._newest_instruction and not self._resting:
                self._instruct(item.text)
        elif isinstance(item, _Ask):
            self._answer(item)
        elif self._resting or self.loop.episode is None:
            return
        elif isinstance(item, ActionChunk):
            self.loop.executed(item)
        elif item is not None:
            key, sample, self._last_arrival_s = item
            if self.loop.add(key, sample) is Arrival.STRAY:
                self._outlet.say(
                    f"stream '{key}': a sample stamped more than {CLOCK_JUMP_NS // NANOSECONDS} s "
                    "before the newest was dropped",
                    "warning",
                )

    def _carry_out(self, request: _Begin) -> None:
        self._begun = request.epoch
        if request.epoch != self._epoch:
            return  # a newer one is on its way
        self._resting = request.info is None
        if request.info is not None:
            self._reset(request.info)
            self._instruct(request.info.instruction)

    def _reset(self, info: EpisodeInfo) -> None:
        self.loop.reset(info)
        self._clear()

    def _clear(self) -> None:
        self.report.clear()
        self.last_tick_ns = self.last_chunk_ns = 0
        self.moving_since_ns = None
        self._last_arrival_s = 0.0

    def _answer(self, request: _Ask) -> None:
        with self._asking:
            if request not in self._asked:
                return  # it was answered when the worker was stopped
            self._asked.remove(request)
        request.action(self.loop)

    def _instruct(self, text: str) -> None:
        """Tell a policy that takes instructions; what it refuses changes nothing."""
        policy = self.loop.policy
        if not text.strip() or not isinstance(policy, Instructable):
            return
        try:
            policy.instruct(text)
            self.report.refused_instruction = ""
        except Exception as error:  # the text is anybody's; it must not end the node
            if not isinstance(error, UserError):
                self._outlet.say(traceback.format_exc(), "trace")
                error = UserError(f"the policy cannot read it ({type(error).__name__}: {error})")
            self.report.refused_instruction = plain(f"instruction refused: {error}")
            self._outlet.say(self.report.refused_instruction)

    # ---------------------------------------------------------------- ticks
    @property
    def _current(self) -> bool:
        """Whether nothing has been asked for that ends what is under way."""
        return self._begun == self._epoch and not self._resting and not self._stopped

    def _run_ticks(self) -> None:
        while True:
            self._drain()
            self._watch_clock()
            if not self._current or self.loop.episode is None or not self._is_due():
                return
            self._tick()

    def _tick(self) -> None:
        loop, report = self.loop, self.report
        now_ns = self._outlet.now_ns()
        late_s, self._row_s = time.monotonic() - self._row_s, time.monotonic()
        gap_s = (now_ns - loop.next_tick_ns) / NANOSECONDS
        if loop.leap_to(now_ns):
            self._clear()
            leapt = gap_s > late_s + 1 and not self._lockstep
            why = "the clock leapt ahead by" if leapt else "no row was built for"
            self._outlet.say(f"{why} {gap_s:.1f} s; the memory begins anew", "fault")
            return
        if not self._lockstep:
            report.skipped += loop.skip_to(loop.newest_tick(now_ns))
        observation, chunk = loop.tick(may_act=not self._refused)
        if not self._current:
            return  # what was planned is of an episode that is over
        self.last_tick_ns = loop.next_tick_ns - self._period_ns
        worse = report.saw(observation, self._outlet.why_missing)
        if worse:
            self._outlet.say(worse)
        if chunk is not None:
            self._send(chunk)
        if self._lockstep:
            self._outlet.beat()
        else:
            self._judge()
        if chunk is not None:
            self._outlet.show_plan(loop.policy)

    def _judge(self) -> None:
        """While the streams are unsound nothing is planned. A gate that holds believes no chunk
        until it has heard that it may, so planning begins with the row after."""
        reason = self.report.missing or self._outlet.unsound()
        before, self._refused = self._refused, bool(reason)
        if self._refused != before:
            self._outlet.beat()
            if reason:
                if not self.report.missing:  # said already
                    self._outlet.say(f"the robot must hold: {reason}")
            else:
                self._outlet.say("the streams are sound again", "info")

    def _watch_clock(self) -> None:
        """Time that goes back begins the episode anew, from now."""
        now_ns, before_ns = self._outlet.now_ns(), self._clock_ns
        self._clock_ns = now_ns
        if now_ns < before_ns - CLOCK_JUMP_NS:
            self.loop.set_back(now_ns)
            self._clear()
            back_s = (before_ns - now_ns) / NANOSECONDS
            line = f"the clock was set back by {back_s:.1f} s; the memory begins anew"
            self._outlet.say(line, "fault")

    def _is_due(self) -> bool:
        """All that the tick needs has come, or it has waited for the late ones long enough.

        In lockstep that includes what became of the last chunk: the run must not depend on whether
        that message is faster than the next observation.
        """
        loop = self.loop
        awaiting = self._lockstep and loop.awaiting
        if not loop.owing() and not awaiting:
            return True
        grace_ns = int(GRACE_PERIODS * self._period_ns)
        if self._outlet.now_ns() < loop.next_tick_ns + grace_ns:
            return False
        if not self._lockstep:
            self._outlet.take_waiting()
            self._drain()
        elif awaiting:
            self.report.unconfirmed += 1
            loop.give_up_waiting()
        return self._current

    def _send(self, chunk: ActionChunk) -> None:
        if not self._lockstep:
            planned, now_ns = chunk, self._outlet.now_ns()
            # Later than one period after its tick, part of the plan was never carried out.
            self.report.misses += int(now_ns > chunk.stamp_ns + chunk.period_ns)
            chunk = chunk.after(now_ns)
            if not len(chunk.values):
                took_s = (now_ns - planned.stamp_ns) / NANOSECONDS
                whole_s = len(planned.values) * planned.period_ns / NANOSECONDS
                self._outlet.say(
                    f"inference came {took_s:.2f} s after its row, and the whole chunk lasts "
                    f"{whole_s:.2f} s: nothing of it is left to send",
                    "fault",
                )
                return
        self.last_chunk_ns = chunk.stamp_ns
        if not self._moves(chunk.values):
            self.moving_since_ns = None
        elif self.moving_since_ns is None:
            self.moving_since_ns = chunk.stamp_ns
        self._outlet.send(chunk)
        self.report.chunks += 1
        self.report.latency.add((time.perf_counter() - self._last_arrival_s) * 1e3)

    def _moves(self, values: np.ndarray) -> bool:
        change = np.where(self._velocities, np.abs(values).max(axis=0), np.ptp(values, axis=0))
        return bool(np.any(change > MOVING))


def _jitter_ns(stream: Stream) -> int:
    return max(round(JITTER_SHARE * stream.period_ns), LEAST_JITTER_NS)
