"""What a monitor has to say: one record an event, with one text for equal events."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any


class Kind(Enum):
    """What happened; every kind is said once when it begins, not while it lasts."""

    VIOLATED = "violated"
    SATISFIED = "satisfied"
    AT_RISK = "at_risk"  # the predicted robustness fell below 0 (an estimate)
    RECOVERED = "recovered"  # it rose again; or, in sliding mode, a violation ended
    RESET = "reset"  # the clock was set anew: everything before is forgotten
    STALE = "stale"  # a signal is missing


@dataclass(frozen=True)
class Evidence:
    """Which predicate fixed a verdict, when, by which margin, and the signals then."""

    predicate: str
    stamp_ns: int
    value: float
    signals: dict[str, float]


@dataclass(frozen=True)
class Event:
    """One event of one specification.

    Attributes:
        stamp_ns: of the slot that brought it.
        formula: name of the formula in its file, empty where all are meant.
        path: from the whole formula to the sub-formula, by operand numbers ("" is the whole).
        subformula: in text.
        anchor_ns: the instant at which the sub-formula is violated or satisfied.
        low, high: its robustness interval there, as known at ``stamp_ns``.
        end_ns, worst: of a violation that has ended in sliding mode: its last instant (the first
            is ``anchor_ns``), and the lowest robustness within.
        estimate: predicted robustness, for AT_RISK and its end; no bound.
        signals: that are missing, for STALE.
    """

    event: Kind
    stamp_ns: int
    spec: str
    formula: str = ""
    path: str = ""
    subformula: str = ""
    anchor_ns: int | None = None
    low: float | None = None
    high: float | None = None
    witness: Evidence | None = None
    end_ns: int | None = None
    worst: float | None = None
    estimate: float | None = None
    signals: tuple[str, ...] = field(default=())

    def to_json(self) -> str:
        """One line of JSON; equal events give equal bytes, and what does not apply is left out.

        Infinite numbers, which JSON lacks, are the texts "inf" and "-inf".
        """
        record = asdict(self)
        record["event"] = self.event.value
        kept = {key: _plain(value) for key, value in record.items() if value not in (None, "", ())}
        return json.dumps(kept, allow_nan=False, separators=(", ", ": "))


def _plain(value: Any) -> Any:
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return value
