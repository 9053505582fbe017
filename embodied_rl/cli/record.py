"""``embodied_rl record start|stop|discard|keys``: episodes of a graph that records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

WORDS = {"start": "start", "stop": "finish", "discard": "discard", "keys": "keys"}


@dataclass
class Options:
    """Begin, end or throw away a bag of the running recorder, or do it all by single keys.

    The graph is one of 'embodied_rl launch record', or of 'launch robot' with record:=true.
    Example: embodied_rl record keys
    """

    what: Literal["start", "stop", "discard", "keys"]
    """start a bag, stop it (then it is complete), discard the one that is open, or keys: space
    begins and ends an episode, d discards it, q quits"""
    namespace: str = ""
    """namespace of the robot"""
    timeout_s: float = 5.0
    """how long to look for the recorder"""


def main(argv: list[str]) -> int:
    """Returns 0 when the recorder has confirmed it."""
    import tyro

    from embodied_rl.cli.operate import ask

    options = tyro.cli(
        tyro.conf.configure(tyro.conf.PositionalRequiredArgs)(Options),
        args=argv,
        prog="embodied_rl record",
    )
    return ask(WORDS[options.what], options.namespace, options.timeout_s)
