from dataclasses import replace

import pytest

from embodied_rl.core.errors import UserError
from embodied_rl.policies.ptp.config import PtpConfig, read_run

BASE = PtpConfig(("a",), history=4, chunk=5, execute=2)


@pytest.mark.parametrize(
    "changes, past, tokens, first",
    [
        ({}, 3, 8, 0),  # PTP
        ({"supervised_past": 1}, 3, 8, 2),  # PTP-1
        ({"supervised_past": 0}, 3, 8, 3),  # official no-PTP
        ({"past_tokens": False}, 0, 5, 0),  # future only
        ({"history": 2}, 1, 6, 0),  # short context
        ({"history": 1}, 0, 5, 0),
    ],
)
def test_arms_are_values_of_one_config(changes, past, tokens, first):
    config = replace(BASE, **changes)
    assert (config.past, config.tokens, config.first_supervised) == (past, tokens, first)


@pytest.mark.parametrize(
    "changes",
    [
        {"history": 0},
        {"streams": ()},
        {"execute": 6},
        {"supervised_past": 4},
        {"past_tokens": False, "supervised_past": 1},
        {"width": 36, "heads": 8},
        {"prediction": "velocity"},
        {"dropout": 1.0},
        {"sampling_steps": 101},
    ],
)
def test_unsound_values_are_named(changes):
    with pytest.raises(ValueError, match=f"{list(changes)[-1]}|{list(changes)[0]}"):
        replace(BASE, **changes)


def test_run_file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("policy: ptp\nname: n\ntask: t\nmodel: {streams: [a]}\ntraining: {steps: 9}\n")
    run = read_run(path, {"seed": 3})
    assert (run.training.steps, run.training.seed, run.model.history) == (9, 3, 16)
    path.write_text(path.read_text().replace("steps", "stepps"))
    with pytest.raises(UserError, match="run.yaml: training.stepps.*did you mean 'steps'"):
        read_run(path)
    path.write_text("policy: relic\nname: n\ntask: t\n")
    with pytest.raises(UserError, match="policy: expected 'ptp'"):
        read_run(path)


STAGED = """
policy: ptp
name: n
task: t
model: {streams: [cam, a], history: 4, encoders: {cam: {kind: resnet18, crop: 20}}}
encoder: {history: 2, training: {steps: 7}}
training: {steps: 9}
"""


def test_run_file_with_stages(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(STAGED)
    run = read_run(path, {"seed": 3, "steps": 5})
    assert run.model.encoders["cam"].kind == "resnet18" and run.model.encoders["cam"].crop == 20
    # the number of steps is that of the head; the seed is everybody's
    assert (run.training.steps, run.encoder.training.steps) == (5, 7)
    assert (run.training.seed, run.encoder.training.seed) == (3, 3)
    short = run.encoder.model(replace(run.model, supervised_past=3))
    assert (short.history, short.supervised_past, short.encoders) == (2, -1, run.model.encoders)


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("resnet18", "resnet", "model.encoders.cam.kind: expected one of"),
        ("{cam: {", "{cem: {", "model.encoders.cem: expected one of streams"),
        ("crop: 20", "crap: 20", "model.encoders.cam.crap: unknown key; did you mean 'crop'"),
        ("encoder: {history: 2", "encoder: {history: 5", "encoder.history: .*history = 4, saw 5"),
        ("training: {steps: 7}", "training: {seed: 7}", "encoder.training: expected seed"),
        ("{steps: 7}", "{stepps: 7}", "encoder.training.stepps: unknown key"),
        (", encoders: {cam: {kind: resnet18, crop: 20}}", "", "encoder: expected model.encoders"),
    ],
)
def test_unsound_stages_are_named(tmp_path, old, new, words):
    path = tmp_path / "run.yaml"
    assert old in STAGED
    path.write_text(STAGED.replace(old, new))
    with pytest.raises(UserError, match=f"run.yaml: {words}"):
        read_run(path)
