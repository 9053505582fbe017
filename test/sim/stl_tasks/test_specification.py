"""A task as a specification: the monitor's robustness on a robot's streams is the task's own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.window import Sample
from embodied_rl.sim.stl_tasks.specification import find, names_task, task_specification
from embodied_rl.sim.stl_tasks.task import load_task, task_from, write_task
from embodied_rl.sim.worlds.base import sim_worlds_file
from embodied_rl.stl.events import Kind
from embodied_rl.stl.replay import replay

START_NS = 12_300_000_000  # a multiple of the control period, and not of the tasks' step
BASE = Embodiment.load(sim_worlds_file("arena/diff_drive.yaml"))
ARM = Embodiment.load(sim_worlds_file("tabletop/ur5e_2f85.yaml"))


def drive(task, seed: int) -> torch.Tensor:
    """Positions ``(T + 1, d)`` of a robot with random actions, one each step of the task."""
    generator = torch.Generator().manual_seed(seed)
    state = task.start(1, generator)
    found = [task.dynamics.position(state)]
    action = torch.zeros(1, task.dynamics.action_dim)
    for _ in range(task.dynamics.steps):
        noise = torch.randn(action.shape, generator=generator)
        action = (0.8 * action + 0.4 * noise).clamp(-1, 1)
        state = task.dynamics.step(state, action)
        found.append(task.dynamics.position(state))
    return torch.cat(found)


def positions(trace: torch.Tensor, dt_s: float, between: int = 5) -> list[Sample]:
    """The trace as an odometry faster than the task would see it, straight between two steps."""
    points = trace.double().numpy()
    points = np.hstack([points, np.zeros((len(points), 3 - points.shape[1]))])
    step_ns = round(dt_s * 1e9) // between
    return [
        Sample(START_NS + (i * between + j) * step_ns, a + (b - a) * (j / between))
        for i, (a, b) in enumerate(zip(points, [*points[1:], points[-1]]))
        for j in range(between if i + 1 < len(points) else 1)
    ]


@pytest.mark.parametrize(
    ("name", "robot"), [(f"unicycle_0{i}", BASE) for i in range(10)] + [("arm_00", ARM)]
)
def test_the_monitor_ends_at_the_robustness_of_the_task(name, robot):
    task = load_task(name)
    spec = task_specification(task, robot)
    (stream,) = spec.signals.streams
    for seed in range(3):
        trace = drive(task, seed)
        samples = ((stream, sample) for sample in positions(trace, task.dynamics.dt_s))
        status = replay(spec, samples, START_NS).statuses[-1][0]
        wanted = float(task.robustness(trace[None])[0])
        assert status.low == status.high == pytest.approx(wanted, abs=1e-6)
        assert status.anchor_ns == START_NS and status.formula == name


PLAIN = {
    "name": "plain", "dynamics": "unicycle", "layers": "two_layer",
    "formula": "F[0,4] A and G[0,4] not B",
    "regions": {"A": {"centre": [3, 0], "radius": 1}, "B": {"centre": [0, 3], "radius": 1}},
    "start": {"low": [0, 0], "high": [0, 0]},
}  # fmt: skip


def changed(**keys: object):
    return task_from({**PLAIN, **keys}, "plain.yaml")


def test_margins_in_metres_and_events_that_say_the_distance():
    spec = task_specification(changed(), BASE)
    samples = [
        ("base_position", Sample(START_NS + k * 500_000_000, np.array([0.5 * k, 0.0, 0.4])))
        for k in range(9)
    ]
    record = replay(spec, samples, START_NS)
    assert [event.event for event in record.events] == [Kind.SATISFIED] * 3
    (reached,) = [event for event in record.events if event.path == "0"]
    assert reached.subformula == "F[0,4] A_distance <= 1"
    assert reached.witness.signals == {"A_distance": 0.5, "B_distance": math.hypot(2.5, 3)}
    (status,) = [status for status in record.statuses[-1] if not status.clause.path]
    assert status.low == pytest.approx(1.0)  # through the middle of A, 2 m from the rim of B


def test_expressions_over_margins():
    task = changed(formula="F[0,1] (A >= -2.5 and min(A, B) < 0.25 and -B <= 2.0)")
    trace = torch.tensor([[[0.0, 0.0], [0.5, 0.0], [1.0, 0.5]]])
    spec = task_specification(task, BASE)
    samples = [("base_position", sample) for sample in positions(trace[0], 0.5)]
    status = replay(spec, samples, START_NS).statuses[-1][0]
    assert status.low == status.high == pytest.approx(float(task.robustness(trace)[0]), abs=1e-9)


def test_a_name_or_a_file_of_either_kind(tmp_path):
    shipped = str(sim_worlds_file("tabletop/return_home.stl.yaml"))
    assert not names_task(shipped) and find(shipped, ARM).name == "return_home"
    assert names_task("unicycle_00") and find("unicycle_00", BASE).name == "unicycle_00"
    path = tmp_path / "mine.yaml"
    write_task(changed(), path)
    assert names_task(str(path)) and find(str(path), BASE).grid == "start"


@pytest.mark.parametrize(
    ("make", "robot", "complaint"),
    [
        (lambda: "nowhere", BASE, "sim_worlds/.*nowhere.yaml"),
        (lambda: "nowhere.yaml", BASE, "nowhere.yaml: cannot be read"),
        (
            lambda: changed(),
            Embodiment.parse(BASE.text.replace("base_position", "where"), "r.yaml"),
            r"r.yaml: task plain expects one of the streams \['base_position', 'tool_position'\]",
        ),
        (lambda: changed(formula="F[0,1] true"), BASE, "over regions, saw constants only"),
    ],
)
def test_what_does_not_fit_is_named(make, robot, complaint):
    with pytest.raises(UserError, match=complaint):
        made = make()
        find(made, robot) if isinstance(made, str) else task_specification(made, robot)


@pytest.mark.parametrize(
    ("formula", "complaint"),
    [
        ("F[0,1] C", "expected names among the regions .* saw 'C'"),
        ("F A", "task later: formula, column"),
        ("F[3,1] A", "task later: formula, column"),
        ("F[0,0.7] A", "a multiple of dt = 0.5"),
    ],
)
def test_a_formula_given_later_is_checked_like_one_of_a_file(formula, complaint):
    from embodied_rl.sim.stl_tasks.specification import over_regions

    with pytest.raises(UserError, match=complaint):
        over_regions("later", formula, 0.5, changed().regions, BASE)
