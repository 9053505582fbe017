"""Does a single observation tell what must be remembered? A classifier tries.

At the decision (the tick at which the wait over the hub ends) the pad that the cube came from must
not be readable from one row of the state, nor from one camera image; otherwise the task needs no
memory and every comparison of policies on it is void. As a positive control the same classifiers
get the row shortly after pick-up, where the pad is plain to see: they must find it there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from embodied_rl.core.policy import ActionChunk, episode_seed
from embodied_rl.core.window import Observation
from embodied_rl.sim.mujoco_sim import MujocoSimulator
from embodied_rl.sim.registry import make_simulator
from embodied_rl.sim.rollout import rollout
from embodied_rl.sim.tasks.expert import make_expert
from embodied_rl.training.statistics import wilson_interval

# moment -> (leg that has just ended, leg that begins)
MOMENTS = {"after_pick_up": ("lift", "via"), "decision": ("hold", "via")}
IMAGE_SIZE = 128
FOLDS = 5
MAX_COMPONENTS = 30  # of an image, so that there are far fewer features than episodes


@dataclass(frozen=True)
class Verdict:
    """Cross-validated accuracy of one classifier on one kind of observation at one moment."""

    moment: str
    view: str
    classifier: str
    correct: int
    total: int
    low: float  # Wilson 95 % interval
    high: float

    @property
    def accuracy(self) -> float:
        return self.correct / self.total

    @property
    def at_chance(self) -> bool:
        return self.low <= 0.5 <= self.high


@dataclass(frozen=True)
class Dataset:
    """Single observations of ``N`` episodes: ``views[moment][view]`` is ``(N, F)``."""

    labels: np.ndarray  # (N,) 0 or 1: the pad
    views: dict[str, dict[str, np.ndarray]]


def collect(episodes: int, seed: int = 0, cameras: Sequence[str] = ()) -> Dataset:
    """Rows (and images) of the expert at the audited moments of ``replace_object``.

    Args:
        episodes: how many.
        seed: of the run.
        cameras: names of cameras whose images to take along.
    """
    sim = make_simulator("tabletop", "replace_object")
    try:
        gathered = [_episode(sim, episode, seed, cameras) for episode in range(episodes)]
    finally:
        sim.close()
    moments = {
        moment: {
            view: np.stack([found[moment][view] for _, found in gathered])
            for view in gathered[0][1][moment]
        }
        for moment in MOMENTS
    }
    return Dataset(np.array([label for label, _ in gathered]), moments)


def _episode(
    sim: MujocoSimulator, episode: int, seed: int, cameras: Sequence[str]
) -> tuple[int, dict[str, dict[str, np.ndarray]]]:
    expert = make_expert("replace_object", sim.embodiment)
    found: dict[str, dict[str, np.ndarray]] = {}
    before = [""]

    def on_tick(_observation: Observation, _chunk: ActionChunk | None) -> bool:
        for moment, legs in MOMENTS.items():
            if (before[0], expert.leg) == legs:
                found[moment] = _views(sim, cameras)
        before[0] = expert.leg
        return len(found) == len(MOMENTS)

    rollout(sim, expert, episode, episode_seed(seed, episode), on_tick=on_tick)
    if len(found) < len(MOMENTS):
        raise RuntimeError(f"episode {episode} of seed {seed}: the expert did not reach the hub")
    return sim.task.own_pad, found


def _views(sim: MujocoSimulator, cameras: Sequence[str]) -> dict[str, np.ndarray]:
    """What a policy could see at this tick: the whole state row ``(F,)``, images ``(F,)``."""
    samples = sim.read()  # every stream is due at a control tick
    views = {"state": np.concatenate([samples[key].value.ravel() for key in sim.streams])}
    for camera in cameras:
        image = sim.render(camera, IMAGE_SIZE, IMAGE_SIZE)
        views[camera] = image.astype(np.float32).ravel() / 255
    return views


def audit(dataset: Dataset, seed: int = 0) -> list[Verdict]:
    """Cross-validated verdicts: every moment, every view, both classifiers."""
    verdicts = []
    for moment, views in dataset.views.items():
        for view, features in views.items():
            for name, classify in CLASSIFIERS.items():
                correct = _cross_validate(classify, features, dataset.labels, seed)
                low, high = wilson_interval(correct, len(dataset.labels))
                total = len(dataset.labels)
                verdicts.append(Verdict(moment, view, name, correct, total, low, high))
    return verdicts


def _cross_validate(classify, features: np.ndarray, labels: np.ndarray, seed: int) -> int:
    """Number of episodes ``(N, F)`` whose label a classifier trained on the others finds."""
    order = np.random.default_rng(seed).permutation(len(labels))
    correct = 0
    for fold in range(FOLDS):
        test = order[fold::FOLDS]
        train = np.setdiff1d(order, test)
        known, unknown = _prepared(features[train], features[test])
        guesses = classify(known, labels[train], unknown, seed)
        correct += int(np.sum(guesses == labels[test]))
    return correct


def _prepared(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standardised by the training part; images reduced to its principal components."""
    centre = train.mean(axis=0)
    known, unknown = train - centre, test - centre
    if train.shape[1] > 4 * MAX_COMPONENTS:
        # through the (N, N) Gram matrix: images have far more pixels than there are episodes
        strengths, vectors = np.linalg.eigh(known @ known.T)
        best = slice(-1, -1 - MAX_COMPONENTS, -1)
        axes = known.T @ (vectors[:, best] / np.sqrt(strengths[best]))  # (F, components)
        known, unknown = known @ axes, unknown @ axes
    scale = known.std(axis=0) + 1e-9
    return known / scale, unknown / scale


def _train(model: torch.nn.Module, known: np.ndarray, labels: np.ndarray, decay: float) -> None:
    inputs, wanted = torch.from_numpy(known).float(), torch.from_numpy(labels).float()
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=decay)
    for _ in range(TRAIN_STEPS):
        optimiser.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(inputs)[:, 0], wanted)
        loss.backward()
        optimiser.step()


def _guess(model: torch.nn.Module, unknown: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return (model(torch.from_numpy(unknown).float())[:, 0] > 0).numpy().astype(np.int64)


def _logistic_regression(known, labels, unknown, seed: int) -> np.ndarray:
    torch.manual_seed(seed)
    model = torch.nn.Linear(known.shape[1], 1)
    _train(model, known, labels, decay=0.1)
    return _guess(model, unknown)


def _perceptron(known, labels, unknown, seed: int) -> np.ndarray:
    torch.manual_seed(seed)
    model = torch.nn.Sequential(
        torch.nn.Linear(known.shape[1], 32), torch.nn.Tanh(), torch.nn.Linear(32, 1)
    )
    _train(model, known, labels, decay=1.0)
    return _guess(model, unknown)


TRAIN_STEPS = 200
CLASSIFIERS = {"logistic_regression": _logistic_regression, "perceptron": _perceptron}
