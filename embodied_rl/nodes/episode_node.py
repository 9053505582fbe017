"""Conducts episodes over services and shows how they went; ends when the last one is over.

For each episode: pause the simulator, open a bag, reset simulator, gate and policy, go on, wait for
the outcome, close the bag. Every step is acknowledged before the next, so nothing of one episode
can end up in another.
"""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rich import box
from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from embodied_rl.bags.pictures import write_strip
from embodied_rl.core.checkpoint import atomic_write
from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import EpisodeInfo, Outcome
from embodied_rl.nodes import qos
from embodied_rl.nodes.patience import Patience
from embodied_rl.nodes.process import Stop, parameter, run

SERVICE_DEADLINE_S = 60.0  # paced by the wall clock; in lockstep nothing has a deadline
CONNECT_S = 20.0  # how long nodes may take to find each other's topics, on a busy machine
SETTLE_S = 0.5
SHOWN = 10  # episodes in the table
PICTURE = "plan_view_node/picture"
PICTURE_PATIENCE_S = 10.0  # the last messages of an episode may still be on their way


class Interrupted(Exception):
    """Ctrl-C while waiting; not an error."""


@dataclass
class Row:
    """One episode of the table."""

    info: EpisodeInfo
    outcome: Outcome | None = None
    wall_s: float = 0.0
    report: dict = field(default_factory=dict)  # the policy node's figures
    bag: dict = field(default_factory=dict)  # path and counts of the recorder

    @property
    def simulated_s(self) -> float:
        return max(self.report.get("ticks", 0) - 1, 0) * self.report.get("period_s", 0.0)

    def rates(self) -> list[str]:
        """Delivered Hz and name of each stream: as recorded, else as the policy saw it."""
        if self.bag and self.simulated_s:
            return [
                f"{(count - 1) / self.simulated_s:.1f} {topic}"
                for topic, count in sorted(self.bag["counts"].items())
                if topic in self.bag["streams"]
            ]
        ends = ".rate_hz"
        return [
            f"{value:.1f} {key[: -len(ends)]}"
            for key, value in self.report.items()
            if key.endswith(ends)
        ]

    def result(self) -> dict:
        """The finished episode's entry in ``episodes.json``."""
        assert self.outcome is not None
        return {
            "episode": self.info.episode,
            "trial": self.info.trial,
            "seed": self.info.seed,
            "success": self.outcome.success,
            "reason": self.outcome.reason,
            "steps": self.report["ticks"] - 1,
            "real_time_factor": round(self.simulated_s / max(self.wall_s, 1e-9), 2),
            "delivered": self.rates(),
            "bag": self.bag.get("path", ""),
            "policy_node": self.report,
        }


def in_trials(rows: Iterable[Row]) -> bool:
    """Whether several episodes in a row share one world."""
    return any(row.info.trial != row.info.episode for row in rows)


