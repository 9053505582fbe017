"""Lifecycle node that hosts any policy of the registry, by checkpoint folder or model name.

Streams of the embodiment come in; ``policy/chunk`` (a JointTrajectory over all action dimensions)
and ``policy/heartbeat`` go out to the command gate. Callbacks only decode and store; a worker
thread builds the rows, infers and publishes, so that inference never delays a message. What the
gate let through comes back on ``command/executed``: the policy is told what it did, not what it
asked for. In ``lockstep`` a tick waits for that of the last chunk, in ``realtime`` nothing does.

A policy with a plan shows it on ``policy/plan`` (YAML). One that can be instructed is given what
comes on ``instruction``; what it refuses is logged, stays in the diagnostics, and changes nothing.

Where somebody announces episodes on ``episode/start``, that one says when a trial begins. Elsewhere
``~/reset_episode`` begins a new trial and ``~/next_episode`` the next episode of the running one,
in which a policy that learns in context keeps its memory.

Heartbeat: stamp = last control tick dealt with, frame_id = stamp in ns of the last chunk. In
``lockstep`` it is sent once a tick, and the simulator's progress hangs on it; in ``realtime`` a
steady timer sends it twice a period as long as the node is active.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import yaml
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode
from rclpy.parameter import Parameter
from std_msgs.msg import Header, String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from embodied_rl.core.checkpoint import atomic_write
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.loop import ControlLoop
from embodied_rl.core.policy import (
    ActionChunk,
    EpisodeInfo,
    InContext,
    Instructable,
    Planning,
    Policy,
)
from embodied_rl.core.window import Arrival, Sample
from embodied_rl.nodes import diagnostics, messages, qos
from embodied_rl.nodes.connections import Connections
from embodied_rl.nodes.lifecycle import transition
from embodied_rl.nodes.policy_report import PolicyReport
from embodied_rl.nodes.process import Stop, optional_parameter, parameter, run
from embodied_rl.nodes.stream_input import StreamInput
from embodied_rl.policies.registry import load_policy

GRACE_PERIODS = 0.5  # how long a tick waits for a stream that is late
# A sample of a stream and when it came, or a chunk that the gate let through.
Arrived = tuple[str, Sample, float] | ActionChunk


class PolicyNode(LifecycleNode):
    def __init__(self, stop: Stop, load: Callable[..., Policy] = load_policy):
        super().__init__("policy_node")
        self._stop, self._load = stop, load
        self._policy_name = parameter(self, "policy", "", "model name, checkpoint folder or expert")
        self._task = parameter(
            self, "task", "", "task of the scripted expert; of tgpo a stored task or a task file"
        )
        self._embodiment_path = parameter(self, "embodiment", "", "embodiment file of the robot")
        mode = parameter(self, "mode", "realtime", "clock mode", ("realtime", "lockstep"))
        self._lockstep = mode == "lockstep"
        self._samples = optional_parameter(
            self, "samples", Parameter.Type.INTEGER, "candidates a plan is chosen from"
        )
        self._context_steps = optional_parameter(
            self, "context_steps", Parameter.Type.INTEGER, "most steps of a context over episodes"
        )
        self._device = parameter(
            self, "device", "auto", "where to compute: auto, cpu, cuda, or cuda:N"
        )
        self._memory_path = Path(
            parameter(self, "memory_path", "policy_memory.safetensors", "file of ~/save_memory")
        )
        self._instruction = ""
        self._own_trials = 0
        self._active = False
        self._loop: ControlLoop | None = None
        self._inbox: queue.SimpleQueue[Arrived | None] = queue.SimpleQueue()
        self._lock = threading.Lock()  # held while the loop or the policy is touched
        self._announced: EpisodeInfo | None = None
        self._clear_report()
        self._diagnostics = diagnostics.Diagnostics(self, self._status)

    def _clear_report(self) -> None:
        self._report = PolicyReport()
        self._last_arrival_s = 0.0
        self._last_tick_ns = self._last_chunk_ns = 0

    # Lifecycle

    @transition
    def on_configure(self, state) -> None:
        self.embodiment = Embodiment.load(self._embodiment_path)
        # On a real clock late is worse than unverified; in lockstep a run must be repeatable.
        budget_s = None if self._lockstep else self.embodiment.period_ns / 1e9
        policy = self._load(
            self._policy_name,
            self.embodiment,
            self._task or None,
            samples=self._samples,
            budget_s=budget_s,
            context_steps=self._context_steps,
            device=self._device,
        )
        self._host(policy)

    def _host(self, policy: Policy) -> None:
        """Subscribe to the policy's streams and start the worker."""
        self._loop = ControlLoop(policy, self.embodiment)
        self._input = StreamInput(self, self.embodiment, policy.spec.streams, self._on_sample)
        self._chunk_publisher = self.create_publisher(JointTrajectory, "policy/chunk", qos.COMMANDS)
        self._beat_publisher = self.create_publisher(Header, "policy/heartbeat", qos.COMMANDS)
        self._plan_publisher = None
        if isinstance(policy, Planning):
            self._plan_publisher = self.create_publisher(String, "policy/plan", qos.LATCHED)
        self._executed = self.create_subscription(
            JointTrajectory, "command/executed", self._on_executed, qos.COMMANDS
        )
        self._parts = [
            self.create_subscription(String, "episode/start", self._on_episode, qos.LATCHED),
            self.create_subscription(String, "instruction", self._on_instruction, qos.LATCHED),
            self._executed,
        ]
        self._connections = Connections(self)
        self._service_handles = [
            self.create_service(Trigger, f"~/{name}", getattr(self, f"_on_{name}"))
            for name in (
                "reset_episode",
                "next_episode",
                "episode_report",
                "save_memory",
                "load_memory",
            )
        ]
        if not self._lockstep:
            half_period_s = self.embodiment.period_ns / 2e9
            steady = Clock(clock_type=ClockType.STEADY_TIME)
            self._beat_timer = self.create_timer(half_period_s, self._on_beat_timer, clock=steady)
        self._worker = threading.Thread(target=self._work, name="policy", daemon=True)
        self._worker.start()
        spec = policy.spec
        self.get_logger().info(
            f"configured {spec.name}: streams {list(spec.streams)}, history {spec.history} x "
            f"{spec.stride}, {spec.execute} of {spec.chunk} targets a chunk at {spec.rate_hz:g} Hz"
        )

    @transition
    def on_activate(self, state) -> None:
        self._input.check_rates()
        with self._lock:
            self._active = True
            if self._announced is not None:
                # Rows before now were not seen; a history that pretends otherwise would be a lie.
                start_ns = max(self._announced.start_ns, messages.now_ns(self))
                self._begin(replace(self._announced, start_ns=start_ns))
            elif not self._has_conductor():
                self._begin(self._own_episode())
        self.get_logger().info("active")

    @transition
    def on_deactivate(self, state) -> None:
        """Stop looking and acting. The memory can still be saved; activation begins a new one."""
        self._active = False
        self.get_logger().info("inactive; the command gate will hold the robot")

    @transition
    def on_cleanup(self, state) -> None:
        self._release()

    @transition
    def on_shutdown(self, state) -> None:
        self._release()

    def close(self) -> None:
        self._release()

    def _release(self) -> None:
        if self._loop is None:
            return
        self._active = False
        self._inbox.put(None)
        self._worker.join(timeout=5.0)
        self._input.close()
        self._connections.destroy()
        for part in self._parts:
            self.destroy_subscription(part)
        for service in self._service_handles:
            self.destroy_service(service)
        for publisher in (self._chunk_publisher, self._beat_publisher, self._plan_publisher):
            if publisher is not None:
                self.destroy_publisher(publisher)
        if not self._lockstep:
            self.destroy_timer(self._beat_timer)
        self._loop = None

    # Episodes

    def _has_conductor(self) -> bool:
        return self.count_publishers("episode/start") > 0

    def _own_episode(self) -> EpisodeInfo:
        """On a robot nobody announces episodes: the first of a trial begins now, with the latest
        instruction."""
        now_ns, trial = messages.now_ns(self), self._own_trials
        self._own_trials += 1
        return EpisodeInfo(0, now_ns % 2**32, self._task, self._instruction, now_ns, trial)

    def _begin(self, info: EpisodeInfo) -> None:
        assert self._loop is not None
        self._clear_report()
        self._loop.reset(info)
        self._instruct(info.instruction)

    def _on_instruction(self, message: String) -> None:
        self._instruction = message.data
        with self._lock:
            if self._active:
                self._instruct(message.data)

    def _instruct(self, text: str) -> None:
        """Tell a policy that takes instructions; what it refuses changes nothing."""
        if self._loop is None or not text.strip():
            return
        policy = self._loop.policy
        if not isinstance(policy, Instructable):
            return
        try:
            policy.instruct(text)
            self._report.refused_instruction = ""
        except UserError as error:
            self._report.refused_instruction = f"instruction refused: {error}"
            self.get_logger().error(self._report.refused_instruction)
            self._diagnostics.publish()

    def _on_episode(self, message: String) -> None:
        try:
            info = EpisodeInfo.from_yaml(message.data, "episode/start")
        except UserError as error:
            self._fail(str(error))
            return
        with self._lock:
            self._announced = info
            if self._active:
                self._begin(info)

    def _on_reset_episode(self, request, response):
        """Say which episode it is in; where nobody announces episodes, begin one. Not a success as
        long as something that is sent could be missed."""
        with self._lock:
            if not self._has_conductor() and self._active:
                self._begin(self._own_episode())
            episode = self._loop.episode if self._loop else None
        if not self._active or episode is None:
            response.success, response.message = False, "no episode yet"
            return response
        needed = [self._executed] if self._lockstep else []  # a tick waits for it
        missing = self._connections.missing(self._parts, needed)
        response.success = not missing
        response.message = "; ".join(missing) or episode.to_yaml()
        return response

    def _on_next_episode(self, request, response):
        """Begin the next episode of the trial, where nobody announces episodes."""
        with self._lock:
            response.success, response.message = self._next_episode()
        return response

    def _next_episode(self) -> tuple[bool, str]:
        """Whether it has begun, and its EpisodeInfo as YAML, or why not."""
        loop = self._loop
        if not self._active or loop is None or loop.episode is None:
            return False, "no episode yet"
        if not isinstance(loop.policy, InContext):
            return False, (
                f"policy {loop.policy.spec.name} has no trials: nothing that it learns in one "
                "episode is kept for the next; use ~/reset_episode"
            )
        if self._has_conductor():
            publishers = self.get_publishers_info_by_topic("episode/start")
            names = sorted({info.node_name for info in publishers})
            return False, f"{', '.join(names)} announces the episodes on episode/start"
        now_ns, before = messages.now_ns(self), loop.episode
        info = replace(
            before,
            episode=before.episode + 1,
            seed=now_ns % 2**32,
            instruction=self._instruction or before.instruction,
            start_ns=now_ns,
        )
        self._begin(info)
        return True, info.to_yaml()

    # Data path

    def _on_sample(self, key: str, sample: Sample, arrival_s: float) -> None:
        self._inbox.put((key, sample, arrival_s))

    def _on_executed(self, message: JointTrajectory) -> None:
        try:
            self._inbox.put(messages.read_chunk(message, self.embodiment, "command/executed"))
        except UserError as error:
            self._fail(str(error))

    def _work(self) -> None:
        """Worker thread: samples into the loop, then every tick that is due."""
        while True:
            for item in self._arrivals():
                if item is None:
                    return
                self._take(item)
            if self._active and self._inbox.empty():
                try:
                    self._run_ticks()
                except UserError as error:
                    self._fail(str(error))
                except Exception:
                    # A defect in a policy must not leave a silent thread: the gate holds, the
                    # process ends and the bring-up says which node it was.
                    self.get_logger().fatal(traceback.format_exc())
                    self._stop.set(1)
                    return

    def _arrivals(self) -> list[Arrived | None]:
        """The next thing that comes; nothing if a twentieth of a control period passes first."""
        try:
            return [self._inbox.get(timeout=self.embodiment.period_ns / 20e9)]
        except queue.Empty:
            return []

    def _take(self, item: Arrived) -> None:
        with self._lock:
            if not self._active or self._loop is None or self._loop.episode is None:
                return
            if isinstance(item, ActionChunk):
                self._loop.executed(item)
                return
            key, sample, arrival_s = item
            self._last_arrival_s = arrival_s
            if self._loop.add(key, sample) is Arrival.CLOCK_JUMP:
                self._fail(f"stream '{key}': the clock was set back; the memory begins anew")

    def _run_ticks(self) -> None:
        while True:
            with self._lock:
                loop = self._loop
                if loop is None or loop.episode is None or not self._is_due(loop):
                    return
                if not self._lockstep:
                    self._report.skipped += loop.skip_to(self._newest_tick(loop))
                observation, chunk = loop.tick()
                worse = self._report.saw(observation, loop.policy, self.embodiment.period_ns)
                if worse:
                    self.get_logger().error(worse)
                    self._diagnostics.publish()
                self._last_tick_ns = loop.next_tick_ns - self.embodiment.period_ns
                if chunk is not None:
                    self._send(chunk)
                if self._lockstep:
                    self._beat()
                if chunk is not None:
                    self._show_plan(loop.policy)

    def _is_due(self, loop: ControlLoop) -> bool:
        """All that the tick needs has come, or it has waited for the late ones long enough.

        In lockstep that includes what became of the last chunk: the run must not depend on whether
        that message is faster than the next observation.
        """
        awaiting = self._lockstep and loop.awaiting
        if not loop.owing() and not awaiting:
            return True
        grace_ns = int(GRACE_PERIODS * self.embodiment.period_ns)
        if messages.now_ns(self) < loop.next_tick_ns + grace_ns:
            return False
        if awaiting:
            self._report.unconfirmed += 1
            loop.give_up_waiting()
        return True

    def _newest_tick(self, loop: ControlLoop) -> int:
        """The newest tick that can be acted upon; older ones came too late."""
        period_ns = self.embodiment.period_ns
        newest_ns = messages.now_ns(self) // period_ns * period_ns
        while newest_ns > loop.next_tick_ns and loop.builder.owing(newest_ns):
            newest_ns -= period_ns
        return max(newest_ns, loop.next_tick_ns)

    def _send(self, chunk: ActionChunk) -> None:
        stamp_ns = chunk.stamp_ns
        if not self._lockstep:
            now_ns = messages.now_ns(self)
            # Later than one period after its tick, part of the plan was never carried out.
            self._report.misses += int(now_ns > stamp_ns + chunk.period_ns)
            chunk = chunk.after(now_ns)
            if not len(chunk.values):
                self._fail(f"inference took longer than the whole chunk of {stamp_ns} ns")
                return
        names = self.embodiment.action_names
        message = messages.trajectory(chunk, names, slice(0, len(names)))
        self._chunk_publisher.publish(message)
        self._report.chunks += 1
        self._last_chunk_ns = chunk.stamp_ns
        self._report.latency.add((time.perf_counter() - self._last_arrival_s) * 1e3)

    def _show_plan(self, policy: Policy) -> None:
        plan = policy.plan() if isinstance(policy, Planning) else None
        if plan is not None and self._plan_publisher is not None:
            text = yaml.safe_dump(plan, sort_keys=False, default_flow_style=None)
            self._plan_publisher.publish(String(data=text))

    def _beat(self) -> None:
        message = Header(frame_id=str(self._last_chunk_ns))
        message.stamp = messages.time_message(self._last_tick_ns)
        self._beat_publisher.publish(message)

    def _on_beat_timer(self) -> None:
        if self._active and self._worker.is_alive():
            self._beat()

    # Memory and reports

    def _on_episode_report(self, request, response):
        response.success = True
        response.message = yaml.safe_dump(self._figures(), sort_keys=False)
        return response

    def _on_save_memory(self, request, response):
        return self._memory_call(response, self._save_memory)

    def _on_load_memory(self, request, response):
        return self._memory_call(response, self._load_memory)

    def _memory_call(self, response, action):
        try:
            with self._lock:
                response.message = action()
            response.success = True
        except (UserError, OSError) as error:
            response.success, response.message = False, str(error)
        return response

    def _save_memory(self) -> str:
        blob = self._loop.policy.save_memory()
        with atomic_write(self._memory_path) as temporary:
            temporary.write_bytes(blob)
        return f"{len(blob)} bytes in {self._memory_path}"

    def _load_memory(self) -> str:
        blob = self._memory_path.read_bytes()
        self._loop.policy.load_memory(blob)
        return f"{len(blob)} bytes from {self._memory_path}"

    def _fail(self, text: str) -> None:
        if text != self._report.error:
            self.get_logger().error(text)
        self._report.error = text
        self._diagnostics.publish()

    def _figures(self) -> dict[str, object]:
        if self._loop is None:
            return {}
        period_s = self.embodiment.period_ns / 1e9
        return self._report.figures(self._loop, period_s, self._input.figures())

    def _status(self) -> diagnostics.Status:
        figures = self._figures()
        if not figures:
            return diagnostics.OK, "not configured", {}
        if not self._active:
            line = getattr(self, "_last_refusal", None) or "configured, inactive"
            return diagnostics.WARN, line, figures
        slow = [meter.last_refusal for meter in self._input.meters.values() if meter.refused]
        return self._report.status(figures, slow[0] if slow else "")


def main() -> int:
    return run(PolicyNode)


if __name__ == "__main__":
    sys.exit(main())
