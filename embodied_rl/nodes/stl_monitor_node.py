"""Watches a specification in signal temporal logic while the robot runs, and may stop it.

Streams of the embodiment come in; out go the robustness of each formula (``~/robustness``), one
diagnostic status for each clause (``~/status``), and events (``~/events``, one line of JSON each).
The decisions are :class:`embodied_rl.stl.live.LiveMonitor`'s, so ``embodied_rl stl check`` says the
same, to the byte, of a recording of the same episode.

With ``on_violation: stop`` the first violation publishes ``emergency_stop`` once, which the command
gate obeys; the node then stays in that state until ``~/reset``. The gate is released by itself.
Five times a second ``~/alive`` says that somebody watches.

The node runs in a process and on a thread of its own: no policy delays a verdict.
"""

from __future__ import annotations

import sys
import time
from array import array
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_msgs.msg import (
    Bool,
    Float64MultiArray,
    Header,
    MultiArrayDimension,
    MultiArrayLayout,
    String,
)
from std_srvs.srv import Trigger

from embodied_rl.core.embodiment import NANOSECONDS, Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.plan import PlanRecord
from embodied_rl.core.policy import EpisodeInfo
from embodied_rl.core.window import Arrival, Sample
from embodied_rl.nodes import diagnostics, messages, qos
from embodied_rl.nodes.connections import Connections
from embodied_rl.nodes.process import Stop, parameter, run, run_ready
from embodied_rl.nodes.stream_input import StreamInput
from embodied_rl.sim.stl_tasks import specification as specifications
from embodied_rl.stl import conformal
from embodied_rl.stl.events import Event, Kind
from embodied_rl.stl.live import LiveMonitor, State
from embodied_rl.stl.monitor import SpecificationMonitor, Status
from embodied_rl.stl.online import Verdict

ALIVE_PERIOD_S = 0.2
COLUMNS = ("anchor_s", "low", "high", "estimate", "bound")
# What was under way when the outcome came is waited for, as the recorder does.
QUIET_S = 0.1
# Samples are looked for a few times a step: to wait for each by the executor costs about as much
# as all that the monitor does with it.
ROUNDS_PER_STEP, SHORTEST_ROUND_S, LONGEST_ROUND_S = 4, 0.001, 0.01
EXECUTOR_EVERY_S = 0.1  # everything else: services, announcements, timers, the clock
# On a busy machine a simulated clock may come later than the samples of its time.
SIMULATED_AHEAD_NS = 10 * NANOSECONDS
_LEVELS = {
    Verdict.SATISFIED: DiagnosticStatus.OK,
    Verdict.VIOLATED: DiagnosticStatus.ERROR,
    Verdict.UNDECIDED: DiagnosticStatus.WARN,
    Verdict.UNDETERMINED: DiagnosticStatus.WARN,
}
_ALARMS = (Kind.VIOLATED, Kind.STALE, Kind.RESET)  # what the diagnostics say at once


