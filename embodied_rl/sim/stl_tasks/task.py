"""A task: a robot, named regions, where it starts, and the formula that its trace is to satisfy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from embodied_rl.core.checkpoint import atomic_write
from embodied_rl.core.errors import UserError
from embodied_rl.core.schema import Section, load_yaml_mapping
from embodied_rl.sim.dynamics.base import Dynamics
from embodied_rl.sim.dynamics.registry import DYNAMICS, make_dynamics
from embodied_rl.sim.worlds.base import sim_worlds_file
from embodied_rl.stl import batched
from embodied_rl.stl import formula as fm
from embodied_rl.stl.parse import parse

FOLDER = "stl_tasks"
TWO_LAYER, MULTI_LAYER = "two_layer", "multi_layer"


@dataclass(frozen=True)
class Region:
    """A disc or ball. As a signal it is the margin ``radius - distance to the centre``, in m."""

    centre: tuple[float, ...]
    radius: float

    def margin(self, positions: Tensor) -> Tensor:
        """Margins ``(...)`` of positions ``(..., d)``."""
        away = positions - positions.new_tensor(self.centre)
        return self.radius - torch.linalg.vector_norm(away, dim=-1)


@dataclass(frozen=True)
class Witness:
    """What shows that a task can be satisfied: the robustness of a trace that was found."""

    margin_m: float
    method: str


@dataclass(frozen=True)
class StlTask:
    """``text`` is the formula as written, over the regions' names; ``layers`` its class; the start
    box bounds the places of `Dynamics.start`."""

    name: str
    dynamics: Dynamics
    layers: str
    text: str
    formula: fm.Formula
    regions: Mapping[str, Region]
    start_low: tuple[float, ...]
    start_high: tuple[float, ...]
    witness: Witness | None = None

    def start(self, count: int, generator: torch.Generator) -> Tensor:
        """Random states ``(count, state_dim)`` at which the robot may begin."""
        low, high = torch.tensor(self.start_low), torch.tensor(self.start_high)
        spread = torch.rand(count, len(low), generator=generator)
        return self.dynamics.start(low + spread * (high - low), generator)

    def signals(self, positions: Tensor) -> dict[str, Tensor]:
        """The margins of all regions on traces ``(..., T, d)``, each ``(..., T)``."""
        return {name: region.margin(positions) for name, region in self.regions.items()}

    def robustness(self, positions: Tensor, temperature: float | None = None) -> Tensor:
        """Robustness ``(...)`` of the formula at the start of traces ``(..., T, d)``.

        Args:
            temperature: of the smooth variant, for gradients; default: exact, in float64.

        Raises:
            UserError: the traces end before the formula is decided.
        """
        needed = fm.horizon(self.formula) + 1
        if positions.shape[-2] < needed:
            raise UserError(
                f"task {self.name}: the formula is decided after {needed} samples, saw a trace of "
                f"{positions.shape[-2]}"
            )
        if temperature is None:
            positions = positions.double()
        found = batched.robustness(self.formula, self.signals(positions), temperature=temperature)
        return found[..., 0]

    def as_mapping(self) -> dict[str, Any]:
        """Plain data, which :func:`task_from` reads back."""
        regions = {
            name: {"centre": list(region.centre), "radius": region.radius}
            for name, region in self.regions.items()
        }
        data: dict[str, Any] = {
            "name": self.name,
            "dynamics": self.dynamics.name,
            "layers": self.layers,
            "formula": self.text,
            "regions": regions,
            "start": {"low": list(self.start_low), "high": list(self.start_high)},
        }
        if self.witness is not None:
            data["witness"] = {
                "margin_m": self.witness.margin_m,
                "method": self.witness.method,
            }
        return data


def task_from(data: dict[str, Any], origin: str) -> StlTask:
    """A task from plain data.

    Raises:
        UserError: a key is missing, unknown or wrong; the formula uses a name that is no region,
            or is not decided within an episode.
    """
    section = Section(origin, "", data)
    name = section.text("name")
    dynamics = make_dynamics(section.choice("dynamics", sorted(DYNAMICS)))
    layers = section.choice("layers", (TWO_LAYER, MULTI_LAYER))
    text = section.text("formula")
    regions = {key: _region(child, dynamics) for key, child in section.children("regions")}
    start = section.optional_child("start")
    if start is None:
        section.fail("start", "a mapping with low and high", "none")
    low, high = (start.vector(end, dynamics.start_dim) for end in ("low", "high"))
    if (low > high).any():
        start.fail("high", f"values not below low = {low.tolist()}", high.tolist())
    start.done()
    witness = section.optional_child("witness")
    formula = parse(text, dynamics.dt_s)
    unknown = sorted(set(fm.signal_names(formula)) - set(regions))
    if unknown:
        section.fail("formula", f"names among the regions {sorted(regions)}", unknown)
    if fm.horizon(formula) > dynamics.steps:
        limit = f"a horizon of at most {dynamics.steps * dynamics.dt_s:g} s"
        section.fail("formula", limit, f"{fm.horizon(formula) * dynamics.dt_s:g} s")
    found = None if witness is None else _witness(witness)
    section.done()
    ends = tuple(low.tolist()), tuple(high.tolist())
    return StlTask(name, dynamics, layers, text, formula, regions, *ends, found)


def _region(section: Section, dynamics: Dynamics) -> Region:
    centre = section.vector("centre", dynamics.position_dim)
    region = Region(tuple(centre.tolist()), section.positive("radius"))
    section.done()
    return region


def _witness(section: Section) -> Witness:
    witness = Witness(section.positive("margin_m"), section.text("method"))
    section.done()
    return witness


def read_task(path: Path) -> StlTask:
    """The task in a YAML file; errors as for :func:`task_from`."""
    return task_from(load_yaml_mapping(path), str(path))


def load_task(name: str) -> StlTask:
    """A task that ships with us, such as ``linear_00``, or one in a YAML file given by its path."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return read_task(path)
    return read_task(sim_worlds_file(f"{FOLDER}/{name}.yaml"))


def write_task(task: StlTask, path: Path) -> None:
    with atomic_write(path) as temporary:
        text = yaml.safe_dump(
            task.as_mapping(), sort_keys=False, default_flow_style=None, width=100
        )
        temporary.write_text(text, encoding="utf-8")
