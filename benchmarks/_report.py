"""What every benchmark ends with: a table figure / target / held, JSON, and the exit code."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from embodied_rl.core.checkpoint import atomic_write

Target = tuple[str, float]  # (">=" or "<=", bound)


def machine() -> dict[str, object]:
    """What a figure depends on besides the code."""
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        processor = names[0].split(":", 1)[1].strip() if names else processor
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "mujoco", "torch")},
    }


def report(
    name: str,
    figures: Mapping[str, float],
    targets: Mapping[str, Target],
    json_path: Path | None = None,
    series: Mapping[str, object] | None = None,
) -> int:
    """Print the figures beside their targets and write them as JSON.

    Args:
        name: of the benchmark.
        figures: figure -> value; units are part of the figure's name.
        targets: figure -> (">=" or "<=", bound); every target has its figure.
        series: what was measured along the way, for the JSON alone.

    Returns:
        0, or 1 if a target is missed.
    """
    held = {
        figure: figures[figure] >= bound if relation == ">=" else figures[figure] <= bound
        for figure, (relation, bound) in targets.items()
    }
    table = Table(title=f"bench {name}", title_justify="left")
    for column in ("figure", "value", "target", "held"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for figure, value in figures.items():
        cells = ["", ""]
        if figure in targets:
            relation, bound = targets[figure]
            verdict = "[green]yes[/]" if held[figure] else "[red]no[/]"
            cells = [f"{relation} {bound:g}", verdict]
        table.add_row(figure, f"{value:.4g}", *cells)
    Console().print(table)
    if json_path is not None:
        result = {
            "name": name,
            "figures": dict(figures),
            "targets": {figure: f"{r} {bound:g}" for figure, (r, bound) in targets.items()},
            "held": all(held.values()),
            **({"series": dict(series)} if series else {}),
            "machine": machine(),
        }
        with atomic_write(json_path) as temporary:
            temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0 if all(held.values()) else 1
