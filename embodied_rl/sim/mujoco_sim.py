"""The MuJoCo backend: physics, streams and commands of one world with one task.

All of ``MjData`` and of OpenGL belongs to the thread that steps and reads; nothing here locks.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import mujoco
import numpy as np

from embodied_rl.core.embodiment import JOINT_TRAJECTORY, NANOSECONDS, Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import Outcome
from embodied_rl.core.window import Sample
from embodied_rl.sim.base import check_command, choose, timing
from embodied_rl.sim.render import CameraModel, SceneRenderer, camera_model
from embodied_rl.sim.tasks.base import RUNNING, ObjectState, Start, Task, upright_quaternion
from embodied_rl.sim.worlds.base import CameraSource, JointSource, PointSource, World

SETTLE_STEPS = 100
JUDGE_PERIOD_NS = 50_000_000  # how often the task looks at its object
UNSTABLE = Outcome(done=True, success=False, reason="unstable", score=0.0)
NOISE_BLOCK = 64  # samples of sensor noise drawn at a time


class MujocoSimulator:
    """One robot, one task. See :class:`embodied_rl.sim.base.Simulator` for the contract."""

    def __init__(
        self,
        world: World,
        task: Task,
        embodiment: Embodiment,
        cameras: Sequence[str],
        visuals: str,
        noise: float = 1.0,
    ):
        """Build and compile the scene.

        Args:
            world: the world.
            task: the task, which adds its objects to the world.
            embodiment: which streams and commands there are.
            cameras: keys of the camera streams to render.
            visuals: one of ``world.visuals``.
            noise: factor on the sensor noise that the world states; 0 for exact readings.

        Raises:
            UserError: the embodiment asks for what the world has not, or for impossible rates.
        """
        self.world, self.task, self.embodiment = world, task, embodiment
        self.task_name, self.instruction = task.name, task.instruction
        spec = world.build(visuals)
        task.build(spec)
        self.model = spec.compile()
        self.data = mujoco.MjData(self.model)
        self.physics_step_ns = round(self.model.opt.timestep * NANOSECONDS)
        self._step_ns, self._reset_ns = timing(embodiment, self.physics_step_ns)
        self._substeps = self._step_ns // self.physics_step_ns
        self._judge_ns = self._step_ns * max(1, JUDGE_PERIOD_NS // self._step_ns)
        self._noise_factor = noise
        self._bind_commands()
        self._bind_streams(cameras)
        self._bind_object()
        self.instances = _instance_ids({**world.instances, **task.instances})
        self._renderer = SceneRenderer(self.model, self._instance_of_geom())
        self._time_ns = self._start_ns = 0
        self._outcome = RUNNING
        self._samples: dict[str, Sample] | None = None

    # ------------------------------------------------------------------ binding names to numbers
    def _bind_commands(self) -> None:
        names = self.embodiment.action_names
        unknown = [name for name in names if name not in self.world.joints]
        if unknown:
            raise UserError(
                f"{self.embodiment.origin}: commands: world '{self.world.name}' has no joints "
                f"{unknown}; it has {sorted(self.world.joints)}"
            )
        bindings = [self.world.joints[name] for name in names]
        model = self.model
        actuators = [model.actuator(b.actuator).id for b in bindings]
        if sorted(actuators) != list(range(model.nu)):
            raise UserError(
                f"{self.embodiment.origin}: commands: world '{self.world.name}' has "
                f"{model.nu} actuators, the commands move {len(set(actuators))} of them"
            )
        # a servo whose set point is an activation glides; its control is the set point's velocity
        integrates = model.actuator_dyntype == mujoco.mjtDyn.mjDYN_INTEGRATOR
        self._set_points = self.data.act
        # action order -> order of MuJoCo's controls; a slice where nothing is to be reordered
        order = np.argsort(actuators)
        self._order = _as_slice(order)
        self._control = self.data.ctrl
        self._reached = self._control.copy()  # controls of the last command
        self._scale = np.array([b.control_per_unit for b in bindings])
        self._command = np.zeros(len(names))
        for key, part in self.embodiment.slices().items():
            wanted = self.embodiment.commands[key].type == JOINT_TRAJECTORY
            for index, name in zip(range(part.start, part.stop), names[part]):
                if wanted != integrates[actuators[index]]:
                    kind = "glides" if integrates[actuators[index]] else "jumps"
                    raise UserError(
                        f"{self.embodiment.origin}: commands.{key}.type: joint {name} of world "
                        f"'{self.world.name}' {kind} to its target, another type fits it"
                    )
        self._glides = _as_slice(np.flatnonzero(integrates))
        self._jumps = np.where(integrates, 0.0, 1.0)
        self._glide_rate = np.where(integrates, NANOSECONDS / self._step_ns, 0.0)  # 1/s
        arm = self.embodiment.chain.joints if self.embodiment.chain else ()
        self._arm = np.array([names.index(joint) for joint in arm], dtype=np.int64)
        self._arm_qpos = self._addresses(arm, model.jnt_qposadr)

    def _addresses(self, joints: Sequence[str], table: np.ndarray) -> np.ndarray:
        ids = [self.model.joint(self.world.joints[joint].joint).id for joint in joints]
        return table[ids]

    def _bind_streams(self, cameras: Sequence[str]) -> None:
        """For each step of the cycle after which all streams are due together: what is due."""
        states, self._images, periods = {}, {}, {}
        self._noises = []
        for key, stream in self.embodiment.streams.items():
            source = self.world.sources.get(key)
            if source is None:
                raise UserError(
                    f"{self.embodiment.origin}: streams.{key}: world '{self.world.name}' has no "
                    f"such stream; it has {sorted(self.world.sources)}"
                )
            if not isinstance(source, CameraSource):
                noise = _Noise(key, self._noise_factor * source.sigma, stream.shape)
                self._noises.append(noise)
                states[key] = (key, *self._reader(source, stream.joints), noise)
            elif key in cameras:
                self._images[key] = source
            else:
                continue
            periods[key] = stream.period_ns
        self.streams = tuple(periods)
        self._due = []
        for now in range(0, self._reset_ns, self._step_ns):
            due = [key for key, period in periods.items() if now % period == 0]
            self._due.append(
                (
                    [states[key] for key in due if key in states],
                    [key for key in due if key in self._images],
                )
            )

    def _reader(
        self, source: JointSource | PointSource, joints: Sequence[str]
    ) -> tuple[np.ndarray, Any]:
        """An array of ``MjData`` and the index that gives the stream's value."""
        if isinstance(source, PointSource):
            if source.element == "site":
                return self.data.site_xpos, self.model.site(source.name).id
            name = self.task.object_body if source.element == "object" else source.name
            return self.data.xpos, self.model.body(name).id
        if source.quantity == "position":
            return self.data.qpos, _as_slice(self._addresses(joints, self.model.jnt_qposadr))
        return self.data.qvel, _as_slice(self._addresses(joints, self.model.jnt_dofadr))

    def _bind_object(self) -> None:
        kinds = mujoco.mjtWarning
        bad = (kinds.mjWARN_BADQPOS, kinds.mjWARN_BADQVEL, kinds.mjWARN_BADQACC)
        self._warnings = [self.data.warning[kind] for kind in bad]
        model, body = self.model, self.model.body(self.task.object_body)
        first, joints = int(body.jntadr[0]), int(body.jntnum[0])
        free = joints > 0 and model.jnt_type[first] == mujoco.mjtJoint.mjJNT_FREE
        self._object_qpos = int(model.jnt_qposadr[first]) if free else None
        self._object_root = int(model.body_rootid[body.id])
        dof = int(body.dofadr[0])  # a free body's first three are its velocity
        self._object_velocity = self.data.qvel[dof : dof + min(int(body.dofnum[0]), 3)]
        self._object_position = self.data.xpos[body.id]
        self._tool_position = self.data.site_xpos[model.site(self.world.tool_site).id]
        fingers = {model.geom(name).id for name in self.world.finger_geoms}
        self._object_geoms = set(range(body.geomadr[0], body.geomadr[0] + body.geomnum[0]))
        self._finger_geoms = fingers

    def _instance_of_geom(self) -> np.ndarray:
        """``(ngeom,)``: the instance of the nearest body up the tree that is one."""
        roots = {**self.world.instances, **self.task.instances}
        of_body = {self.model.body(body).id: self.instances[name] for name, body in roots.items()}
        found = np.zeros(self.model.ngeom, dtype=np.uint16)
        for geom in range(self.model.ngeom):
            body = int(self.model.geom_bodyid[geom])
            while body and body not in of_body:
                body = int(self.model.body_parentid[body])
            found[geom] = of_body.get(body, 0)
        return found

    # ------------------------------------------------------------------------- the interface
    @property
    def time_ns(self) -> int:
        return self._time_ns

    @property
    def step_ns(self) -> int:
        return self._step_ns

    @property
    def command(self) -> np.ndarray:
        return self._command.copy()

    def reset(self, seed: int) -> None:
        """Begin the episode of ``seed``; time runs on to the next instant all streams share."""
        self._time_ns = (self._time_ns // self._reset_ns + 1) * self._reset_ns
        self._start_ns = self._time_ns
        self._samples, self._outcome = None, RUNNING
        for noise in self._noises:
            noise.reset(seed)
        start = self.task.start(np.random.default_rng([seed, zlib.crc32(b"task")]))
        model, data = self.model, self.data
        mujoco.mj_resetData(model, data)
        self._command = np.zeros_like(self._command)
        chain = self.embodiment.chain
        if chain is not None:
            arm = chain.inverse(start.tool_position, self.world.tool_down, self.world.home)
            data.qpos[self._arm_qpos] = arm
            self._command[self._arm] = arm
        self._place_object(start)
        self._reached = (self._command * self._scale)[self._order]
        self._control[:] = self._reached * self._jumps
        self._set_points[:] = self._reached[self._glides]
        # fingers and contacts come to rest before the episode begins
        mujoco.mj_step(model, data, nstep=SETTLE_STEPS)
        data.qvel[:] = 0.0
        mujoco.mj_forward(model, data)

    def _place_object(self, start: Start) -> None:
        place, turn = self._object_qpos, upright_quaternion(start.object_yaw)
        if place is not None:
            self.data.qpos[place : place + 3] = start.object_position
            self.data.qpos[place + 3 : place + 7] = turn
        else:  # stands on the table, with whatever it is mounted on
            self.model.body_pos[self._object_root, :2] = start.object_position[:2]
            self.model.body_quat[self._object_root] = turn

    def read(self, render: bool = True) -> dict[str, Sample]:
        if self._samples is None:
            now = self._time_ns
            states, images = self._due[now % self._reset_ns // self._step_ns]
            # sites and bodies are where the last physics step began: 2 ms behind the joints, as the
            # poses that a real driver computes from its joints are
            samples = {
                key: Sample(now, array[index] + next(noise.rows))
                for key, array, index, noise in states
            }
            if images and render:
                samples.update(self._render(images))
            self._samples = samples
        return dict(self._samples)

    def step(self, command: np.ndarray) -> None:
        """Advance one step: joints with a trajectory glide to the target, the others jump to it.

        Raises:
            UserError: another shape, or a target that is not finite; nothing has moved then.
        """
        previous = self._command
        target = np.asarray(command, dtype=np.float64)
        # the squared length is finite if all values are, and cheap; look closer only if not
        if target.shape != previous.shape or not math.isfinite(target.dot(target)):
            target = check_command(self.embodiment, command)
        reached = (target * self._scale)[self._order]
        control = np.subtract(reached, self._reached, out=self._control)
        control *= self._glide_rate
        control += reached * self._jumps
        mujoco.mj_step(self.model, self.data, nstep=self._substeps)
        self._set_points[:] = reached[self._glides]  # without the rounding of the integration
        self._command, self._reached = target.copy(), reached
        self._time_ns += self._step_ns
        self._samples = None
        if self._time_ns % self._judge_ns == 0 and not self._outcome.done:
            self._outcome = UNSTABLE if self._diverged() else self.task.update(self._object_state())

    def outcome(self) -> Outcome:
        return self._outcome

    def close(self) -> None:
        """Free the OpenGL context, if there is one."""
        self._renderer.close()

    # ------------------------------------------------------------------------------- sensors
    def _render(self, keys: Sequence[str]) -> dict[str, Sample]:
        """Images of the camera streams, with one look through each camera."""
        samples: dict[str, Sample] = {}
        looking_through = ""
        for key in sorted(keys, key=lambda key: self._images[key].camera):
            source = self._images[key]
            if source.camera != looking_through:
                self._renderer.look(self.data, source.camera)
                looking_through = source.camera
            height, width = self.embodiment.streams[key].shape[:2]
            samples[key] = Sample(self._time_ns, self._image(source.kind, width, height))
        return samples

    def _image(self, kind: str, width: int, height: int) -> np.ndarray:
        draw = {
            "rgb": self._renderer.rgb,
            "picture": self._renderer.picture,
            "depth": self._renderer.depth,
            "segmentation": self._renderer.segmentation,
        }
        return draw[choose("kind of image", kind, draw)](width, height)

    def render(self, camera: str, width: int, height: int, kind: str = "rgb") -> np.ndarray:
        """An image of the scene now from any camera of the model, ``hero`` included.

        ``kind`` is rgb, depth or segmentation, as in the streams, or ``picture``: colour with
        shadows and smooth edges, for people, at most 1280x960.

        Raises:
            UserError: no such camera (lists the valid ones) or kind, or too large.
        """
        choose("camera", camera, [self.model.camera(i).name for i in range(self.model.ncam)])
        self._renderer.look(self.data, camera)
        return self._image(kind, width, height)

    def intrinsics(self, stream: str) -> CameraModel:
        """The camera behind a camera stream, for ``camera_info``."""
        source = self.world.sources[stream]
        if not isinstance(source, CameraSource):
            raise UserError(f"stream '{stream}' is not a camera's")
        height, width = self.embodiment.streams[stream].shape[:2]
        return camera_model(self.model, source.camera, width, height)

    # --------------------------------------------------------------------------------- task
    def _diverged(self) -> bool:
        """Whether MuJoCo met a state that is not finite; it then starts over without asking."""
        position, velocity, acceleration = self._warnings
        return bool(position.number or velocity.number or acceleration.number)

    def _object_state(self) -> ObjectState:
        return ObjectState(
            time_s=(self._time_ns - self._start_ns) / NANOSECONDS,
            position=self._object_position.tolist(),
            speed=math.hypot(*self._object_velocity.tolist()),
            held=self._held,
            tool=self._tool_position.tolist(),
        )

    def _held(self) -> bool:
        for one, other in self.data.contact.geom[: self.data.ncon]:
            pair = {int(one), int(other)}
            if pair & self._object_geoms and pair & self._finger_geoms:
                return True
        return False


def _as_slice(indices: np.ndarray) -> slice | np.ndarray:
    """The same selection as a slice if the indices count up by one: numpy is faster with it."""
    first = int(indices[0])
    if np.array_equal(indices, np.arange(first, first + len(indices))):
        return slice(first, first + len(indices))
    return indices


class _Noise:
    """Seeded Gaussian noise of one stream, drawn in blocks because a draw costs as much as ten."""

    def __init__(self, key: str, sigma: float, shape: tuple[int, ...]):
        self._stream_number, self._sigma = zlib.crc32(key.encode()), sigma
        self._shape = (NOISE_BLOCK, *shape)
        self.reset(0)

    def reset(self, seed: int) -> None:
        self._rng = np.random.default_rng([seed, self._stream_number])
        self.rows = self._draw()  # one row a sample, in the stream's shape

    def _draw(self) -> Iterator[np.ndarray]:
        while True:
            yield from self._sigma * self._rng.standard_normal(self._shape)


def _instance_ids(names: dict[str, str]) -> dict[str, int]:
    """Instance ids in the order of declaration, from 1; 0 is everything else."""
    return {name: number for number, name in enumerate(names, start=1)}
