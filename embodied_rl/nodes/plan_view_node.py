"""Shows a plan and the drive under it: markers while it runs, one picture an episode.

``policy/plan`` and the robot's position come in, and ``stl_monitor_node/robustness`` where that
node runs; ``stl/markers`` goes out at every step of the plan. A picture is written into ``out``
when ``~/picture`` is called, which the conductor of episodes does at the end of each; where nobody
conducts, when a plan is over, replaced by another one, or when the node ends.

Pictures need matplotlib, which is an extra: without it the node shows markers only, and says so.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections import deque
from pathlib import Path

import numpy as np
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from std_msgs.msg import Float64MultiArray, String
from std_srvs.srv import Trigger
from visualization_msgs.msg import MarkerArray

from embodied_rl.core.embodiment import NANOSECONDS, Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.plan import ExecutedPath, PlanRecord
from embodied_rl.core.policy import EpisodeInfo, Outcome
from embodied_rl.core.window import Sample
from embodied_rl.nodes import diagnostics, messages, qos
from embodied_rl.nodes.markers import plan_markers
from embodied_rl.nodes.process import Stop, parameter, run
from embodied_rl.nodes.stream_input import StreamInput
from embodied_rl.sim.stl_tasks.specification import POSITIONS

RECENT = 2000  # positions kept for a plan that is announced after them
# How long the last positions, and the last words of a monitor, are waited for after an episode.
PATIENCE_S = 2.0
NO_PICTURES = "no pictures: matplotlib is not installed; pip install 'embodied_rl[plot]'"


class PlanViewNode(Node):
    def __init__(self, stop: Stop):
        super().__init__("plan_view_node")
        self._embodiment = Embodiment.load(
            parameter(self, "embodiment", "", "embodiment file of the robot")
        )
        self._out = Path(parameter(self, "out", "runs/latest", "folder of the pictures"))
        keys = [key for key in POSITIONS if key in self._embodiment.streams]
        if not keys:
            raise UserError(
                f"{self._embodiment.origin}: streams: expected one of {list(POSITIONS)} to draw a "
                f"path, saw {sorted(self._embodiment.streams)}"
            )
        self._path = self._embodiment.streams[keys[0]]
        self._drive: ExecutedPath | None = None
        self._drawn = True  # nothing to draw yet
        self._episode: EpisodeInfo | None = None
        self._outcome: Outcome | None = None
        self._over_s = 0.0
        self._pictures = self._steps = 0
        self._error = ""
        self._recent: deque[tuple[int, np.ndarray]] = deque(maxlen=RECENT)
        self._publisher = self.create_publisher(MarkerArray, "stl/markers", qos.LATCHED)
        # Drawing takes a second; what is sent meanwhile waits.
        self._input = StreamInput(
            self, self._embodiment, keys[:1], self._on_position, qos.recording
        )
        for kind, topic, callback in (
            (String, "policy/plan", self._on_plan),
            (String, "episode/start", self._on_episode),
            (String, "episode/outcome", self._on_outcome),
        ):
            self.create_subscription(kind, topic, callback, qos.LATCHED)
        self._robustness = self.create_subscription(
            Float64MultiArray, "stl_monitor_node/robustness", self._on_robustness, qos.reliable(10)
        )
        self.create_service(Trigger, "~/picture", self._on_picture)
        self._able = importlib.util.find_spec("matplotlib") is not None
        if not self._able:
            self.get_logger().warning(NO_PICTURES)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(0.5, self._on_timer, clock=steady)
        self._diagnostics = diagnostics.Diagnostics(self, self._status)

    # ---------------------------------------------------------------- what comes in
    def _on_plan(self, message: String) -> None:
        try:
            plan = PlanRecord.from_yaml(message.data, "policy/plan")
        except UserError as error:
            self._complain(str(error))
            return
        if self._drive is not None and plan.start_ns == self._drive.plan.start_ns:
            self._drive.update(plan)
        else:
            self._draw_unconducted()
            self._drive, self._drawn, self._over_s = ExecutedPath(plan), False, 0.0
            for stamp_ns, position in self._recent:
                self._append(stamp_ns, position)
        self._steps += 1
        stamp = messages.time_message(plan.stamp_ns(plan.step))
        self._publisher.publish(plan_markers(self._drive, self._embodiment.base_frame, stamp))
        if plan.over and not self._over_s:
            self._over_s = time.monotonic()

    def _on_position(self, key: str, sample: Sample, arrival_s: float) -> None:
        """One position a control period is enough for a path."""
        apart_ns = sample.stamp_ns - self._recent[-1][0] if self._recent else 0
        if self._recent and 0 <= apart_ns < self._embodiment.period_ns:
            return
        self._recent.append((sample.stamp_ns, sample.value))
        self._append(sample.stamp_ns, sample.value)

    def _append(self, stamp_ns: int, position: np.ndarray) -> None:
        if self._drive is None or self._drawn or stamp_ns < self._drive.plan.start_ns:
            return
        self._drive.times_s.append((stamp_ns - self._drive.plan.start_ns) / NANOSECONDS)
        self._drive.positions.append(position)

    def _on_robustness(self, message: Float64MultiArray) -> None:
        """The first formula's interval; its anchor tells whether it is about this plan."""
        if self._drive is None or len(message.data) < 3:
            return
        anchor_s, low, high = message.data[:3]
        start_ns = self._drive.plan.start_ns
        if abs(anchor_s - start_ns / NANOSECONDS) < self._drive.plan.dt_s:
            now_s = (messages.now_ns(self) - start_ns) / NANOSECONDS
            self._drive.band.append((now_s, low, high))

    def _on_episode(self, message: String) -> None:
        self._take(message, "episode/start")

    def _on_outcome(self, message: String) -> None:
        self._take(message, "episode/outcome")

    def _take(self, message: String, topic: str) -> None:
        try:
            if topic == "episode/start":
                self._episode = EpisodeInfo.from_yaml(message.data, topic)
                self._outcome = None
            else:
                self._outcome = Outcome.from_yaml(message.data, topic)
                self._over_s = time.monotonic()
        except UserError as error:
            self._complain(str(error))

    # ---------------------------------------------------------------- pictures
    def _on_picture(self, request, response):
        """Draw what there is; the message is the file. Not yet a success while the last words of
        an episode are awaited."""
        if not self._able:
            response.success, response.message = True, NO_PICTURES
            return response
        waiting = self._waiting()
        if waiting:
            response.success, response.message = False, waiting
            return response
        try:
            response.message, response.success = f"picture: {self._draw()}", True
        except (UserError, OSError) as error:
            response.success, response.message = False, str(error)
        return response

    def _waiting(self) -> str:
        if self._drive is None:
            return "policy/plan: no plan yet"
        if self._episode is not None and self._drive.plan.start_ns < self._episode.start_ns:
            return "policy/plan: no plan of this episode yet"
        if not self.count_publishers("episode/start"):
            return ""
        if self._outcome is None:
            return "episode/outcome: none yet"
        return self._last_words()

    def _last_words(self) -> str:
        """What is still awaited after the end of a plan, or nothing."""
        assert self._drive is not None
        if time.monotonic() - self._over_s > PATIENCE_S:
            return ""
        plan, newest_ns = self._drive.plan, self._recent[-1][0] if self._recent else 0
        if newest_ns + self._embodiment.period_ns < plan.stamp_ns(plan.step):
            return f"{self._path.topic}: the last positions have not come yet"
        decided = bool(self._drive.band) and self._drive.band[-1][1] == self._drive.band[-1][2]
        speaking = self.count_publishers(self._robustness.topic_name) > 0
        if speaking and not decided:
            return f"{self._robustness.topic_name}: no last word yet"
        return ""

    def _on_timer(self) -> None:
        if self._drive is not None and self._over_s and not self._last_words():
            self._draw_unconducted()

    def _draw_unconducted(self) -> None:
        """Where nobody asks for pictures, each plan gets one."""
        if self._drawn or not self._able or self.count_publishers("episode/start"):
            return
        try:
            self.get_logger().info(f"picture: {self._draw()}")
        except OSError as error:
            self._complain(f"{self._out}: no picture: {error.strerror}")

    def _draw(self) -> Path:
        from embodied_rl.nodes.plan_picture import draw  # matplotlib takes a second to import

        assert self._drive is not None
        number = self._pictures if self._episode is None else self._episode.episode
        path = self._out / f"episode_{number:06d}.png"
        title = f"{self._drive.plan.task}, episode {number}"
        # The outcome is about the episode's own task, whatever the policy was told meanwhile.
        own = self._episode is not None and self._episode.task == self._drive.plan.task
        if self._outcome is not None and own:
            verdict = "success" if self._outcome.success else "failure"
            title += f": {verdict}, {self._outcome.reason}"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(self._drive, path, title)
        self._pictures += 1
        self._drawn = True
        return path

    # ---------------------------------------------------------------- state
    def close(self) -> None:
        self._draw_unconducted()
        self._input.close()

    def _complain(self, text: str) -> None:
        if text != self._error:
            self.get_logger().error(text)
            self._error = text
            self._diagnostics.publish()

    def _status(self) -> diagnostics.Status:
        figures = {"pictures": self._pictures, "plans_shown": self._steps}
        figures |= self._input.figures()
        if self._error:
            return diagnostics.ERROR, self._error, figures
        if not self._able:
            return diagnostics.WARN, NO_PICTURES, figures
        return diagnostics.OK, "showing" if self._drive else "no plan yet", figures


def main() -> int:
    return run(PlanViewNode)


if __name__ == "__main__":
    sys.exit(main())
