"""A recording through the monitor, with what it knew at each step written down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from embodied_rl.core.signals import Slot
from embodied_rl.core.window import Arrival, Sample
from embodied_rl.stl.events import Event
from embodied_rl.stl.monitor import SpecificationMonitor, Status
from embodied_rl.stl.spec import Specification


@dataclass
class Replay:
    """What a monitor saw and said. ``statuses[i]`` are the clauses after slot ``slots[i]``,
    ``estimates[formula][i]`` what was predicted then, and ``open_steps`` the whole formulas at the
    steps still in memory at the end."""

    spec: Specification
    slots: list[Slot] = field(default_factory=list)
    statuses: list[list[Status]] = field(default_factory=list)
    estimates: dict[str, list[float | None]] = field(default_factory=dict)
    open_steps: list[Status] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    arrivals: Counter[Arrival] = field(default_factory=Counter)
    out_of_bounds: Counter[str] = field(default_factory=Counter)

    def history(self, formula: str) -> list[tuple[int, Status]]:
        """Of the whole formula: in episode mode what was known of it after each slot, with the
        slot's stamp in ns; in sliding mode what is known at last of each step, with its stamp."""
        whole = [
            (slot.stamp_ns, status)
            for slot, statuses in zip(self.slots, self.statuses)
            for status in statuses
            if status.formula == formula and not status.clause.path
        ]
        if self.spec.mode == "episode":
            return whole
        newest = {status.anchor_ns: status for _, status in whole}
        newest.update({s.anchor_ns: s for s in self.open_steps if s.formula == formula})
        return sorted(newest.items())


def replay(
    spec: Specification, samples: Iterable[tuple[str, Sample]], start_ns: int | None
) -> Replay:
    """Run samples, in the order of their arrival, through a fresh monitor.

    Args:
        samples: stream key and sample.
        start_ns: of the episode; default: when every stream has spoken.
    """
    record = Replay(spec)

    def note(monitor: SpecificationMonitor) -> None:
        assert monitor.slot is not None
        record.slots.append(monitor.slot)
        record.statuses.append(monitor.status())
        for name in spec.formulas:
            record.estimates.setdefault(name, []).append(monitor.estimate(name))

    monitor = SpecificationMonitor(spec, note)
    monitor.start(start_ns)
    for key, sample in samples:
        record.events += monitor.add(key, sample)
    record.events += monitor.finish()
    record.open_steps = monitor.open_steps()
    record.arrivals = monitor.sampler.counts
    record.out_of_bounds = monitor.sampler.out_of_bounds
    return record
