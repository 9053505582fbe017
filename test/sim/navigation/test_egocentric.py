"""The egocentric task against one robot in plain Python, and its scripted searcher."""

from __future__ import annotations

import math

import grid_twin as twin
import pytest
import torch

from embodied_rl.sim.navigation import grid
from embodied_rl.sim.navigation.base import HELD_OUT
from embodied_rl.sim.navigation.egocentric import STOP, EgocentricNavigation
from embodied_rl.sim.navigation.registry import make_trial_world
from embodied_rl.sim.navigation.scripted import MapSearcher

COUNT, STEPS = 12, 100
WORLDS = ("egocentric", "egocentric_relative", "apartment")


def maps(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    world = EgocentricNavigation()
    chosen = world.worlds(HELD_OUT)[:count].tolist()
    return (torch.stack([get(w) for w in chosen]) for get in (world.walls, world.objects))


def test_sight_equals_the_twin_on_random_clutter() -> None:
    """Not only in tidy homes: a third of the cells are walls here."""
    generator = torch.Generator().manual_seed(1)
    walls = torch.rand(3, 11, 11, generator=generator) < 0.3
    walls[:, [0, -1], :] = walls[:, :, [0, -1]] = True
    sight = grid.Sight(grid.crop_offsets(6, 3))
    row, x, y, heading = grid.all_poses(*walls.shape)
    inside = ~walls[row, y, x]
    poses = [part[inside] for part in (row, x, y, heading)]
    seen = sight.look(walls, *poses)
    for *pose, found in zip(*(part.tolist() for part in poses), seen.tolist()):
        plain = walls[pose[0]].tolist()
        expected = [twin.sees(plain, tuple(pose[1:]), *cell) for cell in sight.offsets.tolist()]
        assert found == expected, pose
    assert 0.1 < seen.float().mean() < 0.9


def test_distances_equal_the_twin() -> None:
    walls, objects = maps(4)
    for number in range(4):
        plain = walls[number].tolist()
        for y, x in objects[number].nonzero().tolist():
            targets = torch.zeros(1, 13, 13, dtype=torch.bool)
            targets[0, y, x] = True
            cells = grid.geodesic(~walls[number][None], targets)[0]
            expected = twin.distances(plain, (x, y))
            assert {(b, a): int(cells[a, b]) for a, b in (~walls[number]).nonzero().tolist()} == (
                expected
            )
    assert (cells[walls[number]] == grid.UNREACHABLE).all()
    near = grid.Sight(grid.near_offsets(2))
    goals = grid.poses_that_see(near, walls[number][None], targets)
    to_go = grid.actions_to_go(~walls[number][None], goals)[0]
    for a, b in (~walls[number]).nonzero().tolist()[::3]:
        for heading in range(4):
            pose = (b, a, heading)
            assert bool(goals[0, heading, a, b]) == twin.succeeds(plain, pose, (x, y))
            assert int(to_go[heading, a, b]) == twin.fewest_actions(plain, pose, (x, y))


class Twin:
    """One trial; start poses and targets are read from the world's views."""

    def __init__(self, walls, objects, camera: bool, relative: bool = False) -> None:
        self.camera, self.relative = camera, relative
        self.walls, self.objects, self.met = walls.tolist(), objects.tolist(), set()
        self.places = {int(objects[y, x]) - 1: (x, y) for y, x in objects.nonzero().tolist()}

    def begin(self, wanted: int, pose: twin.Pose) -> None:
        self.pose, self.wanted, self.time = pose, wanted, 0
        self.start = pose
        self.target = self.places[wanted]
        self.away = twin.distances(self.walls, self.target)
        self.shortest = 1 + twin.fewest_actions(self.walls, pose, self.target)
        self.familiar = wanted in self.met

    def look(self) -> list[int]:
        found = twin.crop(self.walls, self.objects, self.pose, math.pi / 3 if self.camera else None)
        self.met |= {code - 3 for code in found if code >= 3}
        return found

    def features(self) -> set[int]:
        """Places of ones: what is wanted, the pose, and where objects in view are."""
        cells = 25 if self.relative else 13  # of each axis
        x, y, heading = self.told(self.pose)
        found = {self.wanted, 6 + x, 6 + cells + y, 6 + 2 * cells + heading}
        first, kinds = 10 + 2 * cells, 2 * cells
        camera = math.pi / 3 if self.camera else None
        seen = twin.crop(self.walls, self.objects, self.pose, camera)
        for kind, place in self.places.items():
            if kind + 3 in seen:
                at_x, at_y, _ = self.told((*place, 0))
                found |= {first + kinds * kind + at_x, first + kinds * kind + cells + at_y}
        return found

    def told(self, pose: twin.Pose) -> twin.Pose:
        """In the frame that is told: the map's, or the start's with (12, 12) at the start."""
        if not self.relative:
            return pose
        away = complex(pose[0] - self.start[0], pose[1] - self.start[1]) / 1j ** self.start[2]
        return round(away.real) + 12, round(away.imag) + 12, (pose[2] - self.start[2]) % 4

    def step(self, action: int) -> tuple[float, bool, bool, float, bool]:
        before = self.away[self.pose[:2]]
        self.pose, self.time = twin.moved(self.walls, self.pose, action), self.time + 1
        success = action == STOP and twin.succeeds(self.walls, self.pose, self.target)
        reward = 0.1 * (before - self.away[self.pose[:2]]) + success - 0.005
        efficiency = success * self.shortest / max(self.shortest, self.time)
        over = action == STOP or self.time == 25
        return reward, over, success, efficiency, self.familiar


@pytest.mark.parametrize("name", WORLDS)
def test_trials_equal_the_twins(name: str) -> None:
    world, generator = make_trial_world(name), torch.Generator().manual_seed(2)
    chosen = world.worlds(HELD_OUT)[:COUNT]
    view = world.reset(chosen, STEPS, generator)
    kind = (name == "apartment", name == "egocentric_relative")
    twins = [Twin(world.walls(w), world.objects(w), *kind) for w in chosen.tolist()]
    fresh = torch.ones(COUNT, dtype=torch.bool)
    successes = 0
    for _ in range(STEPS):
        shown = world.told(view)
        for n, robot in enumerate(twins):
            wanted, *pose = (int(part[n]) for part in shown)
            if fresh[n]:
                robot.begin(wanted, tuple(pose))
            assert (wanted, *pose) == (robot.wanted, *robot.pose)
            assert view.cells[n].tolist() == robot.look()
            assert set(view.features[n].nonzero()[:, 0].tolist()) == robot.features()
        # half of the actions go by the shortest way, so that there are successes to compare
        chance = torch.randint(4, (COUNT,), generator=generator)
        action = torch.where(
            torch.rand(COUNT, generator=generator) < 0.7, world.expert_action(), chance
        )
        found = world.step(action)
        rows = [robot.step(int(a)) for robot, a in zip(twins, action)]
        reward, ended, success, efficiency, familiar = (torch.tensor(c) for c in zip(*rows))
        assert torch.allclose(found.reward, reward, atol=1e-6)
        assert torch.equal(found.ended, ended)
        assert torch.equal(found.success & ended, success)
        assert torch.allclose(found.efficiency, efficiency.float())
        assert torch.equal(found.familiar, familiar)
        fresh, view = found.ended, found.view
        successes += int(success.sum())
    assert successes > 20 and familiar.any()


def test_the_expert_takes_the_shortest_way() -> None:
    world, chosen = EgocentricNavigation(horizon=60), torch.arange(40)
    world.reset(chosen, 60, torch.Generator().manual_seed(1))
    over = torch.zeros(40, dtype=torch.bool)
    for _ in range(60):
        found = world.step(world.expert_action())
        first = found.ended & ~over
        assert found.success[first].all() and (found.efficiency[first] == 1.0).all()
        over |= found.ended
    assert over.all()


def test_episodes_do_not_depend_on_what_was_done() -> None:
    """The same seed asks the same in the k-th episode, after short and after long ones."""
    asked = []
    for patience in (1, 7):
        world = EgocentricNavigation()
        view = world.reset(world.worlds(HELD_OUT)[:3], 60, torch.Generator().manual_seed(5))
        rows = [view.features]
        for step in range(1, 5 * patience):
            stop = step % patience == 0
            view = world.step(torch.full((3,), STOP if stop else 1)).view
            rows += [view.features] * stop
        asked.append(torch.stack(rows[:5]))
    assert torch.equal(asked[0], asked[1])


def test_given_episodes_are_those_that_are_played() -> None:
    world = make_trial_world("apartment")
    starts = torch.tensor([[[1, 1, 0], [11, 11, 2]], [[2, 1, 3], [1, 11, 1]]])
    wanted = torch.tensor([[4, 2], [0, 5]])
    view = world.begin(torch.tensor([7, 8]), starts, wanted)
    for episode in range(2):
        poses = zip(wanted[:, episode], *starts[:, episode].T, strict=True)
        for row, (kind, x, y, heading) in zip(view.features, poses, strict=True):
            expected = {int(kind), 6 + int(x), 19 + int(y), 32 + int(heading)}
            assert set(row[:36].nonzero()[:, 0].tolist()) == expected
        view = world.step(torch.full((2,), STOP)).view


def test_a_relative_pose_changes_only_what_is_told() -> None:
    """Same trials, same rewards; every episode begins at the origin; the searcher, which is told
    where the episodes began, does the same."""
    worlds = [make_trial_world(name) for name in ("egocentric", "egocentric_relative")]
    chosen, first = worlds[0].worlds(HELD_OUT)[:COUNT], torch.ones(COUNT, dtype=torch.bool)
    views = [w.reset(chosen, STEPS, torch.Generator().manual_seed(4)) for w in worlds]
    searchers = [MapSearcher(world, COUNT, keep=True) for world in worlds]
    origin, moved = [12, 25 + 12, 50], 0
    for _ in range(STEPS):
        assert torch.equal(views[0].cells, views[1].cells)
        poses = views[1].features[:, 6:60]
        assert all(row.nonzero()[:, 0].tolist() == origin for row in poses[first])
        moved += sum(row.nonzero()[:, 0].tolist() != origin for row in poses)
        pairs = zip(searchers, views, strict=True)
        action, same = (searcher.act(view, first) for searcher, view in pairs)
        assert torch.equal(action, same)
        found, other = (world.step(action) for world in worlds)
        assert all(map(torch.equal, found[1:], other[1:]))
        views, first = [found.view, other.view], found.ended
    assert moved > COUNT * STEPS / 2


@pytest.mark.parametrize("keep", [True, False])
def test_a_map_over_episodes_helps_the_searcher(keep: bool) -> None:
    """Wide bounds; the benchmark measures the figures on more layouts."""
    world, count = EgocentricNavigation(), 24
    view = world.reset(world.worlds(HELD_OUT)[:count], 150, torch.Generator().manual_seed(0))
    searcher = MapSearcher(world, count, keep=keep)
    first, episode = (torch.ones(count, dtype=torch.bool), torch.zeros(count, dtype=torch.int64))
    success, tried = torch.zeros(20), torch.zeros(20)
    for _ in range(150):
        found = world.step(searcher.act(view, first))
        view, first = found.view, found.ended
        here = episode[found.ended].clamp(max=19)
        success.index_add_(0, here, found.success[found.ended].float())
        tried.index_add_(0, here, torch.ones(len(here)))
        episode += found.ended
    late = success[3:6].sum() / tried[3:6].sum()
    assert late > 0.95 if keep else 0.5 < late < 0.95
