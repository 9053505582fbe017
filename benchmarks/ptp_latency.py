"""How long a control step of PTP takes: 16 frames of history, 10 DDIM steps, one thread.

- ``ours``: the newest frame is encoded into the ring of embeddings; the frames' keys and values
  are made once and serve all denoising steps and all candidates; those of the diffusion steps are
  made once for all. The convolutions' weights are laid out for one image at a time.
- ``plain``: all 16 frames are encoded anew, and each denoising step projects them again.

Both give the same actions to 1e-5, which test/policies/ptp/test_ptp_inference.py holds. They take
turns, so that a busy machine slows both. Weights are random: they do not change the time. A control
step here is `observe` and `act`; with ``execute`` > 1 most ticks only observe.

Milliseconds are the thread's processor time, which is the wall time of a machine with nothing else
to do; ``wall`` figures are what the clock on the wall said beside it, load of the machine included.
"""

from __future__ import annotations

import copy
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from _plot import BLUE, ORANGE, beside, picture
from _report import Target, report
from matplotlib.axes import Axes

from embodied_rl.cli import UsageError
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.policy import ActionChunk, EpisodeInfo
from embodied_rl.core.window import Observation, history_indices
from embodied_rl.nn.vision import ImageSettings
from embodied_rl.policies.ptp.config import PtpConfig
from embodied_rl.policies.ptp.model import PtpModel
from embodied_rl.policies.ptp.runtime import PtpPolicy
from embodied_rl.sim.registry import world_embodiment

PROPRIOCEPTION = ("arm_position", "gripper_position", "tool_position")
CAMERAS = ("camera_fixed", "camera_wrist")
HISTORY, STRIDE, DDIM_STEPS = 16, 3, 10
KINDS = ("state", "small_cnn", "resnet18")
MORE_SAMPLES = (4, 16)
TARGETS: dict[str, Target] = {
    "resnet18_speedup_p50": (">=", 8.0),
    "resnet18_speedup_p95": (">=", 8.0),
}


@dataclass(frozen=True)
class Arguments:
    """Control step of PTP against the plain way of the same actions."""

    steps: int = 100
    """Timed control steps of our path; the plain path of the ResNet-18 gets a tenth of them."""
    width: int = 64
    layers: int = 3
    json: Path | None = None


def main(argv: list[str]) -> int:
    arguments = tyro.cli(Arguments, args=argv, prog="embodied_rl bench ptp_latency")
    if arguments.steps < 10:
        raise UsageError(f"--steps: expected at least 10, saw {arguments.steps}")
    figures: dict[str, float] = {}
    with torch.inference_mode():
        for kind in KINDS:
            figures |= _compare(kind, arguments)
    if arguments.json is not None:
        draw(figures, beside(arguments.json))
    return report("ptp_latency", figures, TARGETS, arguments.json)


