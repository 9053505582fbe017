"""World ``reach``: the arm of ``tabletop`` with nothing on the table, for tasks about its tool.

Commands come at 20 Hz and there are no cameras; limits are tighter than the robot's own, see
``sim_worlds/tabletop/ur5e_reach.yaml``.
"""

from __future__ import annotations

from typing import cast

import mujoco
import numpy as np

from embodied_rl.core.errors import UserError
from embodied_rl.sim.tasks.base import JointTask
from embodied_rl.sim.worlds.base import SampledStage, Scene
from embodied_rl.sim.worlds.manipulation import ArmWorld
from embodied_rl.sim.worlds.tabletop import TABLETOP


class ReachWorld(ArmWorld):
    """An arm whose tasks are about where its tool is."""

    def stage(self, scene: Scene) -> ReachStage:
        return ReachStage(self, scene)


class ReachStage(SampledStage):
    """The joints at rest where the task says; the task judges by where the tool truly is.

    Raises:
        UserError: the embodiment has no kinematics, which name the joints.
    """

    def __init__(self, world: ReachWorld, scene: Scene):
        super().__init__(scene)
        chain, names = scene.embodiment.chain, scene.embodiment.action_names
        if chain is None:
            raise UserError(
                f"{scene.embodiment.origin}: kinematics: world '{world.name}' needs them"
            )
        self._model, self._data = scene.model, scene.data
        self._arm = np.array([names.index(joint) for joint in chain.joints], dtype=np.int64)
        self._qpos = world.addresses(scene.model, chain.joints, scene.model.jnt_qposadr)
        self._tool = scene.data.site_xpos[scene.model.site(world.tool_site).id]
        self._joints = np.zeros(len(self._arm))
        self._action_dim = len(names)

    def start(self, rng: np.random.Generator, trial: int) -> np.ndarray:
        self._joints = cast(JointTask, self._task).start(rng)
        self._data.qpos[self._qpos] = self._joints
        command = np.zeros(self._action_dim)
        command[self._arm] = self._joints
        return command

    def begin(self) -> None:
        self._data.qpos[self._qpos] = self._joints  # coming to rest has moved them by a hair
        mujoco.mj_kinematics(self._model, self._data)
        super().begin()

    def position(self) -> np.ndarray:
        """As of the beginning of the last physics step, 2 ms ago."""
        return self._tool


STREAMS = ("arm_position", "arm_velocity", "gripper_position", "tool_position")

REACH = ReachWorld(
    **{
        **vars(TABLETOP),
        "name": "reach",
        "embodiment_file": "tabletop/ur5e_reach.yaml",
        "sources": {key: TABLETOP.sources[key] for key in STREAMS},
        "judge_period_ns": 0,  # every step: the samples of a task must be met
    }
)
