"""``embodied_rl stop``: the emergency stop of a running graph."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Options:
    """Stop the robot of a running graph, or release it again.

    The stop stays in force until it is released; the gate holds the robot and accepts no command.
    Example: embodied_rl stop; embodied_rl stop --release
    """

    release: bool = False
    """end the stop; nothing moves before the policy's next plan"""
    namespace: str = ""
    """namespace of the robot"""
    timeout_s: float = 5.0
    """how long to look for the command gate"""


def main(argv: list[str]) -> int:
    """Returns 0 when the gate has confirmed it."""
    import tyro

    from embodied_rl.cli.operate import ask

    options = tyro.cli(Options, args=argv, prog="embodied_rl stop")
    return ask("release" if options.release else "stop", options.namespace, options.timeout_s)