class EpisodeNode(Node):
    def __init__(self, stop: Stop):
        super().__init__("episode_node")
        self._stop = stop
        self._episodes = parameter(self, "episodes", 0, "how many; 0: until interrupted")
        mode = parameter(self, "mode", "lockstep", "clock mode", ("realtime", "lockstep"))
        self._lockstep = mode == "lockstep"
        self._record = parameter(self, "record", False, "write a bag of each episode")
        monitor = parameter(self, "monitor", False, "a stl_monitor_node watches each episode")
        self._pictures = parameter(self, "pictures", False, "have a picture drawn of each episode")
        self._out = Path(parameter(self, "out", "runs/latest", "folder of results and bags"))
        self._outcome: Outcome | None = None
        self.create_subscription(String, "episode/outcome", self._on_outcome, qos.LATCHED)
        # Those who must have heard of an episode before its time runs.
        self._informed = ["policy_node/reset_episode"]
        if monitor:
            self._informed.append("stl_monitor_node/reset_episode")
        self._service_clients = {}
        for kind, names in (
            (SetBool, ["sim/pause"]),
            (
                Trigger,
                [
                    "sim/reset",
                    *self._informed,
                    "policy_node/episode_report",
                    "command_gate_node/reset_episode",
                    *(["recorder_node/start", "recorder_node/stop"] if self._record else []),
                    *([PICTURE] if self._pictures else []),
                ],
            ),
        ):
            for name in names:
                self._service_clients[name] = self.create_client(kind, name)
        self._rows: deque[Row] = deque(maxlen=SHOWN)
        # As text: the dictionaries of a long run would take several times the memory.
        self._results: list[str] = []
        self._successes = 0
        self._bags: list[str] = []  # the first and the last one
        # Into a file or a pipe there is no width to respect.
        self._console = Console() if sys.stdout.isatty() else Console(width=120)

    def _on_outcome(self, message: String) -> None:
        self._outcome = Outcome.from_yaml(message.data, "episode/outcome")

    # Conducting

    def conduct(self, stop: Stop) -> None:
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)
        try:
            with Live(console=self._console, refresh_per_second=4) as self._live:
                self._all_episodes()
        except Interrupted:
            self.get_logger().info("interrupted")
        if self._rows:
            self._write_results()

    def _wait_for_services(self) -> None:
        """A service can be seen before it sees its caller; an answer of that moment is lost."""
        for name, client in self._service_clients.items():
            patience = self._patience(SERVICE_DEADLINE_S)
            while not client.service_is_ready():
                self._spin()
                patience.check(f"{name}: no such service")
        settled_s = time.monotonic() + SETTLE_S
        while time.monotonic() < settled_s:
            self._spin()

    def _all_episodes(self) -> None:
        self._wait_for_services()
        while not self._episodes or len(self._results) < self._episodes:
            self._one_episode()
        self._call("sim/pause", True)

    def _one_episode(self) -> None:
        self._call("sim/pause", True)
        if self._record:
            self._call("recorder_node/start")
        info = EpisodeInfo.from_yaml(self._call_when_connected("sim/reset"), "sim/reset")
        self._call_when_connected("command_gate_node/reset_episode")
        for name in self._informed:
            self._wait_until_known(name, info)
        row = Row(info)
        self._rows.append(row)
        self._outcome = None
        began_s = time.monotonic()
        self._call("sim/pause", False)
        while self._outcome is None:
            self._spin()
            row.wall_s = time.monotonic() - began_s
            self._live.update(self._table())
        row.report = yaml.safe_load(self._call("policy_node/episode_report"))
        if self._record:
            row.bag = yaml.safe_load(self._call("recorder_node/stop"))
        row.outcome = self._outcome
        self._keep(row)
        self._live.update(self._table())
        if self._pictures:
            line = f"episode {info.episode}: {self._picture()}"
            self._live.console.print(line, soft_wrap=True, highlight=False)

    def _keep(self, row: Row) -> None:
        result = row.result()
        self._results.append(json.dumps(result))
        self._successes += result["success"]
        if result["bag"]:
            self._bags = [*self._bags[:1], result["bag"]]

    def _picture(self) -> str:
        """Where the picture of the episode is, or why there is none; no reason to end the run."""
        deadline_s = time.monotonic() + PICTURE_PATIENCE_S
        while not (answer := self._try_call(PICTURE)).success:
            if time.monotonic() > deadline_s:
                return f"no picture: {answer.message}"
            self._spin()
        return answer.message

    def _wait_until_known(self, name: str, info: EpisodeInfo) -> None:
        """The announcement travels on a topic of its own; go on when the node has it."""
        patience = self._patience(SERVICE_DEADLINE_S)
        while True:
            answer = self._try_call(name)
            if answer.success:
                known = EpisodeInfo.from_yaml(answer.message, name)
                if known.start_ns >= info.start_ns:
                    return
            patience.check(f"{name}: not in episode {info.episode}: {answer.message}")
            self._spin()

    def _call_when_connected(self, name: str) -> str:
        """Ask again as long as the node says which of its topics are not connected yet."""
        patience = self._patience(CONNECT_S)
        while not (answer := self._try_call(name)).success:
            patience.check(f"{name}: {answer.message}")
            self._spin()
        return answer.message

    def _call(self, name: str, data: bool | None = None) -> str:
        answer = self._try_call(name, data)
        if not answer.success:
            raise UserError(f"{name}: {answer.message}")
        return answer.message

    def _try_call(self, name: str, data: bool | None = None):
        client = self._service_clients[name]
        patience = self._patience(SERVICE_DEADLINE_S)
        request = Trigger.Request() if data is None else SetBool.Request(data=data)
        future = client.call_async(request)
        while not future.done():
            self._spin()
            patience.check(f"{name}: no answer")
        return future.result()

    def _patience(self, limit_s: float) -> Patience:
        return Patience(self, None if self._lockstep else limit_s)

    def _spin(self) -> None:
        if self._stop:
            raise Interrupted
        self._executor.spin_once(timeout_sec=0.05)

    # Showing

    def _table(self) -> Table:
        table = Table(
            title="episodes", title_justify="left", box=box.SIMPLE_HEAD, collapse_padding=True
        )
        # Only names and reasons give way to a narrow terminal; a figure is never cut.
        table.add_column("episode", justify="right", no_wrap=True)
        if in_trials(self._rows):
            table.add_column("trial", justify="right", no_wrap=True)
        table.add_column("success", max_width=16)
        for name in ("steps", "real-\ntime"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("delivered, Hz")
        table.add_column("latency\nms", justify="right", no_wrap=True)
        table.add_column("deadline\nmisses", justify="right", no_wrap=True)
        for row in self._rows:
            table.add_row(*self._cells(row))
        return table

    def _cells(self, row: Row) -> list[RenderableType]:
        numbers = [str(row.info.episode), *([str(row.info.trial)] if in_trials(self._rows) else [])]
        if row.outcome is None:
            return [*numbers, "...", "", f"{row.wall_s:.1f} s", "", "", ""]
        report = row.report
        colour = "green" if row.outcome.success else "red"
        verdict = "yes" if row.outcome.success else f"no: {row.outcome.reason}"
        p50, p95 = report.get("latency_p50_ms"), report.get("latency_p95_ms")
        return [
            *numbers,
            f"[{colour}]{verdict}[/]",
            str(report["ticks"] - 1),
            f"x{row.simulated_s / max(row.wall_s, 1e-9):.1f}",
            Text("\n".join(row.rates()), no_wrap=True, overflow="ellipsis"),
            f"p50 {p50:.1f}\np95 {p95:.1f}" if p50 is not None else "",
            str(report["deadline_misses"]),
        ]

    def _write_results(self) -> None:
        with atomic_write(self._out / "episodes.json") as temporary:
            temporary.write_text("[\n" + ",\n".join(self._results) + "\n]\n", encoding="utf-8")
        count = len(self._results)
        counted = f"{self._successes} of {count} episodes succeeded"
        lines = [f"{counted if count else 'no episode was finished'}; {self._out}/episodes.json"]
        if self._bags:
            lines.append(f"bags: {Path(self._bags[0]).parent}")
            strip = write_strip(Path(self._bags[-1]), self._out / "episode.png")
            lines.append(f"picture: {strip}" if strip else "picture: no camera was recorded")
        if not self._console.is_terminal:
            self._console.print()  # the last table ends without a line break there
        for line in lines:
            self._console.print(line, soft_wrap=True, highlight=False)


def main() -> int:
    return run(EpisodeNode, EpisodeNode.conduct)


if __name__ == "__main__":
    sys.exit(main())
