"""Makes the pictures of the README: ``python docs/make_pictures.py``.

One episode of the shipped policy, seen by a camera for people at six moments, evenly spread.
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


def main(model: str = MODEL) -> None:
    simulator = make_simulator("tabletop", TASK)
    policy = load_policy(model, simulator.embodiment, TASK)
    seed, pictures = episode_seed(SEED, EPISODE), []

    def look(*_: object) -> None:
        pictures.append(simulator.render("hero", WIDTH, HEIGHT, "picture"))

    result = rollout(simulator, policy, EPISODE, seed, on_tick=look)
    if not result.outcome.success:
        raise SystemExit(f"episode {EPISODE} failed ({result.outcome.reason}); choose another")
    chosen = np.linspace(4, len(pictures) - 1, COLUMNS * ROWS).round().astype(int)
    rows = np.array_split(np.array(pictures)[chosen], ROWS)
    sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
    with atomic_write(Path(__file__).parent / f"{TASK}.png") as path:
        Image.fromarray(sheet).quantize(192).save(path, format="PNG", optimize=True)
    simulator.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
