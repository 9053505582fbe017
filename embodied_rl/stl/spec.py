"""The specification file: formulas over the signals of a robot, and how they are watched.

::

    name: return_home
    description: what every episode of the task must keep
    dt_s: 0.1                      # step of the formulas; samples are taken on its multiples
    mode: episode                  # each formula once, from the episode's start; or `sliding`:
                                   # at every step, for ever
    formulas:
      above_table: G[0,8] tool_height > 0.01
      reaches_hub: F[0,8] tool_to_hub < 0.07
    signals: {...}                 # see embodied_rl.core.signals

Optional: ``until: inclusive`` (default strict), ``grid: start`` (samples are taken at the start and
every ``dt_s`` after it; default ``clock``, the multiples of ``dt_s``), ``lateness_s`` (how long a
sample may be overtaken by others, default two steps), ``predictor: hold | linear`` (see
embodied_rl.stl.monitor, default none); for ``sliding``: ``hysteresis`` (margin that ends a
violation, default 0) and ``debounce`` (steps that must keep it, default 5).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from embodied_rl.core.embodiment import NANOSECONDS, Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.schema import Section, parse_yaml, read_text
from embodied_rl.core.signals import SignalSet, parse_signals
from embodied_rl.stl import formula as fm
from embodied_rl.stl.formula import Formula
from embodied_rl.stl.parse import FormulaError, parse
from embodied_rl.stl.text import infix

MODES = ("episode", "sliding")
UNTILS = ("strict", "inclusive")
GRIDS = ("clock", "start")
PREDICTORS = ("none", "hold", "linear")


@dataclass(frozen=True)
class Specification:
    """A validated specification file. Make one with :func:`load` or :func:`parse_specification`."""

    name: str
    formulas: dict[str, Formula]
    signals: SignalSet  # those that the formulas read
    dt_s: float
    mode: str = "episode"
    until: str = "strict"
    grid: str = "clock"
    lateness_s: float = 0.0
    hysteresis: float = 0.0
    debounce: int = 5
    predictor: str = "none"
    description: str = ""

    @property
    def dt_ns(self) -> int:
        return round(self.dt_s * NANOSECONDS)

    def asks_the_same_as(self, other: Specification) -> bool:
        """Whether the formulas are the same, whatever their names."""
        mine, theirs = self.formulas.values(), other.formulas.values()
        return [*mine] == [*theirs] and self.signals == other.signals and self.dt_s == other.dt_s

    def content_hash(self) -> str:
        """Hash of what fixes a robustness and its prediction, 16 hex digits; topics are left out,
        so that what was measured in a simulator holds for a robot with other topic names."""
        signals = self.signals.signals.items()
        content = {
            "formulas": {name: infix(f, self.dt_s) for name, f in self.formulas.items()},
            "signals": {name: asdict(signal) for name, signal in signals},
            "sampling": [self.dt_s, self.mode, self.grid, self.predictor],
        }
        canonical = json.dumps(content, sort_keys=True).encode()
        return hashlib.sha256(canonical).hexdigest()[:16]


def load(path: str | Path, embodiment: Embodiment) -> Specification:
    """Read and validate a file.

    Raises:
        UserError: the file is missing or not YAML, a key is unknown, missing or unsound, a formula
            does not parse, or a signal is not declared; names file and key.
    """
    path = Path(path)
    return parse_specification(read_text(path), embodiment, str(path))


def parse_specification(text: str, embodiment: Embodiment, origin: str) -> Specification:
    """Validate the YAML ``text``; ``origin`` is the file name that errors carry."""
    root = Section(origin, "", parse_yaml(text, origin))
    dt_s = root.positive("dt_s")
    until = _choice(root, "until", UNTILS)
    declared = parse_signals(root.children("signals"), embodiment)
    formulas = _formulas(root, dt_s, until)
    for name, formula in formulas.items():  # one by one, so that an error names the formula
        declared.select(fm.signal_names(formula), f"{origin}: formulas.{name}")
    used = sorted({name for formula in formulas.values() for name in fm.signal_names(formula)})
    if not used:
        root.fail("formulas", "at least one signal in them", "constants only")
    late = root.value("lateness_s", None) is not None
    specification = Specification(
        name=root.text("name"),
        formulas=formulas,
        signals=declared.select(used, origin),
        dt_s=dt_s,
        mode=_choice(root, "mode", MODES),
        until=until,
        grid=_choice(root, "grid", GRIDS),
        lateness_s=root.positive("lateness_s") if late else 2 * dt_s,
        hysteresis=root.at_least_zero("hysteresis", 0.0),
        debounce=_count(root, "debounce", 5),
        predictor=_choice(root, "predictor", PREDICTORS),
        description=root.text("description", default=""),
    )
    root.done()
    return specification


def _formulas(root: Section, dt_s: float, until: str) -> dict[str, Formula]:
    data = root.value("formulas")
    if not isinstance(data, dict) or not data:
        root.fail("formulas", "a mapping of names to formulas", data)
    found = {}
    for name, text in data.items():
        if not isinstance(name, str) or not isinstance(text, str):
            root.fail(f"formulas.{name}", "a formula in text", repr(text))
        if "," in name or not name:  # names are listed with commas between them
            root.fail(f"formulas.{name}", "a name without a comma", f"'{name}'")
        try:
            formula = parse(text, dt_s)
        except FormulaError as error:
            raise UserError(f"{root.origin}: formulas.{name}: {error}") from None
        found[name] = fm.inclusive(formula) if until == "inclusive" else formula
    return found


def _choice(root: Section, key: str, allowed: tuple[str, ...]) -> str:
    return root.choice(key, allowed) if root.value(key, None) is not None else allowed[0]


def _count(root: Section, key: str, default: int) -> int:
    value = root.value(key, default)
    if type(value) is not int or value < 1:
        root.fail(key, "a whole number of 1 or more", value)
    return value
