"""Batched robustness: equal to the numpy path, trace by trace, and smooth enough to climb."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from _stl_crosscheck import random_formula, random_trace  # noqa: E402

from embodied_rl.core.errors import UserError  # noqa: E402
from embodied_rl.stl import batched, robustness  # noqa: E402
from embodied_rl.stl import formula as fm  # noqa: E402
from embodied_rl.stl.parse import parse  # noqa: E402
from embodied_rl.stl.robustness import TailRule  # noqa: E402


@pytest.mark.parametrize("tail", [TailRule.TRUNCATE, TailRule.PAD_PESSIMISTIC])
def test_a_batch_is_its_traces(tail):
    rng = np.random.default_rng(3)
    for _ in range(80):
        formula = random_formula(rng, 4)
        traces = [random_trace(rng, 30) for _ in range(3)]
        stacked = {n: torch.tensor(np.stack([t[n] for t in traces])) for n in traces[0]}
        found = batched.robustness(formula, stacked, tail).numpy()
        for row, trace in zip(found, traces):
            assert np.array_equal(row, robustness.robustness(formula, trace, tail))


def test_functions_and_constants_keep_the_dtype_of_the_signals():
    formula = parse("norm(x - 0.1, 2) <= max(x, 0.3) + sqrt(2) and abs(-3) > min(x, 1) or 1 > 0.5")
    x = np.linspace(-2, 2, 21)
    found = batched.robustness(formula, {"x": torch.tensor(x, dtype=torch.float32)})
    assert found.dtype == torch.float32
    assert found.numpy() == pytest.approx(robustness.robustness(formula, {"x": x}), abs=1e-6)


def test_smooth_robustness_tends_to_the_exact_one():
    rng = np.random.default_rng(4)
    for _ in range(40):
        formula = random_formula(rng, 3)
        if not fm.horizon(formula) < 30:
            continue
        trace = {name: torch.tensor(v) for name, v in random_trace(rng, 30).items()}
        covered = 30 - fm.horizon(formula)
        exact = batched.robustness(formula, trace)[:covered]
        joined = math.log(30) * 4 * fm.depth(formula)
        for temperature in (0.1, 0.001):
            smooth = batched.robustness(formula, trace, temperature=temperature)[:covered]
            assert (smooth - exact).abs().max() <= temperature * joined


def test_smooth_maximum_of_a_window_is_its_formula():
    x = torch.randn(20, dtype=torch.float64)
    found = batched.robustness(parse("F[2,8] x"), {"x": x}, temperature=0.3)
    for t in range(12):
        assert found[t] == pytest.approx(float(torch.logsumexp(x[t + 2 : t + 9] / 0.3, 0) * 0.3))


def test_gradients_are_finite_and_reach_every_sample_of_a_smooth_window():
    formula = parse("(x > 0) U[2,9] (F[0,5] x < 0.5) and G[0,12] norm(x, 2 * x) >= 0.1")
    x = torch.zeros(4, 20, requires_grad=True)
    batched.robustness(formula, {"x": x}, temperature=0.2)[:, 0].sum().backward()
    assert torch.isfinite(x.grad).all()
    assert (x.grad[:, :13] != 0).all()


def test_climbing_the_smooth_robustness_satisfies_the_formula():
    formula = parse("F[0,2] x > 1 and F[3,5] x < -1 and G[0,5] abs(x) < 2")
    x = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    for _ in range(40):
        value = batched.robustness(formula, {"x": x}, temperature=0.1)[0]
        (slope,) = torch.autograd.grad(value, x)
        x = (x + 0.3 * slope).detach().requires_grad_(True)
    assert batched.robustness(formula, {"x": x.detach()})[0] > 0.2


def test_bad_input_is_named():
    x = torch.zeros(2, 5)
    with pytest.raises(UserError, match="unknown signal 'y'"):
        batched.robustness(parse("y"), {"x": x})
    with pytest.raises(UserError, match="signal 'x': expected numbers, saw NaN"):
        batched.robustness(parse("x"), {"x": x / 0})
    with pytest.raises(UserError, match="temperature: expected a number above 0, saw 0"):
        batched.robustness(parse("x"), {"x": x}, temperature=0.0)
