"""What a method declares of itself: how its policies are loaded, trained and evaluated.

A method is a folder of this package with a module ``method`` that holds ``METHOD``, or a package of
somebody else's that names such an object under the entry points ``embodied_rl.methods``
(:mod:`embodied_rl.policies.registry` finds both). Its options are dataclasses: the command line,
the launch files and the policy node take their names, types and help from there. To list the
methods must cost little, so networks are imported by the functions, not by the module.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import Policy
from embodied_rl.core.schema import parse_yaml

if TYPE_CHECKING:  # torch and MuJoCo take seconds to import
    from rich.console import Console, RenderableType

    from embodied_rl.policies.evaluation import Evaluation
    from embodied_rl.sim.rollout import EpisodeResult
    from embodied_rl.training.supervised import FitResult


@dataclass(frozen=True)
class Options:
    """Options of a policy while it runs; a method adds its own."""


@dataclass(frozen=True)
class NetworkOptions(Options):
    """Of a policy that is a network."""

    device: str = "auto"
    """Where the policy is computed: auto (a GPU if there is one), cpu, cuda, or cuda:N."""


@dataclass(frozen=True)
class Setting:
    """What a policy is loaded for."""

    embodiment: Embodiment
    task: str | None = None  # where the method needs one
    budget_s: float | None = None  # that a plan may take; None: as long as it needs


@dataclass(frozen=True)
class Model:
    """A checkpoint that has been found, with its method."""

    name: str  # as the user wrote it
    folder: Path | None  # None: a policy that needs no checkpoint
    method: Method
    task: str | None = None  # that it was made for, as its config says


class Episodes(Protocol):
    """What runs the episodes of an evaluation, in processes or over ROS topics."""

    def run(
        self, evaluation: Evaluation, *, over_ros: bool, workers: int
    ) -> list[EpisodeResult]: ...

    def same(self, one: list[EpisodeResult], other: list[EpisodeResult]) -> dict[str, float]:
        """How far two runs of one evaluation agree, in outcomes and commands step by step."""


@dataclass(frozen=True)
class EvaluateArguments:
    """The command line of an evaluation; a method adds its own."""

    seed: int = 0
    """Base seed; every episode's own seed follows from it."""
    json: Path | None = None
    """Write the figures to this file."""
    card: bool = False
    """Write the result into the checkpoint's CARD.md."""


@dataclass(frozen=True)
class Report:
    """What an evaluation has found."""

    figures: dict[str, Any]  # for JSON
    shown: Sequence[RenderableType]  # tables and lines for the terminal
    card: str  # Markdown for the checkpoint's card


@dataclass(frozen=True)
class Evaluator:
    """How models are judged: ``run(model, arguments, options, episodes)``."""

    arguments: type[EvaluateArguments]
    run: Callable[[Model, Any, Any, Episodes], Report]
    options: type[Options] | None = None  # None: those of the method's policies
    summary: str = "Runs episodes and prints the success rate with its 95 % interval."


@dataclass(frozen=True)
class TrainArguments:
    """The command line of a training; a method adds its own."""

    config: Path
    """Model and training settings."""
    out: Path | None = None
    """Checkpoint folder; default: runs/models/NAME, NAME being the config's."""
    work: Path | None = None
    """Resumable state, log and whatever else is kept; default: runs/train/NAME."""
    seed: int | None = None
    """In place of the config's training.seed."""
    resume: bool = False
    """Go on from the state that an interrupted run left."""
    device: str = "auto"
    """Where to compute: auto, cpu, cuda, or cuda:N."""
    threads: int = 1
    """Threads of the training; sums, and so weights, differ a little with their number."""

    def overrides(self) -> dict[str, Any]:
        """Key of the config's ``training`` section -> value that stands in place of it."""
        return {} if self.seed is None else {"seed": self.seed}


