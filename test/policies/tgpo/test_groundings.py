"""The padded items of a formula against the formula itself, by trying all times."""

from __future__ import annotations

import itertools

import pytest
import torch
from tgpo_cases import make_task

from embodied_rl.core.errors import UserError
from embodied_rl.policies.tgpo.groundings import Groundings, Schedule, Shape

FORMULAS = [
    "F[0.5,3] A",
    "F[0.5,3] A and F[1,2] B and G[0,4] not O",
    "F[0.5,2] (A and F[0.5,2] B)",
    "F[0.5,2] G[0.5,1.5] A",
    "F[0.5,2] (A and not O)",
    "((not B) U[0.5,3] A) and F[2,4] B",
    "F[0.5,2] A and (F[0.5,2] B or F[1,3] G[0,1] C)",
    "F[0.5,3] (A or B or C)",
    "G[1,2] A and F[0.5,1] B",
    "G[0.5,2] F[0,1] A",
]


def margins(schedule: Schedule, positions: torch.Tensor) -> torch.Tensor:
    """Least margin ``(N,)`` of the items on one trace ``(T, d)``, step by step."""
    found = torch.full((len(schedule.first),), float("inf"), dtype=torch.float64)
    for n in range(len(found)):
        for sign, kind in ((1, ""), (-1, "avoid_")):
            read = {
                k: getattr(schedule, kind + k)[n] for k in ("centre", "radius", "first", "last")
            }
            for k in torch.nonzero(getattr(schedule, kind + "present")[n])[:, 0]:
                for t in range(int(read["first"][k]), int(read["last"][k]) + 1):
                    away = (positions[t] - read["centre"][k]).norm()
                    found[n] = torch.minimum(found[n], sign * (read["radius"][k] - away))
    return found


@pytest.mark.parametrize("formula", FORMULAS)
def test_grounding_identity(formula: str) -> None:
    """Robustness = the best assignment's least margin, for every trace (no plan begins at 0)."""
    task = make_task(formula)
    groundings = Groundings([task], Shape(4, 4, 4))
    chosen, times = [], []
    for b in range(len(groundings)):
        spans = [
            range(int(low), int(high) + 1)
            for low, high in zip(groundings.low[b], groundings.high[b])
        ]
        for values in itertools.product(*spans):
            chosen.append(b)
            times.append(values)
    chosen, times = torch.tensor(chosen), torch.tensor(times)
    keep = groundings.feasible(chosen, times)
    schedule = groundings.schedule(chosen[keep], times[keep])
    generator = torch.Generator().manual_seed(11)
    for _ in range(4):
        trace = 0.6 * torch.randn(20, 2, generator=generator).cumsum(dim=0)
        padded = torch.cat([trace, trace[-1:].expand(45, -1)])
        expected = float(task.robustness(padded[None]))
        assert abs(float(margins(schedule, trace.double()).max()) - expected) < 1e-5


def test_subgoals_come_in_order_of_their_ends() -> None:
    groundings = Groundings([make_task("F[0.5,8] A and F[0.5,8] B and F[1,4] G[0,2] C")], Shape())
    chosen, times = torch.zeros(2, dtype=torch.long), torch.tensor([[9, 3, 2, 0], [1, 9, 8, 0]])
    schedule, order = groundings.ordered(chosen, times)
    assert schedule.last[:, :3].tolist() == [[3, 6, 9], [1, 9, 12]]
    assert schedule.first[:, :3].tolist() == [[3, 2, 9], [1, 9, 8]]
    assert schedule.present.sum(dim=1).tolist() == [3, 3]
    assert [groundings.tasks[0].regions[n].centre[0] for n in "BCA"] == pytest.approx(
        schedule.centre[0, :3, 0].tolist()
    )
    back = torch.zeros(2, 4).scatter(1, order, schedule.last.float())
    assert back[:, :3].tolist() == [[9, 3, 6], [1, 9, 12]]


def test_no_plan_begins_at_step_zero() -> None:
    """Nothing acts before step 0: a time that no step judges would be a loophole."""
    groundings = Groundings([make_task("F[0,2] A")], Shape(2, 2, 2))
    times = torch.tensor([[0, 0], [1, 0], [4, 0], [5, 0]])
    chosen = torch.zeros(4, dtype=torch.long)
    assert groundings.feasible(chosen, times).tolist() == [False, True, True, False]


def test_what_the_past_has_settled() -> None:
    groundings = Groundings([make_task("F[0.5,4] (A and F[0.5,4] B) and F[0.5,8] C")], Shape())
    chosen = torch.zeros(1, dtype=torch.long)
    times = torch.tensor([[3, 4, 9, 0]])
    done = torch.tensor([[True, False, False, False]])
    assert groundings.fixed(chosen, done).tolist() == [[True, False, False, False]]
    assert groundings.ahead(chosen, times, done, 6).tolist() == [True]
    assert groundings.ahead(chosen, times, done, 7).tolist() == [False]
    assert groundings.ahead(chosen, times, torch.zeros_like(done), 3).tolist() == [False]


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        (
            "G[0,4] (A or B)",
            "expected regions and negated regions, saw 'A >= 0 or B >= 0' to be held",
        ),
        ("G[0,4] not O", "expected a region to be reached, saw none"),
        (
            "F[1,2] A and F[1,2] B and F[1,3] C and F[1,4] A and F[2,3] B",
            "at most 4 subgoals, .* 5",
        ),
        ("F[1,2] (A > 0.2)", "saw 'A > 0.2' to be reached"),
        ("G[0,3] (A -> F[0,1] B)", "outside the fragment"),
    ],
)
def test_what_does_not_fit_is_named(formula: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Groundings([make_task(formula)], Shape())


def test_tasks_of_two_robots_are_refused() -> None:
    tasks = [make_task("F[1,2] A"), make_task("F[1,2] A", "unicycle")]
    with pytest.raises(UserError, match="tasks of one robot, saw .'linear', 'unicycle'."):
        Groundings(tasks, Shape())
