"""The MuJoCo backend: physics, streams and commands of one world with one task.

All of ``MjData`` and of OpenGL belongs to the thread that steps and reads; nothing here locks.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from functools import cached_property

import mujoco
import numpy as np

from embodied_rl.core.embodiment import NANOSECONDS, Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import Outcome
from embodied_rl.core.window import Sample
from embodied_rl.sim.base import check_command, choose, timing
from embodied_rl.sim.noise import SensorNoise
from embodied_rl.sim.render import CameraModel, SceneRenderer, camera_model
from embodied_rl.sim.space import Space
from embodied_rl.sim.tasks.base import RUNNING, Task
from embodied_rl.sim.worlds.base import CameraSource, Scene, World

SETTLE_STEPS = 100
UNSTABLE = Outcome(done=True, success=False, reason="unstable", score=0.0)


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
        self.task_name, self.episodes_per_trial = task.name, task.episodes_per_trial
        spec = world.build(visuals)
        task.build(spec)
        self.model = spec.compile()
        self.data = mujoco.MjData(self.model)
        self.physics_step_ns = round(self.model.opt.timestep * NANOSECONDS)
        self._step_ns, self._reset_ns = timing(embodiment, self.physics_step_ns)
        self._substeps = self._step_ns // self.physics_step_ns
        self._judge_ns = self._step_ns * max(1, world.judge_period_ns // self._step_ns)
        self._noise_factor = noise
        scene = Scene(self.model, self.data, embodiment, task, self._step_ns)
        self._actuation = world.actuation(scene)
        self._stage = world.stage(scene)
        self._bind_streams(scene, cameras)
        self._command = np.zeros(embodiment.action_dim)
        kinds = mujoco.mjtWarning
        bad = (kinds.mjWARN_BADQPOS, kinds.mjWARN_BADQVEL, kinds.mjWARN_BADQACC)
        self._warnings = [self.data.warning[kind] for kind in bad]
        self.instances = _instance_ids({**world.instances, **task.instances})
        self._renderer = SceneRenderer(self.model, self._instance_of_geom())
        self._time_ns = self._start_ns = 0
        self._outcome = RUNNING
        self._samples: dict[str, Sample] | None = None

    # ------------------------------------------------------------------ binding names to numbers
    def _bind_streams(self, scene: Scene, cameras: Sequence[str]) -> None:
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
                noise = SensorNoise(key, self._noise_factor * source.sigma, stream.shape)
                self._noises.append(noise)
                states[key] = (key, self.world.reader(scene, stream, source, noise))
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
    def instruction(self) -> str:
        return self.task.instruction

    @property
    def time_ns(self) -> int:
        return self._time_ns

    @property
    def step_ns(self) -> int:
        return self._step_ns

    @property
    def command(self) -> np.ndarray:
        return self._command.copy()

    def reset(self, seed: int, trial: int = 0) -> None:
        """Begin the episode of ``seed``; time runs on to the next instant all streams share."""
        self._time_ns = (self._time_ns // self._reset_ns + 1) * self._reset_ns
        self._start_ns = self._time_ns
        self._samples, self._outcome = None, RUNNING
        for noise in self._noises:
            noise.reset(seed)
        mujoco.mj_resetData(self.model, self.data)
        rng = np.random.default_rng([seed, zlib.crc32(b"task")])
        self._command = self._stage.start(rng, trial)
        self._actuation.reset(self._command)
        # fingers, wheels and contacts come to rest before the episode begins
        mujoco.mj_step(self.model, self.data, nstep=SETTLE_STEPS)
        self.data.qvel[:] = 0.0
        self._stage.begin()
        mujoco.mj_forward(self.model, self.data)

    def read(self, render: bool = True) -> dict[str, Sample]:
        if self._samples is None:
            now = self._time_ns
            states, images = self._due[now % self._reset_ns // self._step_ns]
            samples = {key: Sample(now, measure()) for key, measure in states}
            if images and render:
                samples.update(self._render(images))
            self._samples = samples
        return dict(self._samples)

    def step(self, command: np.ndarray) -> None:
        """Advance one step.

        Raises:
            UserError: another shape, or a target that is not finite; nothing has moved then.
        """
        previous = self._command
        target = np.asarray(command, dtype=np.float64)
        # the squared length is finite if all values are, and cheap; look closer only if not
        if target.shape != previous.shape or not math.isfinite(target.dot(target)):
            target = check_command(self.embodiment, command)
        self._actuation.begin(target)
        mujoco.mj_step(self.model, self.data, nstep=self._substeps)
        self._actuation.end()
        self._command = target.copy()
        self._time_ns += self._step_ns
        self._samples = None
        if self._time_ns % self._judge_ns == 0 and not self._outcome.done:
            elapsed_ns = self._time_ns - self._start_ns
            self._outcome = UNSTABLE if self._diverged() else self._stage.judge(elapsed_ns)

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

    @cached_property
    def space(self) -> Space:
        """Frames of the robot, its sensors and its cameras."""
        return Space(self.model, self.world, self.embodiment)

    def _diverged(self) -> bool:
        """Whether MuJoCo met a state that is not finite; it then starts over without asking."""
        position, velocity, acceleration = self._warnings
        return bool(position.number or velocity.number or acceleration.number)


def _instance_ids(names: dict[str, str]) -> dict[str, int]:
    """Instance ids in the order of declaration, from 1; 0 is everything else."""
    return {name: number for number, name in enumerate(names, start=1)}
