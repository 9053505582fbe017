"""The critic's map of times: V over the two times of a task, beside what comes of each pair.

From the middle of the task's start box every feasible pair of times is valued, and pursued by the
policy's mean actions without new times for what is missed. ``agreement`` is the chance that a pair
that satisfies the formula has a higher value than one that does not (area under the ROC curve).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from _plot import beside, picture
from _report import report
from torch import Tensor

from embodied_rl.policies.registry import find_checkpoint
from embodied_rl.policies.tgpo.evaluation import value_map
from embodied_rl.policies.tgpo.runtime import load_tgpo
from embodied_rl.sim.stl_tasks.task import StlTask, load_task

TARGETS = {"best_satisfies": (">=", 1.0)}


@dataclass(frozen=True)
class Arguments:
    """Values and successes over two times; a picture beside the JSON."""

    model: str = "tgpo_linear"
    task: str = "linear_02"
    """A stored task or a task file with two times."""
    json: Path | None = None


def agreement(values: Tensor, met: Tensor) -> float:
    """Chance that a met pair is valued above one that is not; ties count half."""
    good, bad = values[met], values[~met]
    if not len(good) or not len(bad):
        return float("nan")
    order = torch.cat([good, bad]).unique(return_inverse=True)[1].double()
    counts = torch.bincount(order.long()).double()
    rank = (counts.cumsum(0) - (counts - 1) / 2)[order.long()]
    return float((rank[: len(good)].sum() / len(good) - (len(good) + 1) / 2) / len(bad))


def main(argv: list[str]) -> int:
    arguments = tyro.cli(Arguments, args=argv, prog="embodied_rl bench tgpo_values")
    torch.set_num_threads(1)
    task = load_task(arguments.task)
    middle = (torch.tensor(task.start_low) + torch.tensor(task.start_high)) / 2
    state = task.dynamics.start(middle[None], torch.Generator().manual_seed(0))
    values, met = value_map(load_tgpo(find_checkpoint(arguments.model)), task, state)
    known = torch.isfinite(values)
    best = values.masked_fill(~known, -float("inf")).argmax()
    first_earlier = torch.ones_like(known).triu(1)
    figures = {
        "pairs": int(known.sum()),
        "satisfied": float(met[known].float().mean()),
        "agreement": agreement(values[known], met[known]),
        "best_satisfies": float(met.flatten()[best]),
        "best_value": float(values.flatten()[best]),
        "first_earlier.best_value": float(values[known & first_earlier].max()),
        "first_later.best_value": float(values[known & ~first_earlier].max()),
    }
    if arguments.json is not None:
        _draw(beside(arguments.json), task, values, met)
    return report("tgpo_values", figures, TARGETS, arguments.json)


def _draw(path: Path, task: StlTask, values: Tensor, met: Tensor) -> None:
    end_s = task.dynamics.steps * task.dynamics.dt_s
    extent = (0.0, end_s, 0.0, end_s)
    shown = met.float().masked_fill(~torch.isfinite(values), float("nan"))
    with picture(path, columns=2, size=(8, 3.6), title=task.text) as axes:
        for axis, field, name in (
            (axes[0, 0], values, "value of the start, by the critic"),
            (axes[0, 1], shown, "formula satisfied by the policy"),
        ):
            drawn = axis.imshow(field.numpy(), origin="lower", extent=extent, cmap="viridis")
            axis.set_title(name)
            axis.set_xlabel("second time (s)")
            axis.set_ylabel("first time (s)")
            axis.grid(visible=False)
            axis.figure.colorbar(drawn, ax=axis, shrink=0.8)
