"""A robot in a home of the grid, without physics: it follows velocities and sees by ray casting."""

from __future__ import annotations

import math

import numpy as np
from home_sensors import images_from, scan_from

from embodied_rl.core.commands import ChunkFollower
from embodied_rl.core.loop import ControlLoop
from embodied_rl.core.policy import ActionChunk, EpisodeInfo
from embodied_rl.core.window import Observation, Sample
from embodied_rl.policies.relic.controller import RelicController
from embodied_rl.sim.navigation.grid import GridPose
from embodied_rl.sim.navigation.instructions import instruction_for
from embodied_rl.sim.navigation.layout import Layout
from embodied_rl.sim.navigation.registry import CAMERA_RAD
from embodied_rl.sim.registry import world_embodiment

BODY = world_embodiment("apartment")
PERIOD_NS, MS = BODY.period_ns, 1_000_000
SUBSTEPS, LAG_S, RADIUS_M = 10, 0.06, 0.17


class HomeRobot:
    """The robot with a policy in a control loop; time goes on from episode to episode."""

    def __init__(self, policy: RelicController, layout: Layout):
        self.layout, self.policy = layout, policy
        self.loop = ControlLoop(policy, BODY)
        self.tick_ns, self.number = 10 * PERIOD_NS, -1
        self.silent: set[str] = set()
        self.chunks: list[ActionChunk] = []
        self.stand(GridPose(2, 2, 0))

    def stand(self, at: GridPose) -> None:
        self.pose, self.velocity = at.centre(0.5), np.zeros(2)
        self._seen_from: np.ndarray | None = None
        self.follower = ChunkFollower(BODY, self.tick_ns, np.zeros(2))

    def begin(
        self, at: GridPose, wanted: int, trial: int = 0, seed: int = 0, text: str = ""
    ) -> None:
        self.number += 1
        self.stand(at)
        text = text or instruction_for(wanted)
        self.loop.reset(EpisodeInfo(self.number, seed, "find_object", text, self.tick_ns, trial))

    def tick(self) -> tuple[Observation, ActionChunk | None]:
        """One control period."""
        for key, value in self._sensed().items():
            if key not in self.silent:
                self.loop.add(key, Sample(self.tick_ns, value))
        row, chunk = self.loop.tick()
        if chunk is not None:
            self.follower.follow(chunk)
            self.loop.executed(chunk)
            self.chunks.append(chunk)
        end_ns = self.follower.end_ns
        target = self.follower.target(self.tick_ns + PERIOD_NS)
        self._drive(target if end_ns > self.tick_ns else np.zeros(2))
        self.tick_ns += PERIOD_NS
        return row, chunk

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds * 1e9 / PERIOD_NS)):
            self.tick()

    def until_actions(self, count: int, most_s: float = 60.0) -> None:
        """Until so many actions of the episode have begun, or it has stopped."""
        for _ in range(round(most_s * 1e9 / PERIOD_NS)):
            figures = self.policy.figures()
            if figures["actions"] >= count or figures["stopped"]:
                return
            self.tick()
        raise AssertionError(f"{figures} after {most_s} s")

    def _drive(self, target: np.ndarray) -> None:
        step_s = PERIOD_NS / 1e9 / SUBSTEPS
        for _ in range(SUBSTEPS):
            self.velocity += (target - self.velocity) * (step_s / LAG_S)
            middle = self.pose[2] + self.velocity[1] * step_s / 2
            way = self.velocity[0] * step_s * np.array([math.cos(middle), math.sin(middle)])
            front = self.layout.cell_at(self.pose[:2] + way + np.sign(way) * RADIUS_M)
            if not self.layout.obstacles[front[1], front[0]]:
                self.pose[:2] += way
            self.pose[2] += self.velocity[1] * step_s

    def _sensed(self) -> dict[str, np.ndarray]:
        moved = self._seen_from is None or np.abs(self.pose - self._seen_from).max() > 1e-4
        # nobody looks while it moves fast
        if moved and (self._seen_from is None or np.all(np.abs(self.velocity) < [0.06, 0.15])):
            self._seen_from = self.pose.copy()
            scan = scan_from(self.layout, self.pose, BODY.streams["scan"])
            self._images = scan, *images_from(self.layout, self.pose, (72, 128), CAMERA_RAD)
        scan, depth, ids = self._images
        return {
            "base_position": np.array([*self.pose[:2], 0.0]),
            "base_yaw": np.array([math.atan2(math.sin(self.pose[2]), math.cos(self.pose[2]))]),
            "base_linear_velocity": np.array([self.velocity[0], 0.0, 0.0]),
            "base_angular_velocity": np.array([0.0, 0.0, self.velocity[1]]),
            "scan": scan,
            "camera_front_depth": depth,
            "camera_front_segmentation": ids,
        }
