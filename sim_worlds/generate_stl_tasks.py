"""Writes the task files of ``stl_tasks/``: for each robot the first feasible seeds of each family.

python sim_worlds/generate_stl_tasks.py --robot linear
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro
from witness import find_witness

from embodied_rl.sim.dynamics.registry import make_dynamics
from embodied_rl.sim.stl_tasks.generate import generate
from embodied_rl.sim.stl_tasks.task import FOLDER, write_task

# five two-layer and five multi-layer tasks, or three and two
PLAN = ("reach", "reach", "reach", "until", "until",
        "sequence", "sequence", "sequence", "tree", "tree")  # fmt: skip
SHORT_PLAN = ("reach", "reach", "until", "sequence", "tree")


@dataclass(frozen=True)
class Arguments:
    """Ten tasks for the point and the unicycle, five for the others."""

    robot: str
    seed: int = 0
    """First seed that is tried; what cannot be shown feasible is left out."""
    out: Path = Path(__file__).parent / FOLDER


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    torch.set_num_threads(1)
    dynamics, seed = make_dynamics(arguments.robot), arguments.seed
    plan = PLAN if arguments.robot in ("linear", "unicycle") else SHORT_PLAN
    for number, family in enumerate(plan):
        while True:
            name = f"{arguments.robot}_{number:02d}"
            task = generate(name, dynamics, family, seed)
            witness = find_witness(task, seed)
            seed += 1
            if witness is not None:
                break
            print(f"{name}: seed {seed - 1} of family {family}: no witness, left out")
        write_task(replace(task, witness=witness), arguments.out / f"{name}.yaml")
        print(f"{name}: {family}, seed {seed - 1}, margin {witness.margin_m:.3f} m: {task.text}")


if __name__ == "__main__":
    main()
