"""The MuJoCo backend: physics, streams and commands of one world with one task.

All of ``MjData`` and of OpenGL belongs to the thread that steps and reads; nothing here locks.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import mujoco
import numpy as np

from embodied_rl.core.embodiment import JOINT_TRAJECTORY, NANOSECONDS, Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import Outcome
from embodied_rl.core.window import Sample
from embodied_rl.sim.base import check_command, timing
from embodied_rl.sim.render import CameraModel, SceneRenderer, camera_model
from embodied_rl.sim.tasks.base import RUNNING, ObjectState, Task, upright_quaternion
from embodied_rl.sim.worlds.base import CameraSource, JointSource, PointSource, World

SETTLE_STEPS = 100
JUDGE_PERIOD_NS = 20_000_000  # how often the task looks at its object
NOISE_BLOCK = 64  # samples of sensor noise drawn at a time
OBJECT = "cube"


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
        self._shares = np.arange(1, self._substeps + 1)[:, None] / self._substeps
        self._judge_ns = self._step_ns * max(1, JUDGE_PERIOD_NS // self._step_ns)
        self._noise = noise
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
        self._order = np.argsort(actuators)  # action order -> order of MuJoCo's controls
        self._control = self.data.ctrl
        self._scale = np.array([b.control_per_unit for b in bindings])
        self._command = np.zeros(len(names))
        glides = np.zeros(len(names), dtype=bool)
        for key, part in self.embodiment.slices().items():
            glides[part] = self.embodiment.commands[key].type == JOINT_TRAJECTORY
        self._jumps = np.flatnonzero(~glides)
        arm = self.embodiment.chain.joints if self.embodiment.chain else ()
        self._arm = np.array([names.index(joint) for joint in arm], dtype=np.int64)
        self._arm_qpos = self._addresses(arm, model.jnt_qposadr)

    def _addresses(self, joints: Sequence[str], table: np.ndarray) -> np.ndarray:
        ids = [self.model.joint(self.world.joints[joint].joint).id for joint in joints]
        return table[ids]

    def _bind_streams(self, cameras: Sequence[str]) -> None:
        self._readers = {}
        self._periods: list[tuple[str, int]] = []
        for key, stream in self.embodiment.streams.items():
            source = self.world.sources.get(key)
            if source is None:
                raise UserError(
                    f"{self.embodiment.origin}: streams.{key}: world '{self.world.name}' has no "
                    f"such stream; it has {sorted(self.world.sources)}"
                )
            if isinstance(source, CameraSource):
                if key not in cameras:
                    continue
                self._readers[key] = source
            elif isinstance(source, JointSource):
                self._readers[key] = self._joint_reader(source, stream.joints)
            else:
                self._readers[key] = self._point_reader(source)
            self._periods.append((key, stream.period_ns))
        self.streams = tuple(key for key, _ in self._periods)
        self._noises: dict[str, _Noise] = {}
        # which streams are due at each step of the cycle after which all are due together
        self._due = [
            tuple(key for key, period in self._periods if phase * self._step_ns % period == 0)
            for phase in range(self._reset_ns // self._step_ns)
        ]
        self._sigma = {
            key: self._noise * source.sigma
            for key, source in self.world.sources.items()
            if not isinstance(source, CameraSource)
        }

    def _joint_reader(self, source: JointSource, joints: Sequence[str]):
        model = self.model
        if source.quantity == "position":
            return self.data.qpos, self._addresses(joints, model.jnt_qposadr)
        return self.data.qvel, self._addresses(joints, model.jnt_dofadr)

    def _point_reader(self, source: PointSource):
        if source.element == "site":
            return self.data.site_xpos, self.model.site(source.name).id
        return self.data.xpos, self.model.body(source.name).id

    def _bind_object(self) -> None:
        model, body = self.model, self.model.body(OBJECT)
        joint = int(body.jntadr[0])
        self._object_qpos = int(model.jnt_qposadr[joint])
        dof = int(model.jnt_dofadr[joint])
        self._object_velocity = self.data.qvel[dof : dof + 3]
        self._object_position = self.data.xpos[body.id]
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
        self._noises = {
            key: _Noise([seed, zlib.crc32(key.encode())], self._sigma[key], stream.shape)
            for key, stream in self.embodiment.streams.items()
            if key in self._sigma
        }
        start = self.task.start(np.random.default_rng([seed, zlib.crc32(b"task")]))
        model, data = self.model, self.data
        mujoco.mj_resetData(model, data)
        self._command = np.zeros_like(self._command)
        chain = self.embodiment.chain
        if chain is not None:
            arm = chain.inverse(start.tool_position, self.world.tool_down, self.world.home)
            data.qpos[self._arm_qpos] = arm
            self._command[self._arm] = arm
        place = self._object_qpos
        data.qpos[place : place + 3] = start.object_position
        data.qpos[place + 3 : place + 7] = upright_quaternion(start.object_yaw)
        self._control[:] = self.to_controls(self._command)
        # fingers and contacts come to rest before the episode begins
        mujoco.mj_step(model, data, nstep=SETTLE_STEPS)
        data.qvel[:] = 0.0
        mujoco.mj_forward(model, data)

    def read(self, render: bool = True) -> dict[str, Sample]:
        if self._samples is None:
            samples, images = {}, []
            for key in self._due[self._time_ns % self._reset_ns // self._step_ns]:
                reader = self._readers[key]
                if isinstance(reader, CameraSource):
                    images.append(key)
                else:
                    array, index = reader
                    value = array[index] + self._noises[key].draw()
                    samples[key] = Sample(self._time_ns, value)
            if images:
                samples.update(self._render(images if render else []))
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
        if (target == previous).all():
            mujoco.mj_step(self.model, self.data, nstep=self._substeps)
        else:
            self._glide(previous, target)
            self._command = target.copy()
        self._time_ns += self._step_ns
        self._samples = None
        if self._time_ns % self._judge_ns == 0 and not self._outcome.done:
            self._outcome = self.task.update(self._object_state())

    def to_controls(self, command: np.ndarray) -> np.ndarray:
        """MuJoCo's ``ctrl (nu,)`` for position targets ``(A,)``."""
        return (command * self._scale)[self._order]

    def _glide(self, previous: np.ndarray, target: np.ndarray) -> None:
        """One step in which the arm's target moves on evenly from physics step to physics step."""
        path = previous + (target - previous) * self._shares  # (substeps, A)
        path[:, self._jumps] = target[self._jumps]
        path *= self._scale
        model, data, control = self.model, self.data, self._control
        for row in path[:, self._order]:
            control[:] = row
            mujoco.mj_step(model, data)

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
        for key in sorted(keys, key=lambda key: self._readers[key].camera):
            source = self._readers[key]
            if source.camera != looking_through:
                self._renderer.look(self.data, source.camera)
                looking_through = source.camera
            height, width = self.embodiment.streams[key].shape[:2]
            samples[key] = Sample(self._time_ns, self._image(source.kind, width, height))
        return samples

    def _image(self, kind: str, width: int, height: int) -> np.ndarray:
        draw = {
            "rgb": self._renderer.rgb,
            "depth": self._renderer.depth,
            "segmentation": self._renderer.segmentation,
        }[kind]
        return draw(width, height)

    def render(self, camera: str, width: int, height: int, kind: str = "rgb") -> np.ndarray:
        """A picture of the scene now, for people: any camera of the model, up to 1280x960."""
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
    def _object_state(self) -> ObjectState:
        velocity = self._object_velocity
        return ObjectState(
            time_s=(self._time_ns - self._start_ns) / NANOSECONDS,
            position=self._object_position,
            speed=float(np.sqrt(velocity @ velocity)),
            held=self._held,
        )

    def _held(self) -> bool:
        for one, other in self.data.contact.geom[: self.data.ncon]:
            pair = {int(one), int(other)}
            if pair & self._object_geoms and pair & self._finger_geoms:
                return True
        return False


class _Noise:
    """Seeded Gaussian noise of one stream, drawn in blocks because a draw costs as much as ten."""

    def __init__(self, seed: list[int], sigma: float, shape: tuple[int, ...]):
        self._rng, self._sigma = np.random.default_rng(seed), sigma
        self._shape = (NOISE_BLOCK, *shape)
        self._rows = iter(())

    def draw(self) -> np.ndarray:
        """The next sample's noise, in the stream's shape."""
        for row in self._rows:
            return row
        self._rows = iter(self._sigma * self._rng.standard_normal(self._shape))
        return next(self._rows)


def _instance_ids(names: dict[str, str]) -> dict[str, int]:
    """Instance ids in the order of declaration, from 1; 0 is everything else."""
    return {name: number for number, name in enumerate(names, start=1)}
