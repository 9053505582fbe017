"""A serial arm with joint velocity commands; regions are about its tool centre point."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.kinematics import Chain
from embodied_rl.sim.worlds.base import sim_worlds_file
from embodied_rl.sim.worlds.reach import REACH

ARM = "arm"  # the command group of the embodiment
_DAMPING_M = 0.05  # of the feedback law's least squares
_POSTURE = 0.5  # 1/s, how fast joints that the tool leaves free go back to the middle


class ForwardKinematics:
    """The tool of a :class:`Chain`, batched: what ``Chain`` computes for one arm in numpy.

    A joint's rotation is ``origin (I + sin q K + (1 - cos q) K^2)`` with K the skew matrix of its
    axis, so it is affine in sine and cosine.
    """

    def __init__(self, chain: Chain):
        skew = np.array([np.cross(np.eye(3), axis) for axis in chain.axes])
        square, rotation = skew @ skew, chain.origins[:, :3, :3]
        terms = np.stack([rotation @ (np.eye(3) + square), rotation @ skew, -rotation @ square])
        self._terms = torch.tensor(terms, dtype=torch.float32)  # (3, n, 3, 3): 1, sin, cos
        self._offsets = torch.tensor(chain.origins[:, :3, 3], dtype=torch.float32)  # (n, 3) m
        self._axes = torch.tensor(chain.axes, dtype=torch.float32)
        self._tool = torch.tensor(chain.tool[:3, 3], dtype=torch.float32)

    def position(self, q: Tensor) -> Tensor:
        """Tool ``(..., 3)`` in m of joint angles ``(..., n)``."""
        rotations, offsets = self._rotations(q), self._offsets.to(q.device)
        point = self._tool.to(q.device).expand(*q.shape[:-1], 3)
        for i in reversed(range(q.shape[-1])):
            point = (rotations[..., i, :, :] @ point[..., None])[..., 0] + offsets[i]
        return point

    def jacobian(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """:meth:`position`, and how it moves with each joint ``(N, 3, n)``, of angles ``(N, n)``.

        A column is ``axis x (tool - joint)`` in the base frame.
        """
        rotations = self._rotations(q)
        offsets, joint_axes = self._offsets.to(q.device), self._axes.to(q.device)
        turn = torch.eye(3, device=q.device).expand(len(q), 3, 3)
        place = q.new_zeros(len(q), 3)
        places, axes = [], []
        for i in range(q.shape[-1]):
            place = place + turn @ offsets[i]
            turn = turn @ rotations[:, i]
            places.append(place)
            axes.append(turn @ joint_axes[i])
        tool = place + turn @ self._tool.to(q.device)
        arms = tool[:, None] - torch.stack(places, dim=1)
        return tool, torch.linalg.cross(torch.stack(axes, dim=1), arms).transpose(1, 2)

    def _rotations(self, q: Tensor) -> Tensor:
        """From each joint's frame to its parent's ``(..., n, 3, 3)``."""
        one, sine, cosine = self._terms.to(q.device)
        return one + q.sin()[..., None, None] * sine + q.cos()[..., None, None] * cosine


class Arm:
    """State joint angles, action joint velocities / (1 rad/s): ``q' = clamp(q + u dt)``.

    Joint limits and workspace are those of an embodiment file. As the command gate does (see
    :class:`embodied_rl.core.commands.CommandLimiter`), a step that would take the tool out of the
    workspace, or not back towards it, is not taken at all.
    """

    name = "arm"
    dt_s = 0.05
    steps = 64
    arena_m = 0.5
    top_speed = 0.8  # of the tool, all joints together
    top_rate = 1.0  # rad/s
    position_dim = 3

    def __init__(self, embodiment: Embodiment | None = None):
        """
        Raises:
            UserError: the embodiment has no kinematics, no workspace, or other joints in its
                command group ``arm``.
        """
        embodiment = embodiment or Embodiment.load(sim_worlds_file(REACH.embodiment_file))
        chain, box = embodiment.chain, embodiment.workspace
        part = embodiment.slices().get(ARM, slice(0))
        if chain is None or box is None or embodiment.action_names[part] != chain.joints:
            raise UserError(
                f"{embodiment.origin}: expected kinematics, a workspace and a command group "
                f"'{ARM}' of the joints of the kinematics, as the dynamics '{self.name}' needs"
            )
        self.kinematics = ForwardKinematics(chain)
        self.state_dim = self.action_dim = self.start_dim = len(chain.joints)
        self.feature_dim = self.state_dim + self.position_dim
        lower, upper, _ = embodiment.limits()
        self.joint_limits = torch.tensor(np.array([lower[part], upper[part]]), dtype=torch.float32)
        self.workspace = torch.tensor(np.array([box.lower, box.upper]), dtype=torch.float32)

    def step(self, state: Tensor, action: Tensor) -> Tensor:
        wanted = state + self.dt_s * self.top_rate * action.clamp(-1.0, 1.0)
        wanted = wanted.clamp(*self.joint_limits.to(state.device))
        further = self._outside(wanted)
        held = (further > 0) & (further >= self._outside(state))
        return torch.where(held[..., None], state, wanted)

    def _outside(self, state: Tensor) -> Tensor:
        """How far the tool is outside of the workspace ``(...)``, in m; 0 inside."""
        tool = self.position(state)
        away = tool - tool.clamp(*self.workspace.to(state.device))
        return torch.linalg.vector_norm(away, dim=-1)

    def position(self, state: Tensor) -> Tensor:
        return self.kinematics.position(state)

    def features(self, state: Tensor) -> Tensor:
        limits, centre = self.joint_limits.to(state.device), self.workspace.mean(dim=0)
        joints = (state - limits.mean(dim=0)) / ((limits[1] - limits[0]) / 2)
        tool = (self.position(state) - centre.to(state.device)) / self.arena_m
        return torch.cat([joints, tool], dim=-1)

    def start(self, place: Tensor, generator: torch.Generator) -> Tensor:
        return place.clone()

    def toward(self, state: Tensor, target: Tensor) -> Tensor:
        """Damped least squares; what the tool leaves free goes back to the middle of its range."""
        tool, jacobian = self.kinematics.jacobian(state)
        damping = _DAMPING_M**2 * torch.eye(3, device=state.device)
        square = jacobian @ jacobian.transpose(1, 2) + damping
        inverse = torch.linalg.solve(square, jacobian).transpose(1, 2)  # (N, n, 3)
        rest = _POSTURE * (self.joint_limits.mean(dim=0).to(state.device) - state)[..., None]
        wanted = (target - tool)[..., None] / (3.0 * self.dt_s) - jacobian @ rest
        rate = (rest + inverse @ wanted)[..., 0] / self.top_rate
        # slowed as a whole, so that the tool keeps its direction
        return rate / rate.abs().amax(dim=-1, keepdim=True).clamp(min=1.0)
