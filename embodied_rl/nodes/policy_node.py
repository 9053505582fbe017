"""Lifecycle node that hosts any policy of the registry, by checkpoint folder or model name.

Streams of the embodiment come in; ``policy/chunk`` (a JointTrajectory over all action dimensions)
and ``policy/heartbeat`` go out to the command gate. What the gate let through comes back on
``command/executed``: the policy is told what it did, not what it asked for. In ``lockstep`` a tick
waits for that of the last chunk, in ``realtime`` nothing does.

Three threads, and none waits for another. The executor's decodes what comes and answers requests;
it puts everything into the inbox of the worker (:mod:`embodied_rl.nodes.policy_worker`), which
alone touches the policy, and whose plans may take seconds. In ``realtime`` a third one sends the
heartbeat twice a period as long as the node is active. A request to begin an episode, to rest or
to go is answered at once and ends the plan under way; ``~/save_memory`` and ``~/load_memory`` are
answered when the plan under way is done, as only then there is a memory to save, and meanwhile the
executor goes on.

A policy with a plan shows it on ``policy/plan`` (YAML). One that can be instructed is given what
comes on ``instruction``; what it refuses is logged, stays in the diagnostics, and changes nothing.

Where somebody announces episodes on ``episode/start``, that one says when a trial begins. Elsewhere
``~/reset_episode`` begins a new trial and ``~/next_episode`` the next episode of the running one,
in which a policy that learns in context keeps its memory.

Heartbeat: stamp = last control tick dealt with, frame_id as :mod:`embodied_rl.core.heartbeat` says,
with the reason to hold while the streams are not sound (docs/timing.md). In ``lockstep`` it is sent
once a tick, and the simulator's progress hangs on it.
"""

from __future__ import annotations

import functools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from rclpy.lifecycle import TransitionCallbackReturn
from std_msgs.msg import Header, String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.heartbeat import Heartbeat, new_session
from embodied_rl.core.policy import ActionChunk, Planning, Policy, check_fits
from embodied_rl.core.schema import plain
from embodied_rl.nodes import diagnostics, messages, qos
from embodied_rl.nodes.causes import Causes
from embodied_rl.nodes.connections import Connections
from embodied_rl.nodes.lifecycle import GuardedLifecycleNode, transition
from embodied_rl.nodes.policy_episodes import Episodes
from embodied_rl.nodes.policy_memory import MemoryServices
from embodied_rl.nodes.policy_worker import PolicyWorker
from embodied_rl.nodes.process import Stop, parameter, run
from embodied_rl.nodes.stream_input import StreamInput
from embodied_rl.policies.method import parse_options
from embodied_rl.policies.registry import load_policy

SWITCH_S = 0.0005  # after which a thread of this process gives way to another
FOREIGN_S = 1.0  # since its last heartbeat another policy is taken for active


