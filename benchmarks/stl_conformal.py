"""Does the calibrated bound of the monitor's prediction hold as often as it says?

A cart that steers to a random goal through random pushes (a damped second-order system, step 0.1 s)
under a formula that it keeps most of the time. Per trial: 100 episodes to calibrate, 50 others that
are covered when no bound was ever above the robustness in the end. Beside it, how often the
prediction itself was never too high. The coverage of one calibration scatters (Beta(91, 10),
standard deviation 0.03), and a share of 50 by 0.04; the mean of 100 trials by 0.005.

Predictions of a whole trial are computed at once; that they and the bounds are the monitor's own is
checked on a few episodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from _report import report

from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.signals import Slot
from embodied_rl.stl import batched, conformal
from embodied_rl.stl.monitor import SpecificationMonitor
from embodied_rl.stl.spec import Specification, parse_specification

SEED, DELTA, EPISODES, OTHERS, CHECKED = 0, 0.1, 100, 50, 3
STEPS, DT_S = 30, 0.1
ROBOT = """
name: cart
control_rate_hz: 10
streams:
  cart: {topic: joint_states, type: sensor_msgs/msg/JointState, field: position, joints: [x],
         unit: m, rate_hz: 10, max_age_s: 0.1}
commands:
  cart: {topic: c, type: std_msgs/msg/Float64MultiArray, joints: [x], unit: m, lower: [-9],
         upper: [9], max_velocity: [9]}
"""
SPEC = """
name: drive
dt_s: 0.1
predictor: PREDICTOR
formulas:
  reaches: F[0,3] x > 1
  stays: G[0,3] x < 2
  settles: F[0,2] G[0,1] (x > 0.7 and x < 1.6)
signals: {x: {stream: cart, component: x, bounds: [-9, 9]}}
"""
LEAST = 1 - DELTA - 3 * 0.005  # three standard errors of the mean below what is promised
PREDICTORS = ("hold", "linear")
FORMULAS = ("reaches", "stays", "settles")
TARGETS = {f"{p}_{f}_coverage": (">=", LEAST) for p in PREDICTORS for f in FORMULAS}
TARGETS |= {f"{p}_largest_difference_to_the_monitor": ("<=", 1e-9) for p in PREDICTORS}


@dataclass(frozen=True)
class Arguments:
    """Coverage of the conformal bound of predicted robustness."""

    trials: int = 100
    json: Path | None = None


def main(argv: list[str]) -> int:
    arguments = tyro.cli(Arguments, args=argv, prog="embodied_rl bench stl_conformal")
    figures: dict[str, float] = {"delta": DELTA, "trials": float(arguments.trials)}
    for predictor in PREDICTORS:
        figures |= _coverage(predictor, arguments.trials)
    return report("stl_conformal", figures, TARGETS, arguments.json)


def _coverage(predictor: str, trials: int) -> dict[str, float]:
    robot = Embodiment.parse(ROBOT, "cart")
    spec = parse_specification(SPEC.replace("PREDICTOR", predictor), robot, "drive")
    rng = np.random.default_rng(SEED)
    covered, unaided, widths = ({name: [] for name in FORMULAS} for _ in range(3))
    for _ in range(trials):
        drives = _drive(rng, EPISODES + OTHERS)
        estimates, values, scores = {}, {}, {}
        for name in FORMULAS:
            estimates[name], values[name] = _predicted(spec, name, drives)
            pairs = list(zip(estimates[name].tolist(), values[name].tolist()))
            scores[name] = [conformal.score(*pair) for pair in pairs[:EPISODES]]
        calibration = conformal.calibrate(spec, scores, DELTA)
        for name, quantile in calibration.quantiles.items():
            highest = estimates[name].max(axis=1)[EPISODES:]
            covered[name].append((highest - quantile <= values[name][EPISODES:]).mean())
            unaided[name].append((highest <= values[name][EPISODES:]).mean())
            widths[name].append(quantile)
    found = {}
    for name in FORMULAS:
        found[f"{predictor}_{name}_coverage"] = float(np.mean(covered[name]))
        found[f"{predictor}_{name}_quantile_m"] = float(np.mean(widths[name]))
        found[f"{predictor}_{name}_prediction_never_too_high"] = float(np.mean(unaided[name]))
    differences = [
        _difference(spec, calibration, drives[i], {n: estimates[n][i] for n in FORMULAS})
        for i in range(CHECKED)
    ]
    found[f"{predictor}_largest_difference_to_the_monitor"] = max(differences)
    return found


def _predicted(spec: Specification, name: str, drives: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Predicted robustness ``(N, STEPS)`` after each sample but the last, and the robustness
    ``(N,)`` in the end, of drives ``(N, STEPS + 1)``."""
    time = np.arange(STEPS + 1)
    now = np.arange(STEPS)[:, None]  # of the newest sample
    newest = drives[:, :STEPS, None]
    slope = 0.0
    if spec.predictor == "linear":
        slope = np.diff(drives[:, :STEPS], axis=1, prepend=drives[:, :1])[..., None]
    future = np.clip(newest + slope * (time - now), -9.0, 9.0)
    completed = np.where(time <= now, drives[:, None, :], future)
    traces = torch.from_numpy(np.concatenate([completed, drives[:, None, :]], axis=1))
    found = batched.robustness(spec.formulas[name], {"x": traces})[..., 0].numpy()
    return found[:, :-1], found[:, -1]


def _difference(
    spec: Specification,
    calibration: conformal.Calibration,
    drive: np.ndarray,
    expected: dict[str, np.ndarray],
) -> float:
    """Between the monitor's predictions and bounds of one drive and those computed at once."""
    monitor = SpecificationMonitor(spec, calibration=calibration)
    largest = 0.0
    for i, x in enumerate(drive[:-1]):
        monitor.update(Slot(i, 10**9 + i * spec.dt_ns, {"x": float(x)}))
        for name, reading in monitor.readings().items():
            wanted = expected[name][i], expected[name][i] - calibration.quantiles[name]
            seen = reading.estimate, reading.bound
            largest = max(largest, *(abs(a - b) for a, b in zip(seen, wanted)))
    return largest


def _drive(rng: np.random.Generator, count: int) -> np.ndarray:
    """Positions ``(count, STEPS + 1)`` of the cart in m."""
    goal, x, v = rng.uniform(0.9, 1.5, count), np.zeros(count), rng.normal(0, 0.3, count)
    found = [x]
    for _ in range(STEPS):
        v = v + (4.0 * (goal - x) - 2.2 * v) * DT_S + rng.normal(0, 0.25, count)
        x = x + v * DT_S
        found.append(x)
    return np.stack(found, axis=1)
