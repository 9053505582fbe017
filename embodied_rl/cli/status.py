"""``embodied_rl status``: what the nodes of a running graph report, once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Options:
    """Show what every node of the running graphs reports on /diagnostics: what it is doing, why it
    holds or waits, rates of the streams, commands sent and refused.

    Example: embodied_rl status
    """

    timeout_s: float = 5.0
    """how long to wait for the first report"""


def main(argv: list[str]) -> int:
    """Returns 0 when something was reported."""
    import tyro

    from embodied_rl.cli.operate import ask

    options = tyro.cli(Options, args=argv, prog="embodied_rl status")
    return ask("status", "", options.timeout_s)
