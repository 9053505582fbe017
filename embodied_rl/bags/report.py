"""What was found wrong with a bag, one line for each kind of finding.

A recording is rarely all sound or all useless. Every reader of this package goes on as far as the
data are sound and leaves a line here that names the bag, the topic, what was expected and what was
seen. A fault that repeats (a wrong encoding on every frame) stays one line with a count.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field

from embodied_rl.core.schema import plain

LONGEST_LINE = 2000  # characters; names and texts of a bag may be of any length


@dataclass
class Finding:
    """One line of a report. ``damage`` is False for remarks that cost no data."""

    bag: str
    topic: str
    text: str  # "expected ..., saw ..."
    damage: bool = True
    count: int = 1

    def line(self) -> str:
        place = f"{self.bag}: {self.topic}" if self.topic else self.bag
        times = f" ({self.count} times)" if self.count > 1 else ""
        return plain(f"{place}: {self.text}{times}", LONGEST_LINE)


@dataclass
class Report:
    """Findings of one bag in the order of first appearance; equal ones are counted, not repeated.

    ``bag`` is the name that the lines carry.
    """

    bag: str
    findings: list[Finding] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)  # what is no fault, but should be known
    _index: dict[tuple[str, str], Finding] = field(default_factory=dict, repr=False)

    def add(
        self, topic: str, expected: str, seen: str, *, damage: bool = True, once: bool = False
    ) -> None:
        """Note one finding. With ``once``, findings of one topic and ``expected`` share a line,
        which keeps what was seen the first time; otherwise only equal ones do."""
        text = f"expected {expected}, saw {seen}"
        self._add(topic, text, expected if once else text, damage)

    def remark(self, text: str) -> None:
        """Note what is no fault of the bag but limits what can be said about it."""
        if text not in self.remarks:
            self.remarks.append(text)

    def add_error(self, topic: str, error: Exception) -> None:
        """Note a message that was refused; equal refusals of a topic share a line."""
        text = str(error)
        for prefix in (self.bag, topic, topic.lstrip("/")):
            text = text.removeprefix(f"{prefix}: ")
        self._add(topic, text, text.split(", saw ")[0], True)

    def _add(self, topic: str, text: str, kind: str, damage: bool) -> None:
        known = self._index.get((topic, kind))
        if known is not None:
            known.count += 1
            return
        finding = Finding(self.bag, topic, text, damage)
        self._index[(topic, kind)] = finding
        self.findings.append(finding)

    def copy(self) -> Report:
        """The findings so far, for :meth:`restore`."""
        return deepcopy(self)

    def restore(self, earlier: Report) -> None:
        """Forget what has been found since the copy was made: it will be found again. What is
        wrong with the files themselves is said once and stays."""
        files = [f for key, f in self._index.items() if key not in earlier._index]
        self.findings, self._index = earlier.findings, earlier._index
        for finding in files:
            if finding.damage and not finding.topic:
                self._index[("", finding.text)] = finding
                self.findings.append(finding)

    @property
    def damaged(self) -> bool:
        return any(finding.damage for finding in self.findings)

    def lines(self) -> list[str]:
        """The findings."""
        return [finding.line() for finding in self.findings]

    def all_lines(self) -> list[str]:
        """The findings, and behind them the remarks."""
        remarks = [plain(f"{self.bag}: {text}", LONGEST_LINE) for text in self.remarks]
        return [*self.lines(), *remarks]
