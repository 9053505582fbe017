"""A simulator behind the topics of a robot: streams and ``/clock`` out, actuator commands in.

Everything happens on one thread, physics and OpenGL included: between two steps it looks after the
callbacks. Two clocks:

- ``realtime``: paced by the wall clock; late renders are left out and counted.
- ``lockstep``: a control period passes only when every command topic has spoken for its tick. If
  that takes longer than ``command_timeout_s`` and nobody publishes on one of them any more, the
  last target is held for a period and counted: slowness is no fault.

Before the first ``sim/reset`` the world idles in real time in both modes, so that others can find
their streams and measure their rates. An episode ends with ``episode/outcome`` and a pause.
"""

from __future__ import annotations

import enum
import sys
import time

import yaml
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rosgraph_msgs.msg import Clock
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from embodied_rl.core.embodiment import Embodiment, Stream
from embodied_rl.core.policy import episode_seed
from embodied_rl.nodes import diagnostics, messages, qos
from embodied_rl.nodes.actuator_input import ActuatorInput
from embodied_rl.nodes.connections import Connections
from embodied_rl.nodes.process import Stop, parameter, run
from embodied_rl.nodes.space_output import SpaceOutput
from embodied_rl.sim.registry import make_simulator
from embodied_rl.sim.rollout import begin

LAG_S = 0.1  # behind the wall clock by more than this, pacing starts anew


class State(enum.Enum):
    IDLE = "waiting for the first reset"
    RUNNING = "running"
    PAUSED = "paused"
    OVER = "the episode is over"


