"""Does a single observation tell what must be remembered? A classifier tries.

At the decision (the tick at which a wait ends) what the task asks to remember must not be readable
from one row of the state, nor from one camera image; otherwise the task needs no memory and every
comparison of policies on it is void. As a positive control the same classifiers get a row in which
it does show: they must find it there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch

from embodied_rl.core.policy import ActionChunk, episode_seed
from embodied_rl.core.window import Observation
from embodied_rl.sim.base import choose
from embodied_rl.sim.mujoco_sim import MujocoSimulator
from embodied_rl.sim.registry import make_simulator
from embodied_rl.sim.rollout import rollout
from embodied_rl.sim.tasks.count_pushes import PUSHES
from embodied_rl.sim.tasks.expert import WaypointExpert, make_expert
from embodied_rl.training.statistics import wilson_interval

IMAGE_SIZE = 128
FOLDS = 5
MAX_COMPONENTS = 30  # of an image, so that there are far fewer features than episodes


@dataclass(frozen=True)
class Moment:
    """A tick of an episode: ``ticks`` after the expert went from one leg to another."""

    ended: str
    begins: tuple[str, ...]
    ticks: int = 0


@dataclass(frozen=True)
class Question:
    """What one task asks to remember, and when a look is taken.

    ``label`` reads the answer off the task at the decision. With ``first`` the decision comes
    ``classes`` times in an episode, after that many earlier ones: each episode gives one of them,
    because rows of one episode resemble each other.
    """

    classes: int
    label: Callable[[Any], int]  # of the task
    decision: Moment
    control: Moment
    control_name: str
    control_low: float  # the classifiers' accuracy at the control is above this
    first: int | None = None

    @property
    def moments(self) -> dict[str, Moment]:
        return {self.control_name: self.control, "decision": self.decision}


WAIT_ENDS = Moment("hover", ("push", "done"))
QUESTIONS = {
    "replace_object": Question(  # which pad the cube came from
        classes=2,
        label=lambda task: task.own_pad,
        decision=Moment("hold", ("via",)),
        control=Moment("lift", ("via",)),
        control_name="after_pick_up",
        control_low=0.85,
    ),
    "count_pushes": Question(  # how many pushes are done, 1 to 3
        classes=PUSHES,
        label=lambda task: task.pushes - 1,
        decision=WAIT_ENDS,
        # leaving or not shows then, the count still does not: 2 of 3 at best
        control=replace(WAIT_ENDS, ticks=4),
        control_name="after_leaving",
        control_low=0.45,
        first=1,
    ),
    "return_home": Question(  # which quarter of the half ring the tool started in
        classes=4,
        label=lambda task: task.start_sector,
        decision=Moment("hold", ("home",)),
        control=Moment("start", ("hold",)),
        control_name="at_the_start",
        control_low=0.65,
    ),
}


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
    chance: float = 0.5

    @property
    def accuracy(self) -> float:
        return self.correct / self.total

    @property
    def at_chance(self) -> bool:
        """Not better than chance. Worse is no knowledge either."""
        return self.low <= self.chance


@dataclass(frozen=True)
class Dataset:
    """Single observations of ``N`` episodes: ``views[moment][view]`` is ``(N, F)``."""

    labels: np.ndarray  # (N,) 0 .. classes - 1
    views: dict[str, dict[str, np.ndarray]]
    classes: int = 2


def collect(
    episodes: int, seed: int = 0, cameras: Sequence[str] = (), task: str = "replace_object"
) -> Dataset:
    """Rows (and images) of the expert at the audited moments of a task.

    Args:
        episodes: how many.
        seed: of the run.
        cameras: names of cameras whose images to take along.
        task: one of ``QUESTIONS``.
    """
    question = QUESTIONS[choose("task to audit", task, QUESTIONS)]
    sim = make_simulator("tabletop", task)
    try:
        gathered = [_episode(sim, episode, seed, cameras) for episode in range(episodes)]
    finally:
        sim.close()
    moments = {
        moment: {
            view: np.stack([found[moment][view] for _, found in gathered])
            for view in gathered[0][1][moment]
        }
        for moment in question.moments
    }
    return Dataset(np.array([label for label, _ in gathered]), moments, question.classes)


def _episode(
    sim: MujocoSimulator, episode: int, seed: int, cameras: Sequence[str]
) -> tuple[int, dict[str, dict[str, np.ndarray]]]:
    question = QUESTIONS[sim.task_name]
    expert = cast(WaypointExpert, make_expert(sim.task_name, sim.embodiment))
    # episodes are independent of their number, so taking turns makes the classes equally many
    skipped = 0 if question.first is None else question.first + episode % question.classes
    found: dict[str, dict[str, np.ndarray]] = {}
    labels: list[int] = []
    due: dict[str, int] = {}  # moment -> ticks until it
    before, passed = "", dict.fromkeys(question.moments, 0)

    def on_tick(_observation: Observation, _chunk: ActionChunk | None) -> bool:
        nonlocal before
        for name, moment in question.moments.items():
            if before == moment.ended and expert.leg in moment.begins:
                if passed[name] == skipped:
                    due[name] = moment.ticks
                passed[name] += 1
            if due.get(name) == 0:
                found[name] = _views(sim, cameras)
                if name == "decision":
                    labels.append(question.label(sim.task))
            if name in due:
                due[name] -= 1
        before = expert.leg
        return len(found) == len(question.moments)

    rollout(sim, expert, episode, episode_seed(seed, episode), on_tick=on_tick)
    if len(found) < len(question.moments):
        raise RuntimeError(f"episode {episode} of seed {seed}: the expert did not get to decide")
    return labels[0], found


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
                correct = _cross_validate(classify, features, dataset, seed)
                low, high = wilson_interval(correct, len(dataset.labels))
                total, chance = len(dataset.labels), 1 / dataset.classes
                verdicts.append(Verdict(moment, view, name, correct, total, low, high, chance))
    return verdicts


def _cross_validate(classify, features: np.ndarray, dataset: Dataset, seed: int) -> int:
    """Number of episodes ``(N, F)`` whose label a classifier trained on the others finds."""
    labels = dataset.labels
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]  # every class in every fold alike
    correct = 0
    for fold in range(FOLDS):
        test = order[fold::FOLDS]
        train = np.setdiff1d(order, test)
        known, unknown = _prepared(features[train], features[test])
        guesses = classify(known, labels[train], unknown, dataset.classes, seed)
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
    inputs, wanted = torch.from_numpy(known).float(), torch.from_numpy(labels).long()
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=decay)
    for _ in range(TRAIN_STEPS):
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(inputs), wanted)
        loss.backward()
        optimiser.step()


def _guess(model: torch.nn.Module, unknown: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(unknown).float()).argmax(dim=1).numpy()


def _logistic_regression(known, labels, unknown, classes: int, seed: int) -> np.ndarray:
    torch.manual_seed(seed)
    model = torch.nn.Linear(known.shape[1], classes)
    _train(model, known, labels, decay=0.1)
    return _guess(model, unknown)


def _perceptron(known, labels, unknown, classes: int, seed: int) -> np.ndarray:
    torch.manual_seed(seed)
    model = torch.nn.Sequential(
        torch.nn.Linear(known.shape[1], 32), torch.nn.Tanh(), torch.nn.Linear(32, classes)
    )
    _train(model, known, labels, decay=1.0)
    return _guess(model, unknown)


TRAIN_STEPS = 200
CLASSIFIERS = {"logistic_regression": _logistic_regression, "perceptron": _perceptron}