def _compare(kind: str, arguments: Arguments) -> dict[str, float]:
    """Figures of one model: both paths with one candidate, then ours with more."""
    embodiment = world_embodiment("tabletop")
    model = _model(kind, embodiment, arguments)
    bench = _Bench(model, embodiment)
    plain_steps = max(arguments.steps // (10 if kind == "resnet18" else 1), 5)
    ours, plain = [], []
    for step in range(arguments.steps + 3):
        ours.append(bench.step())
        if step % (arguments.steps // plain_steps) == 0:
            plain.append(bench.plain_step())
    times = {"ours": ours[3:], "plain": plain[1:]}
    for samples in MORE_SAMPLES:
        bench.choose(samples)
        bench.step()
        times[f"ours_n{samples}"] = [bench.step() for _ in range(arguments.steps // 2)]
    figures = {}
    for name, pairs in times.items():
        for clock, values in zip(("", "wall_"), zip(*pairs, strict=True), strict=True):
            for part in (50, 95):
                milliseconds = float(np.percentile(values, part))
                figures[f"{kind}_{name}_{clock}p{part}_ms"] = milliseconds
    for part in ("p50", "p95", "wall_p50"):
        ratio = figures[f"{kind}_plain_{part}_ms"] / figures[f"{kind}_ours_{part}_ms"]
        figures[f"{kind}_speedup_{part}"] = ratio
    return figures


class _Clock:
    """Milliseconds since it was made: of this thread's processor time, and on the wall."""

    def __init__(self) -> None:
        self._begin_s = time.thread_time(), time.perf_counter()

    def read(self) -> tuple[float, float]:
        cpu_s, wall_s = self._begin_s
        return (time.thread_time() - cpu_s) * 1e3, (time.perf_counter() - wall_s) * 1e3


def _model(kind: str, embodiment: Embodiment, arguments: Arguments) -> PtpModel:
    torch.manual_seed(0)
    cameras = () if kind == "state" else CAMERAS
    streams = (*PROPRIOCEPTION, *(cameras or ("object_position",)))
    config = PtpConfig(
        streams,
        history=HISTORY,
        stride=STRIDE,
        width=arguments.width,
        layers=arguments.layers,
        sampling_steps=DDIM_STEPS,
        encoders={key: ImageSettings(kind) for key in cameras},
    )
    shapes = {key: stream.shape for key, stream in embodiment.require(streams).items()}
    return PtpModel(config, shapes, embodiment.action_dim)


class _Bench:
    """One episode that goes on and on, with the raw frames kept beside the policy."""

    def __init__(self, model: PtpModel, embodiment: Embodiment) -> None:
        # The policy lays the weights out for its own use; the plain path keeps them as trained.
        self._plain = copy.deepcopy(model).eval()
        self._model, self._embodiment = model, embodiment
        self._random = np.random.default_rng(0)
        self._streams = embodiment.require(model.config.streams)
        self._rows: deque[Observation] = deque(maxlen=model.config.reach + 1)
        self._tick = 0
        self._policy = PtpPolicy(model, embodiment, name="latency", samples=1)
        self._policy.reset(EpisodeInfo(0, 0, "", "", 0))
        self._policy.observe(self._next_row())
        for _ in range(model.config.reach):
            self._policy.executed(self._policy.act() if self._tick == 1 else self._chunk())
            self._policy.observe(self._next_row())

    def _chunk(self) -> ActionChunk:
        """A command that was carried out in the newest period."""
        period_ns = self._embodiment.period_ns
        values = self._random.normal(size=(1, self._embodiment.action_dim))
        return ActionChunk((self._tick - 1) * period_ns, period_ns, values)

    def _next_row(self) -> Observation:
        values = {
            key: self._random.integers(0, 256, stream.shape, dtype=np.uint8)
            if len(stream.shape) == 3
            else self._random.normal(size=stream.shape)
            for key, stream in self._streams.items()
        }
        stamp_ns = self._tick * self._embodiment.period_ns
        self._rows.append(Observation(stamp_ns, values, dict.fromkeys(values, True)))
        self._tick += 1
        return self._rows[-1]

    def choose(self, samples: int) -> None:
        """Go on with another number of candidates and the same memory."""
        memory = self._policy.save_memory()
        self._policy = PtpPolicy(self._model, self._embodiment, name="latency", samples=samples)
        self._policy.load_memory(memory)

    def step(self) -> tuple[float, float]:
        """Processor and wall milliseconds of `observe` and `act`."""
        self._policy.executed(self._chunk())
        row, clock = self._next_row(), _Clock()
        self._policy.observe(row)
        self._policy.act()
        taken_ms = clock.read()
        if self._policy.figures()["verify_ticks"] != HISTORY - 1:
            raise RuntimeError("the candidates were not compared with the whole past")
        return taken_ms

    def plain_step(self) -> tuple[float, float]:
        """Processor and wall milliseconds of one candidate from the raw frames of the window."""
        config, model = self._plain.config, self._plain
        noise = torch.randn(1, config.tokens, model.action_dim)
        clock = _Clock()
        index, _ = history_indices(len(self._rows) - 1, config.history, config.stride)
        frames = {
            key: torch.from_numpy(np.stack([self._rows[i].values[key] for i in index]))[None]
            for key in config.streams
        }
        embeddings = model.encoder(
            {k: v if v.dtype == torch.uint8 else v.float() for k, v in frames.items()}
        )
        tokens = model.diffusion.sample(
            noise, lambda noisy, step: model.denoiser(noisy, step, embeddings)
        )
        model.actions.inverse(tokens)[0, config.past :].numpy()
        return clock.read()


def draw(figures: Mapping[str, float], path: Path) -> None:
    """Milliseconds of a control step: of both paths, and of ours with more candidates."""
    with picture(path, columns=2, size=(8, 3.2)) as axes:
        places = np.arange(len(KINDS))
        for side, (name, colour) in enumerate((("plain", ORANGE), ("ours", BLUE))):
            _draw_times(
                axes[0, 0],
                places + 0.36 * side - 0.18,
                [[figures[f"{kind}_{name}_p{part}_ms"] for kind in KINDS] for part in (50, 95)],
                colour,
                "all frames encoded anew" if name == "plain" else "newest frame encoded (ours)",
            )
        labels = [f"{kind}\n{figures[f'{kind}_speedup_p50']:.1f} times" for kind in KINDS]
        axes[0, 0].set_xticks(places, labels)
        axes[0, 0].set_title("Control step, one candidate")
        axes[0, 0].set_ylabel("processor ms; line: up to p95")
        axes[0, 0].legend()
        counts = (1, *MORE_SAMPLES)
        names = [f"resnet18_ours{'' if n == 1 else f'_n{n}'}" for n in counts]
        _draw_times(
            axes[0, 1],
            np.arange(len(counts)),
            [[figures[f"{name}_p{part}_ms"] for name in names] for part in (50, 95)],
            BLUE,
            "ours",
        )
        axes[0, 1].set_xticks(np.arange(len(counts)), counts)
        axes[0, 1].set_title("Ours with ResNet-18, several candidates")
        axes[0, 1].set_xlabel("candidates")


def _draw_times(
    axis: Axes, places: np.ndarray, times: list[list[float]], colour: str, label: str
) -> None:
    """Bars to the first of the two rows, lines from there to the second, and the first's values."""
    middle, high = times
    axis.bar(places, middle, width=0.34, color=colour, label=label)
    axis.vlines(places, middle, high, colors="black", linewidth=1.5)
    for place, value, top in zip(places, middle, high, strict=True):
        axis.annotate(
            f"{value:.0f}", (place, top), xytext=(0, 2), textcoords="offset points", ha="center",
            fontsize=8,
        )  # fmt: skip
    axis.margins(y=0.12)