class StlMonitorNode(Node):
    def __init__(self, stop: Stop):
        super().__init__("stl_monitor_node")
        self.embodiment = Embodiment.load(
            parameter(self, "embodiment", "", "embodiment file of the robot")
        )
        name = parameter(self, "spec", "", "specification file, or a task by its name or file")
        if not name:
            raise UserError(f"{self.get_name()}: parameter spec: expected a file or task, saw none")
        spec = specifications.find(name, self.embodiment)
        anchor = parameter(
            self, "anchor", "episode", "judge from each episode/start, or from the start of the "
            "node", ("episode", "start"),
        )  # fmt: skip
        action = parameter(
            self, "on_violation", "event", "say it, or stop the robot too", ("event", "stop")
        )
        calibration = parameter(self, "calibration", "", "file of embodied_rl stl calibrate")
        rate_hz = parameter(self, "publish_rate_hz", 10.0, "of ~/robustness, on the ROS clock")
        if not rate_hz > 0:
            raise UserError(
                f"{self.get_name()}: parameter publish_rate_hz: expected a number above 0, "
                f"saw {rate_hz:g}"
            )
        self._live = LiveMonitor(
            spec,
            anchor == "episode",
            self._on_slot,
            conformal.load(Path(calibration), spec) if calibration else None,
        )
        self._stops = action == "stop"
        self._follows_plan = specifications.names_task(name)
        self._publish_period_ns = round(NANOSECONDS / rate_hz)
        self._published_ns = 0  # slot of the newest ~/robustness
        self._inbox: list[tuple[str, Sample, float]] = []
        self._slots = self._events_said = 0
        self._stopped_by: Event | None = None  # since then the robot must stand still
        self._stop_owed = False  # nobody has been told yet
        self._over_s: float | None = None  # when the announced end of the episode counts
        self._episode: EpisodeInfo | None = None
        self._error = ""
        self.latency = diagnostics.Percentiles()
        self._create_interfaces()
        self.get_logger().info(
            f"watching {spec.name}: {len(spec.formulas)} formulas every {spec.dt_s:g} s over "
            f"{list(spec.signals.streams)}, on violation: {action}"
        )

    def _create_interfaces(self) -> None:
        self._robustness = self.create_publisher(
            Float64MultiArray, "~/robustness", qos.reliable(10)
        )
        self._statuses = self.create_publisher(DiagnosticArray, "~/status", qos.DIAGNOSTICS)
        self._events = self.create_publisher(String, "~/events", qos.latched(100))
        if self._stops:
            self._emergency_stop = self.create_publisher(Bool, "emergency_stop", qos.COMMANDS)
        simulated = self.get_parameter("use_sim_time").value
        self._input = StreamInput(
            self,
            self.embodiment,
            self._live.spec.signals.streams,
            lambda *arrived: self._inbox.append(arrived),
            qos.recording,
            SIMULATED_AHEAD_NS if simulated else None,
        )
        # In this order, in which the executor looks: an outcome that waits beside the next
        # episode's start is of the one before.
        self._ears = [
            self.create_subscription(String, "episode/outcome", self._on_outcome, qos.LATCHED),
            self.create_subscription(String, "episode/start", self._on_episode, qos.LATCHED),
        ]
        if self._follows_plan:
            self._ears.append(
                self.create_subscription(String, "policy/plan", self._on_plan, qos.LATCHED)
            )
        self._connections = Connections(self)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.create_service(Trigger, "~/reset_episode", self._on_reset_episode)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._alive = self.create_publisher(Header, "~/alive", qos.reliable(1))
        self.create_timer(ALIVE_PERIOD_S, self._beat, clock=steady)
        self.create_timer(1.0, self._on_second, clock=steady)
        self._diagnostics = diagnostics.Diagnostics(self, self._status)

    # ---------------------------------------------------------------- the loop
    def spin(self, stop: Stop) -> None:
        """Look for samples at short intervals, and after the rest now and then."""
        executor = SingleThreadedExecutor()
        executor.add_node(self)
        step_s = self._live.spec.dt_s / ROUNDS_PER_STEP
        round_s = min(max(step_s, SHORTEST_ROUND_S), LONGEST_ROUND_S)
        executor_s, rounds = time.monotonic(), 0
        while not stop:
            rounds += 1
            self._look(rounds % ROUNDS_PER_STEP == 0)
            if time.monotonic() >= executor_s:
                executor_s = time.monotonic() + EXECUTOR_EVERY_S
                run_ready(executor)
            else:
                time.sleep(round_s)

    def _look(self, advance: bool) -> None:
        """Judge what has come; where nothing has, and once a step, what time alone closes."""
        now_ns = messages.now_ns(self) if advance else 0  # what was sent by then is there
        self._input.take_waiting()
        if self._inbox:
            batch = self._whole_batch()
            slots = self._slots
            self._say(self._live.take((key, sample) for key, sample, _ in batch))
            if self._slots > slots:
                self.latency.add((time.perf_counter() - batch[-1][2]) * 1e3)
        elif advance:
            self._say(self._live.advance(now_ns))
        if self._over_s is not None and time.monotonic() > self._over_s:
            self._end()
        if self._stop_owed and advance:
            self._send_stop()

    def _whole_batch(self) -> list[tuple[str, Sample, float]]:
        """What has come, up to the newest stamp of which all earlier ones have come too.

        The topics are taken one after the other. If this process has to wait in between, or the
        simulation runs many times faster than the wall clock, the last topic is far ahead of the
        first, which would look silent. So each is taken once more: what was sent before the newest
        of the first round is there by then, and what is newer waits for the next look.
        """
        newest_ns = max(sample.stamp_ns for _, sample, _ in self._inbox)
        self._input.take_waiting()
        batch = [one for one in self._inbox if one[1].stamp_ns <= newest_ns]
        self._inbox = [one for one in self._inbox if one[1].stamp_ns > newest_ns]
        return batch

    def _on_slot(self, monitor: SpecificationMonitor) -> None:
        self._slots += 1
        assert monitor.slot is not None
        index, stamp_ns = monitor.slot.index, monitor.slot.stamp_ns  # 0: a new anchor
        if index == 0 or stamp_ns >= self._published_ns + self._publish_period_ns:
            self._published_ns = stamp_ns
            self._publish_robustness(monitor)

    # ---------------------------------------------------------------- episodes
    def _on_episode(self, message: String) -> None:
        try:
            info = EpisodeInfo.from_yaml(message.data, "episode/start")
        except UserError as error:
            self._complain(str(error))
            return
        self._end()
        self._episode, self._error = info, ""
        self._say(self._live.begin(info.start_ns))

    def _on_outcome(self, _: String) -> None:
        self._over_s = time.monotonic() + QUIET_S

    def _end(self) -> None:
        """Judge the episode whose outcome has come, if one has."""
        if self._over_s is not None:
            self._over_s = None
            self._say(self._live.end())
            self._publish_robustness(self._live.monitor)

    def _on_plan(self, message: String) -> None:
        """A policy follows a formula; if it is another one than is watched, watch that."""
        try:
            plan = PlanRecord.from_yaml(message.data, "policy/plan")
            spec = specifications.over_regions(
                plan.task, plan.formula, plan.dt_s, plan.regions, self.embodiment
            )
        except UserError as error:
            self._complain(str(error))
            return
        live = self._live
        if self._episode is None and spec.asks_the_same_as(live.own):
            # Where nobody announces episodes, the policy's plan says when one began.
            self._say(live.begin(plan.start_ns))
        elif self._is_new(plan) and not spec.asks_the_same_as(live.spec):
            self.get_logger().info(f"watching the policy's formula: {plan.formula}")
            self._say(live.adopt(spec, plan.start_ns))

    def _is_new(self, plan: PlanRecord) -> bool:
        """Not of an episode before: the topic keeps its last message."""
        if self._episode is None:
            return True
        return self._live.state is State.WATCHING and plan.start_ns >= self._episode.start_ns

    def _on_reset(self, request, response):
        """Begin anew and end the stop; the command gate is released by itself."""
        response.success = True
        response.message = "watching anew"
        if self._stopped_by is not None:
            response.message += "; release the command gate to let the robot move"
        self._stopped_by, self._stop_owed, self._error = None, False, ""
        self._say(self._live.reset(messages.now_ns(self)))
        return response

    def _on_reset_episode(self, request, response):
        """Say which episode is watched; not a success as long as something could be missed."""
        missing = self._connections.missing([*self._ears, *self._input.subscriptions])
        known = self._episode is not None and self._live.state is State.WATCHING
        response.success = known and not missing
        response.message = self._live.state.value
        if known and self._episode is not None:
            response.message = "; ".join(missing) or self._episode.to_yaml()
        return response

    def close(self) -> None:
        """Called at the end of the process: say what is known by then."""
        self._look(advance=True)
        self._end()

    # ---------------------------------------------------------------- what goes out
    def _beat(self) -> None:
        """From the thread that judges: a robot that may move only while it is watched is held when
        this falls silent."""
        stamp = self.get_clock().now().to_msg()
        self._alive.publish(Header(stamp=stamp, frame_id=self._live.spec.name))

    def _say(self, events: list[Event]) -> None:
        for event in events:
            self._events_said += 1
            self._events.publish(String(data=event.to_json()))
            if event.event is Kind.VIOLATED and self._stops and self._stopped_by is None:
                self._stopped_by, self._stop_owed = event, True
                self._send_stop()
        if events:
            self._publish_statuses()
        if any(event.event in _ALARMS for event in events):
            self._diagnostics.publish()

    def _send_stop(self) -> None:
        """Once, but not before anybody listens."""
        assert self._stopped_by is not None
        if not self._emergency_stop.get_subscription_count():
            self._complain("emergency_stop: expected a command gate that listens, saw none")
            return
        self._stop_owed, self._error = False, ""
        self._emergency_stop.publish(Bool(data=True))
        self.get_logger().error(f"emergency stop: violated {self._stopped_by.formula}")

    def _publish_robustness(self, monitor: SpecificationMonitor) -> None:
        """One row of ``COLUMNS`` for each formula; NaN where there is no prediction or bound."""
        readings = monitor.readings()
        if not readings:
            return
        data = array("d")
        for one in readings.values():
            optional = (float("nan") if v is None else v for v in (one.estimate, one.bound))
            data.extend((one.anchor_ns / NANOSECONDS, one.low, one.high, *optional))
        width = len(COLUMNS)
        rows = MultiArrayDimension(label=",".join(readings), size=len(readings), stride=len(data))
        columns = MultiArrayDimension(label=",".join(COLUMNS), size=width, stride=width)
        layout = MultiArrayLayout(dim=[rows, columns])
        self._robustness.publish(Float64MultiArray(layout=layout, data=data))

    def _publish_statuses(self) -> None:
        found = self._live.monitor.status()
        array_message = DiagnosticArray(status=[self._status_message(one) for one in found])
        array_message.header.stamp = self.get_clock().now().to_msg()
        self._statuses.publish(array_message)

    def _status_message(self, status: Status) -> DiagnosticStatus:
        level, line = _LEVELS[status.verdict], status.verdict.value
        estimate = None
        if not status.clause.path:
            estimate = self._live.monitor.estimate(status.formula)
        if status.violating:
            level, line = DiagnosticStatus.ERROR, "violated at a later step"
        elif status.missing and level == DiagnosticStatus.WARN:
            level, line = DiagnosticStatus.STALE, f"missing: {', '.join(status.missing)}"
        elif estimate is not None and estimate < 0 and level == DiagnosticStatus.OK:
            level, line = DiagnosticStatus.WARN, "satisfied, but predicted to fail"
        figures = {
            "subformula": status.clause.text,
            "verdict": status.verdict.value,
            "low": status.low,
            "high": status.high,
            "anchor_ns": status.anchor_ns,
        }
        if estimate is not None:
            figures["estimate"] = estimate
        name = ".".join(part for part in (status.formula, status.clause.path) if part)
        return DiagnosticStatus(
            level=level,
            name=f"{self.get_fully_qualified_name().lstrip('/')}: {name}",
            message=line,
            values=[KeyValue(key=key, value=str(value)) for key, value in figures.items()],
        )

    # ---------------------------------------------------------------- state
    def _on_second(self) -> None:
        self._input.match()
        self._publish_statuses()

    def _complain(self, text: str) -> None:
        if text != self._error:
            self.get_logger().error(text)
            self._error = text
            self._diagnostics.publish()

    def _figures(self) -> dict[str, object]:
        sampler = self._live.monitor.sampler
        counts = sampler.counts
        return {
            "specification": self._live.spec.name,
            "state": self._live.state.name,
            "slots": self._slots,
            "events": self._events_said,
            **self.latency.figures("latency"),
            **{f"{key}.late": count for key, count in sampler.late.items()},
            "duplicates": counts[Arrival.DUPLICATE],
            "clock_jumps": counts[Arrival.CLOCK_JUMP],
            "lost": self._input.lost,
            **{f"{name}.out_of_bounds": n for name, n in sampler.out_of_bounds.items()},
            **self._input.figures(),
            "last_error": self._error,
        }

    def _status(self) -> diagnostics.Status:
        level, line = self._state()
        return level, line, self._figures()

    def _state(self) -> tuple[bytes, str]:
        found = self._live.monitor.status()
        whole = [status for status in found if not status.clause.path]
        broken = [s.formula for s in whole if s.violating or s.verdict is Verdict.VIOLATED]
        if self._stopped_by is not None:
            return diagnostics.ERROR, f"stopped the robot: violated {self._stopped_by.formula}"
        if broken:
            return diagnostics.ERROR, f"violated: {', '.join(broken)}"
        if self._error:
            return diagnostics.WARN, self._error
        missing = dict.fromkeys(name for status in found for name in status.missing)
        if missing and self._live.state is State.WATCHING:
            return diagnostics.WARN, f"missing: {', '.join(missing)}"
        refused = [m.last_refusal for m in self._input.meters.values() if m.refused]
        if refused:
            return diagnostics.WARN, refused[0]
        return diagnostics.OK, self._live.state.value


def main() -> int:
    return run(StlMonitorNode, StlMonitorNode.spin)


if __name__ == "__main__":
    sys.exit(main())
