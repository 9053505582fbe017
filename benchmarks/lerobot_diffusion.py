"""Training speed of our image diffusion policy against LeRobot's DiffusionPolicy, in samples/s.

Both train from two cameras with the same encoder class: a ResNet-18 with group norm (16 channels a
group), 32 keypoints of a spatial softmax and 64 features, one for each camera, without pretraining,
on random crops of the same images. Batch, frames of history (To), action tokens and threads are the
same. What differs is each one's own: the head (ours a transformer, theirs a U-Net with FiLM, at the
default size of each and at a second one) and the training step around it (ours AdamW and a moving
average of the weights, theirs Adam). So the figures compare whole policies; the encoders' share
alone (forward and backward) stands beside them, and the parameters of all parts.

Our step gathers its images from memory maps and normalises them; LeRobot gets batches that lie in
memory, ready and normalised, so what its data loading costs is not counted.

- ``to2``: LeRobot's default, 2 frames and 16 action tokens;
- ``to16``: 16 frames and 32 action tokens, PTP's window.

Batch 8 is LeRobot's default too.

Programs run in processes of their own and take turns step by step; samples/s are the batch over the
median processor time of a step, which is the wall time on a machine with nothing else to do.

LeRobot needs an environment of its own, because its requirements do not fit ours::

    python3 -m venv lerobot_venv && lerobot_venv/bin/pip install lerobot
    embodied_rl bench lerobot_diffusion --lerobot-python lerobot_venv/bin/python
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import tyro
from _plot import BLUE, GREEN, ORANGE, RED, bars, beside, picture
from _report import Target, report
from _step_process import StepProcess
from _steps import ACTIONS, CAMERAS, STATE, Cost

from embodied_rl.cli import UsageError
from embodied_rl.policies.ptp.config import PtpConfig

HERE = Path(__file__).resolve().parent
SETTINGS = {"to2": {"history": 2, "horizon": 16}, "to16": {"history": 16, "horizon": 32}}
# program -> settings of its own
OURS: dict[str, dict[str, object]] = {
    "ours": {"width": PtpConfig.width, "layers": PtpConfig.layers},
    "ours_8x256": {"width": 256, "layers": 8},
}
LEROBOT: dict[str, dict[str, object]] = {
    "lerobot": {"down_dims": [512, 1024, 2048]},
    "lerobot_small": {"down_dims": [128, 256, 512]},
}
ENCODERS = ("ours", "lerobot")  # programs whose encoder is timed alone
TARGETS: dict[str, Target] = {
    f"{setting}_{program}_to_lerobot": (">=", 1.0) for setting in SETTINGS for program in OURS
}


@dataclass(frozen=True)
class Arguments:
    """Training steps of our policy and of LeRobot's, in turns."""

    lerobot_python: Path | None = None
    """Python of an environment in which lerobot is installed."""
    batch: int = 8
    rounds: int = 3
    """Timed steps of each program, after one that is not timed."""
    side: int = 84
    """Pixels of an image's side."""
    crop: int = 76
    """Pixels of the crop's side."""
    threads: int = 1
    json: Path | None = None


def main(argv: list[str]) -> int:
    """Prints the figures; 1 if a target is missed."""
    arguments = tyro.cli(Arguments, args=argv, prog="embodied_rl bench lerobot_diffusion")
    python = arguments.lerobot_python
    if python is None or not os.access(python, os.X_OK):
        raise UsageError(
            "--lerobot-python: expected the Python of an environment with lerobot in it, such as "
            f"lerobot_venv/bin/python, saw {python or 'nothing'}; make one with 'python3 -m venv "
            "lerobot_venv' and 'lerobot_venv/bin/pip install lerobot'"
        )
    figures: dict[str, float] = {}
    versions: dict[str, str] = {}
    for name, setting in SETTINGS.items():
        figures |= _compare(name, setting, python, arguments, versions)
    figures |= {**_sizes(arguments), "rounds": arguments.rounds}
    if arguments.json is not None:
        draw(figures, beside(arguments.json))
    return report(
        "lerobot_diffusion", figures, TARGETS, arguments.json, {"lerobot_environment": versions}
    )


