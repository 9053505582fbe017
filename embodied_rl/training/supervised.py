"""One supervised training loop for every policy: AdamW, warm-up and cosine, gradient clipping, EMA.

The loop is a function of its seed: batch, noise and dropout of step k are drawn from (seed, k)
alone, so a run that was interrupted and resumed ends in the same weights as one that was not, and
no random state has to be saved.
"""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from embodied_rl.core.errors import UserError
from embodied_rl.core.ranges import check_range
from embodied_rl.nn.ema import Ema
from embodied_rl.training.progress import progress_bar
from embodied_rl.training.state import TrainState, load_state, save_state

# (indices of the batch's windows, generator of the diffusion noise) -> scalar loss
LossFunction = Callable[[np.ndarray, torch.Generator], Tensor]


@dataclass(frozen=True)
class TrainSettings:
    """How to train; every policy's config file has these under `training`."""

    steps: int = 5000
    batch: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    beta2: float = 0.95
    warmup: int = 200
    grad_clip: float = 1.0
    ema_decay: float = 0.9999
    ema_power: float = 0.75
    validation_fraction: float = 0.04
    validate_every: int = 500
    save_every: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        check_range(self, "steps", "batch", "validate_every", "save_every", least=1)
        check_range(self, "learning_rate", "grad_clip", "ema_power", above=0)
        check_range(self, "weight_decay", "warmup", "seed", least=0)
        check_range(self, "beta2", "ema_decay", "validation_fraction", least=0, below=1)


@dataclass(frozen=True)
class FitResult:
    """How a training run ended: `step` of `steps` steps (or episodes) of the stage `title`."""

    step: int
    steps: int
    finished: bool
    train_loss: float
    validation_loss: float | None
    wall_s: float
    title: str = "training"


def step_seed(seed: int, step: int) -> int:
    """A seed for one step, unrelated to its neighbours'."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint32)[0])


def learning_rate(settings: TrainSettings, step: int) -> float:
    """Linear warm-up, then a cosine down to 0 at the last step; a function of the step alone."""
    if step < settings.warmup:
        return settings.learning_rate * step / settings.warmup
    progress = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for the matrices of linear layers only, not for biases, norms and positions."""
    decayed = {
        f"{name}.weight" if name else "weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    return [
        {"params": [p for n, p in named if n in decayed], "weight_decay": weight_decay},
        {"params": [p for n, p in named if n not in decayed], "weight_decay": 0.0},
    ]


@contextmanager
def stop_on_interrupt() -> Iterator[threading.Event]:
    """The first Ctrl-C (or SIGTERM) asks the loop to save and stop, the second interrupts it."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread may set handlers
        return

    def ask(number: int, _frame: object) -> None:
        stop.set()
        signal.signal(number, before[number])

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {n: signal.getsignal(n) for n in numbers}
    for n in numbers:
        signal.signal(n, ask)
    try:
        yield stop
    finally:
        for n in numbers:
            signal.signal(n, before[n])


def fit(
    model: nn.Module,
    loss: LossFunction,
    *,
    settings: TrainSettings,
    training: np.ndarray,
    validation: np.ndarray,
    folder: Path,
    fingerprint: str,
    resume: bool = False,
    quiet: bool = False,
    title: str = "training",
) -> FitResult:
    """Trains `model` in place and leaves the averaged parameters in it when finished.

    Args:
        loss: scalar loss of a batch; `training`/`validation` hold the indices it is called with.
        folder: where the resumable state and `log.jsonl` go.
        fingerprint: names data and settings; a state of another fingerprint is not resumed.
        title: what to call the run, where there are several stages.
    """
    if training.size == 0:
        raise UserError(
            f"{folder}: no training windows in the data; are the bags empty or damaged?"
        )
    folder.mkdir(parents=True, exist_ok=True)
    state = start_training(model, settings)
    if resume:
        load_state(folder, state, fingerprint)
    began, last, validated = time.monotonic(), float("nan"), None
    first = state.step
    with (
        stop_on_interrupt() as stop,
        (folder / "log.jsonl").open("a" if resume else "w", encoding="utf-8") as log,
        progress_bar(quiet=quiet) as bar,
    ):
        task = bar.add_task(title, total=settings.steps, completed=state.step, note="")
        while state.step < settings.steps and not stop.is_set():
            last = train_step(state, loss, settings, training)
            record: dict[str, Any] = {"step": state.step, "loss": last}
            if state.step % settings.validate_every == 0 or state.step == settings.steps:
                validated = validation_loss(state, loss, settings, validation)
                record |= {"validation": validated, "wall_s": time.monotonic() - began}
            if "validation" in record or state.step % 20 == 0:
                log.write(json.dumps(record) + "\n")
                log.flush()
            if state.step % settings.save_every == 0:
                save_state(folder, state, fingerprint)
            bar.update(task, completed=state.step, note=_describe(last, validated))
        if state.step > first or not resume:  # else it stands there already
            save_state(folder, state, fingerprint)
    finished = state.step >= settings.steps
    if finished:
        model.load_state_dict(state.ema.tensors(), strict=False)  # buffers are not averaged
    wall_s = time.monotonic() - began
    return FitResult(state.step, settings.steps, finished, last, validated, wall_s, title)


def start_training(model: nn.Module, settings: TrainSettings) -> TrainState:
    """Optimiser and average for a model at step 0."""
    groups = decay_groups(model, settings.weight_decay)
    optimizer = torch.optim.AdamW(
        groups, lr=settings.learning_rate, betas=(0.9, settings.beta2), foreach=True
    )
    ema = Ema(model, decay=settings.ema_decay, power=settings.ema_power)
    return TrainState(model, optimizer, ema)


def train_step(
    state: TrainState, loss: LossFunction, settings: TrainSettings, training: np.ndarray
) -> float:
    """One step on a batch drawn from `training`; returns its loss."""
    seed = step_seed(settings.seed, state.step)
    torch.manual_seed(seed)  # dropout draws from the global generator
    indices = np.random.default_rng(seed).choice(training, size=settings.batch)
    state.model.train()
    value = loss(indices, torch.Generator().manual_seed(seed))
    if not torch.isfinite(value):
        raise UserError(
            f"training: loss is {value.item()} at step {state.step}; expected a finite number: "
            "lower training.learning_rate, or look for outliers in the data with 'bags check'"
        )
    state.optimizer.zero_grad(set_to_none=True)
    value.backward()
    nn.utils.clip_grad_norm_(state.model.parameters(), settings.grad_clip)
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(settings, state.step)
    state.optimizer.step()
    state.ema.step()
    state.step += 1
    return value.item()


@torch.no_grad()
def validation_loss(
    state: TrainState, loss: LossFunction, settings: TrainSettings, validation: np.ndarray
) -> float | None:
    """Loss of the averaged weights on at most 8 batches, the same windows and noise every time."""
    if validation.size == 0:
        return None
    chosen = np.random.default_rng(settings.seed).permutation(validation)[: 8 * settings.batch]
    generator = torch.Generator().manual_seed(settings.seed)
    state.model.eval()
    total = 0.0
    with state.ema.applied():
        for start in range(0, chosen.size, settings.batch):
            part = chosen[start : start + settings.batch]
            total += loss(part, generator).item() * part.size
    return total / chosen.size


def _describe(last: float, validated: float | None) -> str:
    text = f"loss {last:.4f}"
    return text if validated is None else f"{text}, validation {validated:.4f}"
