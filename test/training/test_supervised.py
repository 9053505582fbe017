"""The loop: resumed equals uninterrupted, schedule equals diffusers', bad states are refused."""

import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers.optimization import get_cosine_schedule_with_warmup
from torch import nn

from embodied_rl.core.errors import UserError
from embodied_rl.training.supervised import TrainSettings, decay_groups, fit, learning_rate

SETTINGS = TrainSettings(
    steps=30, batch=8, learning_rate=1e-2, warmup=5, validate_every=10, save_every=7
)


class Task:
    """Regression with dropout and noise, so that every source of randomness is in play."""

    def __init__(self):
        torch.manual_seed(0)
        self.x = torch.randn(64, 3)
        self.y = self.x @ torch.tensor([[1.0], [-2.0], [0.5]])
        self.model = nn.Sequential(nn.Linear(3, 16), nn.GELU(), nn.Dropout(0.2), nn.Linear(16, 1))
        self.calls = 0
        self.interrupt_at = -1

    def loss(self, indices, generator):
        self.calls += 1
        if self.calls == self.interrupt_at:
            os.kill(os.getpid(), signal.SIGINT)
        noise = 0.01 * torch.randn(len(indices), 1, generator=generator)
        return (self.model(self.x[indices]) + noise - self.y[indices]).square().mean()

    def fit(self, folder, settings=SETTINGS, **kwargs):
        everything = np.arange(64)
        return fit(
            self.model,
            self.loss,
            settings=settings,
            training=everything[:56],
            validation=everything[56:],
            folder=folder,
            fingerprint=kwargs.pop("fingerprint", "f"),
            quiet=True,
            **kwargs,
        )


def test_interrupted_and_resumed_equals_uninterrupted(tmp_path):
    whole = Task()
    result = whole.fit(tmp_path / "whole")
    assert result.finished and result.step == 30
    part = Task()
    part.interrupt_at = 12
    stopped = part.fit(tmp_path / "part")
    assert not stopped.finished and 0 < stopped.step < 30
    again = Task()
    resumed = again.fit(tmp_path / "part", resume=True)
    assert resumed.finished and resumed.validation_loss == result.validation_loss
    for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)
    lines = [json.loads(x) for x in (tmp_path / "part" / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 30 and "validation" in lines[-1]


def test_it_learns(tmp_path):
    task = Task()
    with torch.no_grad():
        before = task.loss(np.arange(64), torch.Generator()).item()
    result = task.fit(tmp_path, replace(SETTINGS, steps=300))
    assert result.validation_loss < before / 10


def test_learning_rate_equals_diffusers():
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=SETTINGS.learning_rate)
    schedule = get_cosine_schedule_with_warmup(optimizer, SETTINGS.warmup, SETTINGS.steps)
    for step in range(SETTINGS.steps):
        assert learning_rate(SETTINGS, step) == pytest.approx(schedule.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        schedule.step()


def test_state_of_other_data_is_not_resumed(tmp_path):
    Task().fit(tmp_path, fingerprint="old")
    with pytest.raises(UserError, match="new.*old"):
        Task().fit(tmp_path, fingerprint="new", resume=True)
    with pytest.raises(UserError, match="config.yaml"):
        Task().fit(tmp_path / "empty", resume=True)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    task = Task()
    task.y = task.y * float("nan")
    with pytest.raises(UserError, match="loss is nan at step 0"):
        task.fit(tmp_path)


def test_only_matrices_decay():
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    decayed, rest = decay_groups(model, 0.1)
    assert decayed["params"] == [model[0].weight] and len(rest["params"]) == 3


@pytest.mark.parametrize("key, value", [("steps", 0), ("learning_rate", 0.0), ("beta2", 1.0)])
def test_settings_are_checked(key, value):
    with pytest.raises(ValueError, match=f"{key}: expected"):
        replace(SETTINGS, **{key: value})