@dataclass(frozen=True)
class SimulationArguments(TrainArguments):
    """Of a method that learns in simulation."""

    steps: int | None = None
    """In place of the config's training.transitions."""

    def overrides(self) -> dict[str, Any]:
        steps = {} if self.steps is None else {"transitions": self.steps}
        return super().overrides() | steps


@dataclass(frozen=True)
class Folders:
    """Where a training leaves its checkpoint, and what it needs to be resumed."""

    out: Path
    work: Path


def has_state(work: Path) -> bool:
    """Whether a folder holds a run that can be resumed."""
    from embodied_rl.training import state

    return state.has_state(work)


@dataclass(frozen=True)
class Trainer:
    """How a method makes a checkpoint."""

    arguments: type[TrainArguments]
    read: Callable[[Path, dict[str, Any]], Any]  # config file, overrides -> run, with a name
    run: Callable[[Any, Any, Folders, Console], FitResult]  # run, arguments, folders, console
    summary: str
    has_state: Callable[[Path], bool] = has_state


def _evaluates_episodes(folder: Path | None) -> Evaluator:
    from embodied_rl.policies.episodes import EVALUATOR

    return EVALUATOR


@dataclass(frozen=True)
class Method:
    """The whole face of a method."""

    name: str  # the key ``policy`` of its checkpoints' config.yaml
    summary: str
    load: Callable[[Path | None, Setting, Any], Policy]  # folder, setting, options
    options: type[Options] = Options
    # By the checkpoint's folder, as models of one method may be judged in different worlds
    evaluator: Callable[[Path | None], Evaluator] = _evaluates_episodes
    trainer: Trainer | None = None
    shows_plan: bool = False  # regions and times, of which pictures can be made
    # Name of the shipped model for a robot; raises UserError where there is none
    shipped_for: Callable[[Embodiment], str] | None = field(default=None)


def read_options(kind: type[Options], given: Mapping[str, Any], origin: str) -> Options:
    """Options of a policy from names and values, as a command line or YAML has them.

    Args:
        origin: what errors name, such as a parameter or a model.

    Raises:
        UserError: a name that the method has not, or a value of another type.
    """
    hints = typing.get_type_hints(kind)
    for name, value in given.items():
        if name not in hints:
            near = difflib.get_close_matches(str(name), list(hints), 1)
            hint = f" (did you mean '{near[0]}'?)" if near else ""
            known = f"options among {', '.join(hints)}" if hints else "no options"
            raise UserError(f"{origin}: expected {known}, saw '{name}'{hint}")
        if not _is_a(value, hints[name]):
            raise UserError(f"{origin}: {name}: expected {_words(hints[name])}, saw {value!r}")
    try:
        return kind(**given)
    except UserError as error:
        raise UserError(f"{origin}: {error}") from None


def at_least_one(name: str, value: int | None) -> None:
    """Raises UserError for an option below 1; None is the policy's own number."""
    if value is not None and value < 1:
        raise UserError(f"{name}: expected at least 1, saw {value}")


def parse_options(text: str, origin: str) -> dict[str, Any]:
    """Names and values for :func:`read_options` from YAML such as ``{device: cuda}``.

    Raises:
        UserError: no mapping.
    """
    given = parse_yaml(text, origin) if text.strip() else {}
    if not isinstance(given, dict):
        raise UserError(f"{origin}: expected a mapping such as '{{device: cuda}}', saw '{text}'")
    return given


def _is_a(value: Any, hint: Any) -> bool:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return any(_is_a(value, one) for one in typing.get_args(hint))
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is Path:
        return isinstance(value, (str, Path))
    return type(value) is hint


def _words(hint: Any) -> str:
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    found = [words.get(one, "") for one in typing.get_args(hint) or (hint,)]
    return " or ".join(word for word in found if word) or str(hint)


def given_options(options: Options) -> dict[str, Any]:
    """The options that differ from the defaults, as :func:`read_options` takes them."""
    return {
        field.name: value
        for field in dataclasses.fields(options)
        if (value := getattr(options, field.name)) != field.default
    }
