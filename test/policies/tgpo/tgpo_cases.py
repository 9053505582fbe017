"""Small tasks that the tests of TGPO share."""

from __future__ import annotations

from embodied_rl.sim.stl_tasks.task import StlTask, task_from

REGIONS = {
    "A": {"centre": [2.0, 0.0], "radius": 0.8},
    "B": {"centre": [-2.0, 0.0], "radius": 0.8},
    "C": {"centre": [0.0, 2.0], "radius": 0.8},
    "O": {"centre": [0.0, -2.0], "radius": 1.0},
}


def make_task(formula: str, dynamics: str = "linear", name: str = "case") -> StlTask:
    return task_from(
        {
            "name": name, "dynamics": dynamics, "layers": "two_layer", "formula": formula,
            "regions": REGIONS, "start": {"low": [-0.5, -0.5], "high": [0.5, 0.5]},
        },
        name,
    )  # fmt: skip