class PolicyNode(GuardedLifecycleNode):
    def __init__(self, stop: Stop, load: Callable[..., Policy] = load_policy):
        super().__init__("policy_node")
        self._stop, self._load = stop, load
        self._policy_name = parameter(self, "policy", "", "model name, checkpoint folder or expert")
        self._task = parameter(
            self, "task", "", "task, of a policy that needs one: a name, or the file of a formula"
        )
        self._embodiment_path = parameter(self, "embodiment", "", "embodiment file of the robot")
        mode = parameter(self, "mode", "realtime", "clock mode", ("realtime", "lockstep"))
        self._lockstep = mode == "lockstep"
        options = parameter(self, "policy_options", "", "options of the policy's method, as YAML")
        self._options = parse_options(options, "policy_options")
        self._memory_path = Path(
            parameter(self, "memory_path", "policy_memory.safetensors", "file of ~/save_memory")
        )
        self._active = False
        self._worker: PolicyWorker | None = None
        self._leaving: list[PolicyWorker] = []
        self._sending = threading.Lock()  # of what is published; never held while a policy works
        self._causes = Causes()
        self._foreign_s = -FOREIGN_S
        self._diagnostics = diagnostics.Diagnostics(self, self._status)

    # ---------------------------------------------------------------- lifecycle
    @transition
    def on_configure(self, state) -> None:
        self.embodiment = Embodiment.load(self._embodiment_path)
        # On a real clock late is worse than unverified; in lockstep a run must be repeatable.
        budget_s = None if self._lockstep else self.embodiment.period_ns / 1e9
        policy = self._load(
            self._policy_name,
            self.embodiment,
            self._task or None,
            budget_s=budget_s,
            **self._options,
        )
        check_fits(policy.spec, self.embodiment)
        self._host(policy)

    def _host(self, policy: Policy) -> None:
        """Subscribe to the policy's streams and start the worker."""
        # A plan written in Python gives way to the executor and the heartbeat ten times as often
        # as of itself: each message takes several turns.
        sys.setswitchinterval(SWITCH_S)
        self.session, self._policy = new_session(), policy
        self._chunk_publisher = self.create_publisher(JointTrajectory, "policy/chunk", qos.COMMANDS)
        self._beat_publisher = self.create_publisher(Header, "policy/heartbeat", qos.COMMANDS)
        self._plan_publisher = None
        if isinstance(policy, Planning):
            self._plan_publisher = self.create_publisher(String, "policy/plan", qos.LATCHED)
        self._worker = PolicyWorker(policy, self.embodiment, self._lockstep, self)
        self._input = StreamInput(
            self, self.embodiment, policy.spec.streams, self._worker.put, qos.patient_stream
        )
        self._episodes = Episodes(self, self._task, self._worker.begin)
        self._executed = self.create_subscription(
            JointTrajectory, "command/executed", self._on_executed, qos.COMMANDS
        )
        self._parts = [
            self.create_subscription(String, "episode/start", self._on_episode, qos.LATCHED),
            self.create_subscription(String, "instruction", self._on_instruction, qos.LATCHED),
            self._executed,
        ]
        self._beats = self.create_subscription(
            Header, "policy/heartbeat", self._on_beat, qos.COMMANDS
        )
        self._connections = Connections(self)
        self._service_handles = [
            self.create_service(Trigger, f"~/{name}", getattr(self, f"_on_{name}"))
            for name in ("reset_episode", "next_episode", "episode_report")
        ]
        trace = functools.partial(self.say, level="trace")
        memory = MemoryServices(self, self._worker, self._memory_path, trace)
        self._service_handles += memory.services
        self._silenced = threading.Event()
        if not self._lockstep:
            threading.Thread(
                target=self._beat_steadily, args=(self._silenced,), name="heartbeat", daemon=True
            ).start()
        self._worker.start()
        spec = policy.spec
        self.get_logger().info(
            f"configured {spec.name}: streams {list(spec.streams)}, history {spec.history} x "
            f"{spec.stride}, {spec.execute} of {spec.chunk} targets a chunk at {spec.rate_hz:g} Hz"
        )

    @transition
    def on_activate(self, state) -> None:
        assert self._worker is not None
        if time.monotonic() < self._foreign_s + FOREIGN_S:
            raise UserError(
                "policy/heartbeat: expected no other policy, heard one that is active; a robot "
                "obeys one policy at a time"
            )
        self._input.check_rates()
        self._worker.report.range.require(self._input.newest())
        self._active = True
        self._episodes.activate()
        self.get_logger().info("active")

    @transition
    def on_deactivate(self, state) -> None:
        """Stop looking and acting. The memory can still be saved; activation begins a new one."""
        assert self._worker is not None
        self._active = False
        self._worker.rest()
        self.get_logger().info("inactive; the command gate will hold the robot")

    @transition
    def on_cleanup(self, state) -> None:
        self._release()

    @transition
    def on_shutdown(self, state) -> None:
        self._release()

    def on_error(self, state) -> TransitionCallbackReturn:
        """After a defect in a transition: back to the beginning."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> None:
        self._release()
        for worker in self._leaving:  # a plan under way must not outlive what it computes with
            worker.join(timeout_s=5.0)

    def _release(self) -> None:
        self._active = False
        worker, self._worker = self._worker, None
        if worker is None:
            return
        worker.stop()
        self._leaving = [one for one in [*self._leaving, worker] if one.running]
        self._silenced.set()
        self._input.close()
        self._connections.destroy()
        for part in (*self._parts, self._beats):
            self.destroy_subscription(part)
        for service in self._service_handles:
            self.destroy_service(service)
        with self._sending:
            for publisher in (self._chunk_publisher, self._beat_publisher, self._plan_publisher):
                if publisher is not None:
                    self.destroy_publisher(publisher)

    # ---------------------------------------------------------------- what comes in
    def _on_instruction(self, message: String) -> None:
        with self._refusing():
            self._episodes.instructed(message.data)
            if self._active and self._worker is not None:
                self._worker.instruct(message.data)

    def _on_episode(self, message: String) -> None:
        with self._refusing():
            self._episodes.announced(message.data, self._active)

    def _on_executed(self, message: JointTrajectory) -> None:
        with self._refusing():
            if self._worker is not None:
                chunk = messages.read_chunk(message, self.embodiment, "command/executed")
                self._worker.executed(chunk)

    def _on_beat(self, message: Header) -> None:
        with self._refusing():
            if Heartbeat.parse(message.frame_id).session != self.session:
                self._foreign_s = time.monotonic()
                if self._active:
                    self.say("policy/heartbeat: another policy is active beside this one", "fault")

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """What comes over a topic may be anything; it never ends the node."""
        try:
            yield
        except UserError as error:
            self.say(str(error), "fault")

    # ---------------------------------------------------------------- services
    def _on_reset_episode(self, request, response):
        """Say which episode it is in; where nobody announces episodes, begin one. Not a success as
        long as something that is sent could be missed."""
        if self._active:
            self._episodes.restart()
        episode = self._episodes.current
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
        try:
            if not self._active:
                raise UserError("no episode yet")
            response.message = self._episodes.next(self._policy).to_yaml()
            response.success = True
        except UserError as error:
            response.success, response.message = False, str(error)
        return response

    def _on_episode_report(self, request, response):
        response.success = True
        response.message = yaml.safe_dump(self._figures(), sort_keys=False)
        return response

    # ---------------------------------------------------------------- what goes out (Outlet)
    def now_ns(self) -> int:
        return messages.now_ns(self)

    def take_waiting(self) -> None:
        self._input.take_waiting()

    def why_missing(self, keys: list[str]) -> str:
        return self._input.why_missing(keys)

    def unsound(self) -> str:
        worker = self._worker
        return self._input.unsound(worker.moving_since_ns) if worker is not None else ""

    def send(self, chunk: ActionChunk) -> None:
        names = self.embodiment.action_names
        message = messages.trajectory(chunk, names, slice(0, len(names)))
        message.header.frame_id = self.session
        with self._sending:
            if self._active:
                self._chunk_publisher.publish(message)

    def show_plan(self, policy: Policy) -> None:
        plan = policy.plan() if isinstance(policy, Planning) else None
        if plan is None or self._plan_publisher is None:
            return
        text = yaml.safe_dump(plan, sort_keys=False, default_flow_style=None)
        with self._sending:
            if self._active:
                self._plan_publisher.publish(String(data=text))

    def beat(self) -> None:
        worker = self._worker
        if worker is None:
            return
        reason = "" if self._lockstep else worker.report.missing or self.unsound()
        text = Heartbeat(self.session, worker.last_chunk_ns, reason).text()
        message = Header(frame_id=text, stamp=messages.time_message(worker.last_tick_ns))
        with self._sending:
            if self._active:
                self._beat_publisher.publish(message)

    def _beat_steadily(self, silenced: threading.Event) -> None:
        half_period_s = self.embodiment.period_ns / 2e9
        due_s = time.monotonic() + half_period_s
        while not silenced.wait(max(due_s - time.monotonic(), 0.0)):
            due_s = max(due_s, time.monotonic() - half_period_s) + half_period_s
            worker = self._worker
            if self._active and worker is not None and worker.alive:
                self.beat()

    # ---------------------------------------------------------------- what it says
    def say(self, line: str, level: str = "error") -> None:
        """Log a line once a cause; a ``fault`` also stays in the diagnostics for the episode."""
        worker = self._worker
        if level == "fault" and worker is not None:
            worker.report.error = plain(line)
        fresh = self._causes.note(line)
        if not fresh:
            return
        log = self.get_logger()  # rclpy wants a line of code of its own for each severity
        if level == "info":
            log.info(fresh)
        elif level == "warning":
            log.warning(fresh)
        else:
            log.error(line if level == "trace" else fresh)
        self._diagnostics.publish()

    def broken(self, trace: str) -> None:
        self.get_logger().fatal(trace)
        self._stop.set(1)

    def _figures(self) -> dict[str, object]:
        worker = self._worker
        if worker is None:
            return {}
        late = worker.loop.builder.late
        rates = self._input.figures(late)
        return worker.report.figures(worker.loop, self.embodiment.period_ns / 1e9, rates)

    def _status(self) -> diagnostics.Status:
        figures, worker = self._figures(), self._worker
        if worker is None:
            return diagnostics.OK, "not configured", {}
        if not self._active:
            line = getattr(self, "_last_refusal", None) or "configured, inactive"
            return diagnostics.WARN, line, figures
        refusals = [meter.last_refusal for meter in self._input.meters.values() if meter.refused]
        unsound = [line for line in (self.unsound(), *refusals[:1]) if line]
        return worker.report.status(figures, unsound)


def main() -> int:
    return run(PolicyNode)


if __name__ == "__main__":
    sys.exit(main())
