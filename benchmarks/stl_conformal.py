"""Does the calibrated bound of the monitor's prediction hold as often as it says?

A cart that steers to a random goal through random pushes (a damped second-order system, step 0.1 s)
under a formula that it keeps most of the time. Per trial: 100 episodes to calibrate, 50 others
through a calibrated monitor; an episode is covered when no reading's bound was ever above the
robustness in the end. Beside it, how often the prediction itself was never too high. The coverage
of one calibration scatters (Beta(91, 10), standard deviation 0.03); over 40 trials the mean does by
0.006.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from _report import report

from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.signals import Slot
from embodied_rl.stl import conformal
from embodied_rl.stl.monitor import SpecificationMonitor
from embodied_rl.stl.spec import Specification, parse_specification

SEED, DELTA, EPISODES, OTHERS = 0, 0.1, 100, 50
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
# three standard errors of the mean below what is promised
LEAST = 1 - DELTA - 3 * 0.006
PREDICTORS = ("hold", "linear")
FORMULAS = ("reaches", "stays", "settles")
TARGETS = {f"{p}_{f}_coverage": (">=", LEAST) for p in PREDICTORS for f in FORMULAS}


@dataclass(frozen=True)
class Arguments:
    """Coverage of the conformal bound of predicted robustness."""

    trials: int = 40
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
        scores: dict[str, list[float]] = {name: [] for name in FORMULAS}
        for _ in range(EPISODES):
            for name, (estimates, _, value) in _episode(spec, rng, None):
                scores[name].append(conformal.score(estimates, value))
        calibration = conformal.calibrate(spec, scores, DELTA)
        for _ in range(OTHERS):
            for name, (estimates, bounds, value) in _episode(spec, rng, calibration):
                covered[name].append(max(bounds) <= value)
                unaided[name].append(max(estimates) <= value)
        for name, quantile in calibration.quantiles.items():
            widths[name].append(quantile)
    found = {}
    for name in FORMULAS:
        found[f"{predictor}_{name}_coverage"] = float(np.mean(covered[name]))
        found[f"{predictor}_{name}_quantile_m"] = float(np.mean(widths[name]))
        found[f"{predictor}_{name}_prediction_never_too_high"] = float(np.mean(unaided[name]))
    return found


def _episode(
    spec: Specification, rng: np.random.Generator, calibration: conformal.Calibration | None
) -> Iterator[tuple[str, tuple[list[float], list[float], float]]]:
    """Formula, its predictions and bounds at every slot, and its robustness in the end."""
    monitor = SpecificationMonitor(spec, calibration=calibration)
    seen: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in FORMULAS}
    for i, x in enumerate(_drive(rng)):
        monitor.update(Slot(i, 10**9 + i * spec.dt_ns, {"x": float(x)}))
        for name, reading in monitor.readings().items():
            if reading.estimate is not None:
                seen[name][0].append(reading.estimate)
            if reading.bound is not None:
                seen[name][1].append(reading.bound)
    for name, reading in monitor.readings().items():
        yield name, (*seen[name], reading.low)


def _drive(rng: np.random.Generator) -> np.ndarray:
    """Positions ``(STEPS + 1,)`` of the cart in m."""
    goal, x, v = rng.uniform(0.9, 1.5), 0.0, rng.normal(0, 0.3)
    found = [x]
    for _ in range(STEPS):
        v += (4.0 * (goal - x) - 2.2 * v) * DT_S + rng.normal(0, 0.25)
        x += v * DT_S
        found.append(x)
    return np.array(found)
