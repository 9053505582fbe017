"""The robot's episodes in the MuJoCo apartment, beside the same ones in its grid twin.

Same homes, same starts, same targets: what is left between the two is what the robot's cameras,
lidar and wheels make of it, and the draw of the actions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import episode_seed
from embodied_rl.policies.relic.episodes import Episodes
from embodied_rl.policies.relic.evaluation import (
    Given,
    Loaded,
    evaluate_given,
    measured,
    summary,
)
from embodied_rl.policies.relic.picture import Course, Floor
from embodied_rl.sim.navigation.egocentric import EgocentricNavigation
from embodied_rl.sim.navigation.grid import GridPose
from embodied_rl.sim.navigation.layout import OBJECT_NAMES
from embodied_rl.sim.registry import make_simulator
from embodied_rl.sim.rollout import EpisodeResult, begin
from embodied_rl.sim.tasks.find_object import NO_ACTION_LEFT, FindObject
from embodied_rl.training.statistics import mean_interval

POSE = ("base_position", "base_yaw")  # streams that say where the robot was
ACTIONS = "actions"  # figure of the policy: how many it took in the episode, the stop included
STOPPED = "stopped"  # figure of the policy: 1 if it chose to stop
EVENTS = (ACTIONS, "blocked", "gave_up")  # figures of the policy, counted from the episode's start
FOUND = "found the object"
AWAY = "stopped away from the object"
MEASURES = ("success", "efficiency")  # the robot is given no reward


def given_episodes(trials: int, seed: int) -> Given:
    """What an evaluation of the robot asks for, in homes, starts and targets of the grid."""
    sim = make_simulator(FindObject.world, FindObject.name)
    task, count = sim.task, sim.episodes_per_trial
    assert isinstance(task, FindObject)
    worlds, starts, wanted = [], [], []
    for episode in range(trials * count):
        begin(sim, episode, episode_seed(seed, episode))
        worlds.append(task.layout.seed)
        starts.append(task.start)
        wanted.append(task.wanted)
    sim.close()
    shape = (trials, count)
    return Given(
        torch.tensor(worlds).view(shape)[:, 0],
        torch.tensor(starts).view(*shape, 3),
        torch.tensor(wanted).view(shape),
    )


@dataclass(frozen=True)
class Beside:
    """The robot's episodes beside the twin's.

    Attributes:
        figures: of :func:`compared`.
        shown: map and courses of the first trial, for the picture.
    """

    figures: dict[str, Any]
    shown: tuple[Floor, list[Course]]


def beside(loaded: Loaded, given: Given, results: Sequence[EpisodeResult], seed: int) -> Beside:
    """Plays the twin's episodes to those that the robot had.

    Args:
        results: of all episodes in their order, with the rows of :data:`POSE`.
        seed: of the twin's actions.

    Raises:
        UserError: see :func:`robot_episodes`.
    """
    world = loaded.world
    assert isinstance(world, EgocentricNavigation)
    robot, known = robot_episodes(world, given, results)
    twin = evaluate_given(loaded.model, world, given, seed)
    home = floor(world, int(given.worlds[0]))
    paths = courses(home, given, robot, known, results)
    figures = compared(robot, twin, results, world.horizon)
    figures["outcomes"] = _outcomes(given, robot, twin, results, world.horizon)
    return Beside(figures, (home, paths))


def robot_episodes(
    world: EgocentricNavigation, given: Given, results: Sequence[EpisodeResult]
) -> tuple[Episodes, Tensor]:
    """What the robot did, counted as the grid does: a success is a stop that was chosen. The task
    judges by motion alone; a robot whose last action was a step into an obstacle stands still too,
    and has not stopped.

    Args:
        results: of all episodes in their order, with the rows of :data:`POSE`.

    Returns:
        the episodes, whose ``returned`` is NaN, and the types of objects that were in view in
        earlier episodes of the trial ``(N, E, types)``.

    Raises:
        UserError: a result without rows, or of a policy that does not tell its actions and stops.
    """
    shape = given.wanted.shape
    world.begin(*given)
    shortest = world.fewest_actions(given.starts, given.wanted)
    steps = torch.tensor([_told(result, ACTIONS) for result in results]).view(shape)
    success = torch.tensor([succeeded(result) for result in results]).view(shape)
    efficiency = success * shortest / torch.maximum(shortest, steps)
    known = _seen_before(world, shape, results)
    return Episodes(
        finished=torch.ones(shape, dtype=torch.bool),
        returned=torch.full(shape, torch.nan),
        steps=steps,
        success=success,
        efficiency=efficiency,
        familiar=known.gather(-1, given.wanted[..., None])[..., 0],
    ), known


def _told(result: EpisodeResult, figure: str) -> int:
    if figure not in result.figures:
        raise UserError(
            f"episode {result.info.episode}: expected the figure '{figure}' of the policy, saw "
            f"{sorted(result.figures)}"
        )
    return int(result.figures[figure])


def succeeded(result: EpisodeResult) -> bool:
    """Whether the policy stopped and the task took that for a success.

    Raises:
        UserError: of a policy that does not tell its stops.
    """
    return bool(_told(result, STOPPED)) and result.outcome.success


def track(result: EpisodeResult) -> np.ndarray:
    """Where the robot was: x, y (m) and yaw (rad) ``(K, 3)`` at every control tick that has them.

    Raises:
        UserError: at none.
    """
    rows = [row.values for row in result.observations if not row.missing]
    if not rows:
        raise UserError(f"episode {result.info.episode}: expected rows with {POSE}, saw none")
    return np.array([[*row["base_position"][:2], row["base_yaw"][0]] for row in rows])


def _seen_before(
    world: EgocentricNavigation, shape: torch.Size, results: Sequence[EpisodeResult]
) -> Tensor:
    """Types of objects in view, by the rule of the grid, at the rounded poses of earlier episodes
    ``(N, E, types)``; the worlds are those of the running trials."""
    trials, episodes = shape
    seen = torch.zeros(trials, episodes + 1, world.layout_settings.types, dtype=torch.bool)
    for number, result in enumerate(results):
        trial, episode = divmod(number, episodes)
        poses = {GridPose.nearest(place, world.layout_settings.cell_m) for place in track(result)}
        x, y, heading = torch.tensor(sorted(poses)).unbind(-1)
        crops = world.crop(torch.full_like(x, trial), x, y, heading)
        found = world.types_in(crops).any(dim=0)
        seen[trial, episode + 1] = seen[trial, episode] | found
    return seen[:, :-1]


def compared(
    robot: Episodes, twin: Episodes, results: Sequence[EpisodeResult], horizon: int
) -> dict[str, Any]:
    """The robot's figures, the ``twin``'s, and the gap between them, as JSON data.

    ``gap`` is robot minus twin of the same episode: one ``[mean, low, high]`` for each measure,
    over trials, of all episodes (``all``) and ``by_episode``. ``pairs`` counts who succeeded in an
    episode, ``reasons`` why the robot's episodes ended (``lost``: those in which the twin alone
    succeeded) and why the twin's did.
    """
    gap = {}
    for key in MEASURES:
        difference = measured(robot, key) - measured(twin, key)
        gap[key] = {
            "all": list(mean_interval(difference.mean(axis=1))),
            "by_episode": [list(mean_interval(column)) for column in difference.T],
        }
    lost = (twin.success & ~robot.success).flatten().tolist()
    reasons = [_reason(result, horizon) for result in results]
    return {
        **summary(robot, MEASURES),
        "twin": summary(twin, MEASURES),
        "gap": gap,
        "pairs": {
            "both": int((robot.success & twin.success).sum()),
            "robot_alone": int((robot.success & ~twin.success).sum()),
            "twin_alone": sum(lost),
            "neither": int((~robot.success & ~twin.success).sum()),
        },
        "reasons": {
            "robot": _counted(reasons),
            "lost": _counted([reason for reason, one in zip(reasons, lost) if one]),
            "twin": _counted(_twin_reasons(twin, horizon)),
        },
        "per_episode": _per_episode(results),
    }


def _reason(result: EpisodeResult, horizon: int) -> str:
    """Of the outcome, the same for all objects; and of a robot that stood still, which the task
    takes for a stop, whether it was one of the policy."""
    words = ["object" if word in OBJECT_NAMES else word for word in result.outcome.reason.split()]
    reason = " ".join(words)
    if reason in (FOUND, AWAY) and not _told(result, STOPPED):
        return NO_ACTION_LEFT if _told(result, ACTIONS) >= horizon else "stood still without a stop"
    return reason


def _outcomes(
    given: Given, robot: Episodes, twin: Episodes, results: Sequence[EpisodeResult], horizon: int
) -> list[dict[str, Any]]:
    """One entry an episode."""
    columns = {
        "wanted": [OBJECT_NAMES[kind] for kind in given.wanted.flatten().tolist()],
        "found_before": robot.familiar.flatten().tolist(),
        "success": robot.success.flatten().tolist(),
        "actions": robot.steps.flatten().tolist(),
        "reason": [_reason(result, horizon) for result in results],
        "twin_success": twin.success.flatten().tolist(),
        "twin_actions": twin.steps.flatten().tolist(),
    }
    infos = [
        {"trial": r.info.trial, "episode": r.info.episode, "seed": r.info.seed} for r in results
    ]
    rows = (dict(zip(columns, row)) for row in zip(*columns.values()))
    return [info | row for info, row in zip(infos, rows)]


def _twin_reasons(twin: Episodes, horizon: int) -> list[str]:
    kinds = zip(twin.success.flatten().tolist(), (twin.steps < horizon).flatten().tolist())
    away = {True: AWAY, False: NO_ACTION_LEFT}
    return [FOUND if success else away[early] for success, early in kinds]


def _per_episode(results: Sequence[EpisodeResult]) -> dict[str, float]:
    """Means of what the policy counts of an episode."""
    return {
        key: float(np.mean([result.figures[key] for result in results]))
        for key in EVENTS
        if all(key in result.figures for result in results)
    }


def _counted(reasons: Sequence[str]) -> dict[str, int]:
    return dict(sorted(Counter(reasons).items()))


def floor(world: EgocentricNavigation, number: int) -> Floor:
    """The home of a picture, in metres."""
    layout = world.layout(number)
    middles = layout.centre_m(layout.object_cells).tolist()
    return Floor(
        layout.walls,
        {int(kind): (x, y) for kind, (x, y) in zip(layout.object_types, middles)},
        OBJECT_NAMES,
        layout.obstacles & ~layout.walls,
        layout.settings.cell_m,
        "m",
    )


def courses(
    home: Floor, given: Given, robot: Episodes, known: Tensor, results: Sequence[EpisodeResult]
) -> list[Course]:
    """The first trial's episodes, as far as the robot is in it."""
    found = []
    for episode, result in enumerate(results[: given.wanted.shape[1]]):
        wanted = int(given.wanted[0, episode])
        found.append(
            Course(
                [home.objects[wanted]],
                [(x, y) for x, y, _ in track(result).tolist()],
                bool(robot.success[0, episode]),
                bool(robot.familiar[0, episode]),
                OBJECT_NAMES[wanted],
                frozenset(known[0, episode].nonzero()[:, 0].tolist()),
            )
        )
    return found