def _sizes(arguments: Arguments) -> dict[str, int]:
    return {key: getattr(arguments, key) for key in ("batch", "side", "crop", "threads")}


def _compare(
    name: str,
    setting: Mapping[str, int],
    python: Path,
    arguments: Arguments,
    versions: dict[str, str],
) -> dict[str, float]:
    """Figures of one setting; `versions` gets those of LeRobot's environment."""
    common = {
        **setting,
        **_sizes(arguments),
        "cameras": CAMERAS,
        "state": STATE,
        "actions": ACTIONS,
    }
    with ExitStack() as stack:
        programs = {}
        for program, own in (OURS | LEROBOT).items():
            mine = program in OURS
            script = "_ptp_steps.py" if mine else "_lerobot_steps.py"
            interpreter = Path(sys.executable) if mine else python
            process = StepProcess(interpreter, HERE / script, {**common, **own}, foreign=not mine)
            programs[program] = stack.enter_context(process)
        versions |= programs["lerobot"].description["versions"]
        costs = _take_turns(programs, arguments.rounds)
    return _figures(name, arguments.batch, programs, costs)


def _take_turns(
    programs: Mapping[str, StepProcess], rounds: int
) -> dict[tuple[str, str], list[Cost]]:
    """Costs by (program, kind of step), without those of the first round."""
    costs: dict[tuple[str, str], list[Cost]] = {}
    # The encoders of ours are all the same, and so are LeRobot's.
    kinds = [*((program, "step") for program in programs), *((p, "encoder") for p in ENCODERS)]
    for _ in range(rounds + 1):
        for program, kind in kinds:
            costs.setdefault((program, kind), []).append(programs[program].step(kind))
    return {key: values[1:] for key, values in costs.items()}


def _figures(
    name: str,
    batch: int,
    programs: Mapping[str, StepProcess],
    costs: Mapping[tuple[str, str], list[Cost]],
) -> dict[str, float]:
    def median_s(program: str, kind: str, clock: str = "cpu_s") -> float:
        return statistics.median(getattr(cost, clock) for cost in costs[program, kind])

    figures: dict[str, float] = {}
    for program, process in programs.items():
        prefix = f"{name}_{program}"
        figures[f"{prefix}_samples_per_s"] = batch / median_s(program, "step")
        figures[f"{prefix}_wall_samples_per_s"] = batch / median_s(program, "step", "wall_s")
        figures[f"{prefix}_peak_memory_mb"] = process.peak_mb
        for part in ("encoder", "head"):
            parameters = process.description[f"{part}_parameters"]
            figures[f"{prefix}_{part}_parameters_millions"] = parameters / 1e6
    for program in OURS:
        for rival in LEROBOT:
            ratio = median_s(rival, "step") / median_s(program, "step")
            figures[f"{name}_{program}_to_{rival}"] = ratio
    for program in ENCODERS:
        speed = batch / median_s(program, "encoder")
        figures[f"{name}_{program}_encoder_alone_samples_per_s"] = speed
    return figures


def draw(figures: Mapping[str, float], path: Path) -> None:
    """Samples/s of all programs in all settings."""
    with picture(path, columns=len(SETTINGS), size=(4.0 * len(SETTINGS), 3.2)) as axes:
        for axis, name in zip(axes[0], SETTINGS, strict=True):
            labels, values = [], []
            for program in (*OURS, *LEROBOT):
                millions = figures[f"{name}_{program}_head_parameters_millions"]
                labels.append(f"{program.split('_')[0]}\nhead {millions:.0f} M")
                values.append(figures[f"{name}_{program}_samples_per_s"])
            bars(axis, labels, values, colours=(BLUE, GREEN, ORANGE, RED))
            axis.set_title(f"{SETTINGS[name]['history']} frames, batch {figures['batch']:.0f}")
        axes[0, 0].set_ylabel("samples a processor second")
