"""A scripted teleoperator: leads the small arm through one demonstration, then ends.

    python examples/your_robot/demonstrate.py --seed 1

It commands as a leader arm or a game pad does: thirty times a second a trajectory of one point, a
little ahead of now, and the position of the gripper. The arm leans forward, closes the gripper,
returns and opens it. Put your own teleoperation in its place; what matters is that it speaks on
the command topics of the embodiment file.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import rclpy
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

JOINTS, FINGER = ["shoulder", "elbow", "wrist"], "finger"
HOME, REACH = np.zeros(3), np.array([0.7, -0.5, 0.3])  # rad
OPEN, CLOSED = 0.03, 0.01  # m
RATE_HZ = 30
PHASES_S = (0.6, 1.4, 0.6, 1.4, 0.6)  # wait, lean forward, close, return, open


class Demonstrator(Node):
    def __init__(self, seed: int):
        super().__init__("demonstrator")
        self._goal = REACH + np.random.default_rng(seed).uniform(-0.1, 0.1, 3)
        self._arm = self.create_publisher(
            JointTrajectory, "joint_trajectory_controller/joint_trajectory", 10
        )
        self._gripper = self.create_publisher(Float64MultiArray, "gripper_controller/commands", 10)
        self.create_subscription(JointState, "joint_states", self._on_state, 10)
        self.joints: np.ndarray | None = None  # (3,) rad, as measured

    def _on_state(self, message: JointState) -> None:
        named = dict(zip(message.name, message.position))
        if set(JOINTS) <= set(named):
            self.joints = np.array([named[joint] for joint in JOINTS])

    def ready(self) -> bool:
        """Whether the robot is seen and hears both commands."""
        topics = (self._arm, self._gripper)
        return self.joints is not None and all(p.get_subscription_count() for p in topics)

    def targets(self, time_s: float, start: np.ndarray) -> tuple[np.ndarray, float]:
        """Arm (3,) rad and gripper m at a time of the demonstration."""
        ends = np.cumsum(PHASES_S)
        out = np.clip((time_s - ends[0]) / PHASES_S[1], 0, 1)
        back = np.clip((time_s - ends[2]) / PHASES_S[3], 0, 1)
        smooth = [(1 - np.cos(np.pi * share)) / 2 for share in (out, back)]
        arm = start + (self._goal - start) * smooth[0] + (HOME - self._goal) * smooth[1]
        return arm, CLOSED if ends[1] <= time_s < ends[3] else OPEN

    def command(self, arm: np.ndarray, finger: float) -> None:
        point = JointTrajectoryPoint(positions=arm.tolist())
        point.time_from_start.nanosec = 10**9 // RATE_HZ
        message = JointTrajectory(joint_names=JOINTS, points=[point])  # stamp 0: from now on
        self._arm.publish(message)
        self._gripper.publish(Float64MultiArray(data=[finger]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="where it reaches to")
    seed = parser.parse_args().seed
    rclpy.init()
    node = Demonstrator(seed)
    limit_s = time.monotonic() + 10
    while not node.ready():
        if time.monotonic() > limit_s:
            raise SystemExit("error: within 10 s: no joint_states, or nobody hears the commands")
        rclpy.spin_once(node, timeout_sec=0.1)
    assert node.joints is not None
    start, begun_s = node.joints, time.monotonic()
    while (now_s := time.monotonic() - begun_s) < sum(PHASES_S):
        node.command(*node.targets(now_s, start))
        rclpy.spin_once(node, timeout_sec=0.0)
        time.sleep(1 / RATE_HZ)
    print(f"demonstrated: {sum(PHASES_S):.1f} s", flush=True)
    node.destroy_node()
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
