"""Makes pictures of the README and of docs/: ``python docs/make_pictures.py [NAME ...]``.

``replace_object``: one episode of the shipped policy, seen by a camera for people at six moments,
evenly spread. ``apartment``: a home, and what the robot in it sees.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from embodied_rl.core.checkpoint import atomic_write
from embodied_rl.core.policy import episode_seed
from embodied_rl.policies.registry import load_policy
from embodied_rl.sim.registry import make_simulator
from embodied_rl.sim.rollout import rollout

MODEL, TASK, SEED, EPISODE = "ptp_replace_object", "replace_object", 0, 2
WIDTH, HEIGHT, COLUMNS, ROWS = 426, 320, 3, 2
HOME, START = 2, 20  # trial and seed of the picture of the apartment


def replace_object() -> Image.Image:
    simulator = make_simulator("tabletop", TASK)
    policy = load_policy(MODEL, simulator.embodiment, TASK)
    seed, pictures = episode_seed(SEED, EPISODE), []

    def look(*_: object) -> None:
        pictures.append(simulator.render("hero", WIDTH, HEIGHT, "picture"))

    result = rollout(simulator, policy, EPISODE, seed, on_tick=look)
    simulator.close()
    if not result.outcome.success:
        raise SystemExit(f"episode {EPISODE} failed ({result.outcome.reason}); choose another")
    chosen = np.linspace(4, len(pictures) - 1, COLUMNS * ROWS).round().astype(int)
    rows = np.array_split(np.array(pictures)[chosen], ROWS)
    sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
    return Image.fromarray(sheet).quantize(192)


def apartment() -> Image.Image:
    simulator = make_simulator("apartment", "find_object")
    simulator.reset(START, HOME)
    home = simulator.render("hero", 720, 540, "picture")
    seen = simulator.render("front", 480, 270, "picture")
    behind = simulator.render("chase", 480, 270, "picture")
    simulator.close()
    sheet = np.concatenate([home, np.concatenate([seen, behind])], axis=1)
    return Image.fromarray(sheet)  # fewer colours would take those of the small objects


PICTURES = {"replace_object": replace_object, "apartment": apartment}


def main(*names: str) -> None:
    for name in names or PICTURES:
        with atomic_write(Path(__file__).parent / f"{name}.png") as path:
            PICTURES[name]().save(path, format="PNG", optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