class SimNode(Node):
    def __init__(self, stop: Stop):
        super().__init__("sim_node")
        world = parameter(self, "world", "tabletop", "world to simulate")
        task = parameter(self, "task", "replace_object", "task in that world, or a task file")
        mode = parameter(self, "mode", "lockstep", "clock mode", ("realtime", "lockstep"))
        self._lockstep = mode == "lockstep"
        self._seed = parameter(self, "seed", 0, "base seed; episode i uses (seed, i)")
        cameras = parameter(self, "cameras", "none", "comma-separated cameras, or none")
        visuals = parameter(self, "visuals", "primitives", "primitives or mesh")
        path = parameter(self, "embodiment", "", "embodiment file in place of the world's own")
        self._timeout_s = parameter(
            self, "command_timeout_s", 10.0, "lockstep: wall time to wait for a tick's commands"
        )
        self.sim = make_simulator(
            world,
            task,
            cameras=[] if cameras == "none" else cameras.split(","),
            visuals=visuals,
            embodiment=Embodiment.load(path) if path else None,
        )
        self.embodiment = self.sim.embodiment
        self._state = State.IDLE
        self._episode = -1
        self._episode_wall_s = self._episode_start_ns = self._published_ns = 0
        self._timeouts = self._dropped_frames = 0
        self._frame_periods_ns = {s.period_ns for s in self._streams() if s.encoding}
        self.sim.reset(episode_seed(self._seed, 0))
        self._create_interfaces()
        self._actuators.reset(self.sim.time_ns, self.sim.command)
        self._wall_s = time.monotonic()
        self.get_logger().info(
            f"{world}/{self.sim.task_name} in {mode}, step {self.sim.step_ns / 1e6:g} ms, "
            f"streams {list(self.sim.streams)}"
        )

    def _streams(self) -> list[Stream]:
        return [self.embodiment.streams[key] for key in self.sim.streams]

    def _create_interfaces(self) -> None:
        self._actuators = ActuatorInput(self, self.embodiment, lambda: self.sim.time_ns)
        self._topics: dict[str, list[Stream]] = {}
        for stream in self._streams():
            self._topics.setdefault(stream.topic, []).append(stream)
        self._stream_publishers = {
            topic: self.create_publisher(
                messages.message_class(group[0].type), topic, qos.simulation(group[0].type)
            )
            for topic, group in self._topics.items()
        }
        self._clock_publisher = self.create_publisher(Clock, "/clock", qos.CLOCK)
        self._start = self.create_publisher(String, "episode/start", qos.LATCHED)
        self._outcome = self.create_publisher(String, "episode/outcome", qos.LATCHED)
        self._instruction = self.create_publisher(String, "instruction", qos.LATCHED)
        self._instruction.publish(String(data=self.sim.instruction))
        self.create_service(Trigger, "sim/reset", self._on_reset)
        self.create_service(Trigger, "sim/step", self._on_step)
        self.create_service(SetBool, "sim/pause", self._on_pause)
        self._space = SpaceOutput(self, self.sim)
        self._connections = Connections(self)
        self._diagnostics = diagnostics.Diagnostics(self, self._status)

    # The loop

    def spin(self, stop: Stop) -> None:
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)
        while not stop:
            if self._state in (State.PAUSED, State.OVER):
                self._executor.spin_once(timeout_sec=0.05)
            elif self._lockstep and self._state is State.RUNNING:
                self._lockstep_tick(stop)
            else:
                self._realtime_step()

    def close(self) -> None:
        self.sim.close()

    def _lockstep_tick(self, stop: Stop) -> None:
        """One control period: show the tick, wait for its commands, advance, look at the task."""
        tick_ns = self.sim.time_ns
        self._actuators.open(tick_ns)
        self._publish_samples()
        self._publish_clock()
        if not self._wait_for_commands(tick_ns, stop):
            return
        if self.sim.outcome().done:
            # The commands of the last tick were awaited too, so nothing is under way any more.
            self._finish()
            return
        while self.sim.time_ns < tick_ns + self.embodiment.period_ns:
            self._publish_samples()
            self._advance()

    def _wait_for_commands(self, tick_ns: int, stop: Stop) -> bool:
        """Whether the tick may pass; not when the node stops, is paused or reset meanwhile.

        A timeout without anybody to wait for is counted, the last target held, and the tick passes.
        """
        deadline_s = time.monotonic() + self._timeout_s
        while self._actuators.waiting():
            if stop or self._state is not State.RUNNING or self.sim.time_ns != tick_ns:
                return False
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                waiting = sorted(self._actuators.waiting())
                topics = [self.embodiment.commands[key].topic for key in waiting]
                if all(self.count_publishers(topic) for topic in topics):
                    deadline_s = time.monotonic() + self._timeout_s
                    self.get_logger().info(f"waiting for a command on {topics}")
                    continue
                self._timeouts += 1
                self.get_logger().error(
                    f"no command for {waiting} within {self._timeout_s:g} s; holding for a tick"
                )
                self._actuators.reset(self.sim.time_ns, self.sim.command)
                self._diagnostics.publish()
                return True
            self._executor.spin_once(timeout_sec=min(left_s, 0.1))
        return True

    def _realtime_step(self) -> None:
        """One step at its wall time; callbacks run while there is time left."""
        late_s = time.monotonic() - self._wall_s
        if late_s > LAG_S:
            self._wall_s = time.monotonic()
        # In lockstep nobody needs the pace, but a policy needs every stream at its rate to start.
        self._publish_samples(render=self._lockstep or late_s < self.sim.step_ns / 1e9)
        self._publish_clock()
        on_tick = self.sim.time_ns % self.embodiment.period_ns == 0
        if self._state is State.RUNNING and on_tick and self.sim.outcome().done:
            self._finish()
            return
        shown_ns = self.sim.time_ns
        self._wall_s += self.sim.step_ns / 1e9
        while (left_s := self._wall_s - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left_s)
        # A reset meanwhile has moved the time on to an instant that nobody has been shown yet.
        if self._state in (State.IDLE, State.RUNNING) and self.sim.time_ns == shown_ns:
            self._advance()

    def _advance(self) -> None:
        self.sim.step(self._actuators.target(self.sim.time_ns + self.sim.step_ns))

    # Publishing

    def _publish_samples(self, render: bool = True) -> None:
        """Publish what is due now, once."""
        now_ns = self.sim.time_ns
        if now_ns == self._published_ns:
            return
        self._published_ns = now_ns
        if not render and any(now_ns % period_ns == 0 for period_ns in self._frame_periods_ns):
            self._dropped_frames += 1
        samples = self.sim.read(render=render)
        for topic, group in self._topics.items():
            due = [stream for stream in group if stream.key in samples]
            if due:
                message = messages.encode_topic(due, samples, self.sim.space.frame(due[0]))
                self._stream_publishers[topic].publish(message)
        self._space.publish(samples)

    def _publish_clock(self) -> None:
        self._clock_publisher.publish(Clock(clock=messages.time_message(self.sim.time_ns)))

    def _finish(self) -> None:
        self._state = State.OVER
        outcome = self.sim.outcome()
        self._outcome.publish(String(data=outcome.to_yaml()))
        self.get_logger().info(
            f"episode {self._episode}: {'success' if outcome.success else 'failure'} "
            f"({outcome.reason}), real-time factor {self._factor():.1f}"
        )

    # Services

    def _on_reset(self, request, response):
        """Begin the next episode; the message is its EpisodeInfo as YAML. Refused as long as a
        command could be missed."""
        missing = self._connections.missing(self._actuators.subscriptions)
        if missing:
            response.success, response.message = False, "; ".join(missing)
            return response
        self._episode += 1
        seed = episode_seed(self._seed, self._episode)
        info = begin(self.sim, self._episode, seed)
        self._space.begin()
        self._actuators.reset(self.sim.time_ns, self.sim.command)
        self._timeouts = self._dropped_frames = 0
        self._episode_start_ns = self.sim.time_ns
        self._episode_wall_s = self._wall_s = time.monotonic()
        if self._state in (State.IDLE, State.OVER):
            self._state = State.PAUSED if self._state is State.OVER else State.RUNNING
        self._start.publish(String(data=info.to_yaml()))
        self._instruction.publish(String(data=info.instruction))
        response.success, response.message = True, info.to_yaml()
        return response

    def _on_pause(self, request, response):
        if not request.data and self._state is State.OVER:
            response.success, response.message = False, "the episode is over; call sim/reset first"
            return response
        if request.data:
            self._state = State.PAUSED if self._state is not State.OVER else State.OVER
        else:
            self._state = State.RUNNING if self._episode >= 0 else State.IDLE
            self._episode_wall_s = self._wall_s = time.monotonic()
        response.success, response.message = True, self._state.value
        return response

    def _on_step(self, request, response):
        """While paused: one control period with the commands that are in force."""
        if self._state is not State.PAUSED:
            response.success = False
            response.message = f"expected a paused simulation, saw: {self._state.value}"
            return response
        end_ns = self.sim.time_ns + self.embodiment.period_ns
        while self.sim.time_ns < end_ns:
            self._advance()
            self._publish_samples()
        self._publish_clock()
        response.success = True
        response.message = yaml.safe_dump({"time_ns": self.sim.time_ns})
        return response

    # Diagnostics

    def _factor(self) -> float:
        """Simulated seconds a wall second since the episode began or went on."""
        wall_s = time.monotonic() - self._episode_wall_s
        return (self.sim.time_ns - self._episode_start_ns) / 1e9 / max(wall_s, 1e-9)

    def _status(self) -> diagnostics.Status:
        figures = {
            "state": self._state.name,
            "episode": self._episode,
            "time_s": self.sim.time_ns / 1e9,
            "command_timeouts": self._timeouts,
            "dropped_frames": self._dropped_frames,
            "refused_commands": sum(self._actuators.refused.values()),
        }
        if self._state is State.RUNNING:
            figures["real_time_factor"] = round(self._factor(), 2)
        if self._timeouts:
            return diagnostics.ERROR, f"{self._timeouts} ticks without a command", figures
        if self._dropped_frames:
            return diagnostics.WARN, f"{self._dropped_frames} late frames left out", figures
        return diagnostics.OK, self._state.value, figures


def main() -> int:
    return run(SimNode, SimNode.spin)


if __name__ == "__main__":
    sys.exit(main())
