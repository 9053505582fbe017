"""Names of worlds and tasks, and :func:`make_simulator`, the one way to make a simulator."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.sim.base import choose
from embodied_rl.sim.mujoco_sim import MujocoSimulator
from embodied_rl.sim.tasks.base import Task
from embodied_rl.sim.tasks.count_pushes import CountPushes
from embodied_rl.sim.tasks.pick_place import PickPlace
from embodied_rl.sim.tasks.replace_object import ReplaceObject
from embodied_rl.sim.tasks.return_home import ReturnHome
from embodied_rl.sim.worlds.apartment import APARTMENT
from embodied_rl.sim.worlds.arena import ARENA
from embodied_rl.sim.worlds.base import CameraSource, World, sim_worlds_file
from embodied_rl.sim.worlds.reach import REACH
from embodied_rl.sim.worlds.tabletop import TABLETOP

WORLDS: dict[str, World] = {world.name: world for world in (TABLETOP, ARENA, REACH, APARTMENT)}
# The tasks of `tabletop`; those of `arena` and `reach` are files, `apartment` has find_object.
TASKS: dict[str, Callable[[], Task]] = {
    CountPushes.name: CountPushes,
    PickPlace.name: PickPlace,
    ReplaceObject.name: ReplaceObject,
    ReturnHome.name: ReturnHome,
}

DEFAULT_TASK = ReplaceObject.name
FIND_OBJECT = "find_object"  # the task of `apartment`; its module loads torch, which takes seconds


def make_simulator(
    world: str = "tabletop",
    task: str = DEFAULT_TASK,
    *,
    cameras: Sequence[str] = (),
    visuals: str = "primitives",
    embodiment: Embodiment | None = None,
    noise: float = 1.0,
) -> MujocoSimulator:
    """A simulator of a task.

    Args:
        world: name of a world.
        task: name of a task of that world; of ``arena`` and ``reach`` one of
            ``sim_worlds/stl_tasks``, or the path of such a file.
        cameras: names of cameras (all their streams are rendered) or keys of single camera
            streams; what is not named is not rendered.
        visuals: ``primitives`` (fast) or ``mesh`` (the full meshes); physics is the same.
        embodiment: in place of the world's own embodiment file.
        noise: factor on the sensor noise; 0 for exact readings.

    Raises:
        UserError: an unknown name; lists the valid ones.
    """
    chosen = WORLDS[choose("world", world, WORLDS)]
    made = make_task(world, task)
    choose(f"visuals of world '{world}'", visuals, chosen.visuals)
    embodiment = embodiment or world_embodiment(world)
    keys = _camera_streams(chosen, embodiment, cameras)
    return MujocoSimulator(chosen, made, embodiment, keys, visuals, noise)


def make_task(world: str, task: str) -> Task:
    """A task of a world by name; see :func:`make_simulator`."""
    if world in (ARENA.name, REACH.name):
        # torch, which these tasks are judged with, takes seconds to import
        from embodied_rl.sim.stl_tasks.task import load_task
        from embodied_rl.sim.tasks.drive import DriveTask
        from embodied_rl.sim.tasks.reach import ReachTask

        return {ARENA.name: DriveTask, REACH.name: ReachTask}[world](load_task(task))
    if world == APARTMENT.name:
        from embodied_rl.sim.tasks.find_object import FindObject

        choose(f"task of world '{world}'", task, [FIND_OBJECT])
        return FindObject()
    here = [name for name, make in TASKS.items() if make().world == world]
    return TASKS[choose(f"task of world '{world}'", task, here)]()


def world_of(task: str) -> str:
    """World of a task that has a name.

    Raises:
        UserError: no such task; lists the valid names.
    """
    choose("task", task, [*TASKS, FIND_OBJECT])
    return APARTMENT.name if task == FIND_OBJECT else TASKS[task]().world


def world_embodiment(world: str) -> Embodiment:
    """The embodiment file of a world.

    Raises:
        UserError: unknown world, or its file is not installed.
    """
    chosen = WORLDS[choose("world", world, WORLDS)]
    return Embodiment.load(sim_worlds_file(chosen.embodiment_file))


def _camera_streams(world: World, embodiment: Embodiment, names: Sequence[str]) -> list[str]:
    if isinstance(names, str):
        raise UserError(f"cameras: expected a list of names, saw the text '{names}'")
    streams = {
        key: source.camera
        for key, source in world.sources.items()
        if isinstance(source, CameraSource) and key in embodiment.streams
    }
    for name in names:
        choose("camera", name, [*world.cameras, *streams])
    return [key for key, camera in streams.items() if key in names or camera in names]
