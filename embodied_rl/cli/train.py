"""``embodied_rl train POLICY``: from bags, or from simulation, to a checkpoint in one command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from embodied_rl.bags.cache import INDEX, EpisodeCache
from embodied_rl.bags.convert import convert
from embodied_rl.bags.options import Options
from embodied_rl.bringup.arguments import suggestion
from embodied_rl.bringup.check import check_folder
from embodied_rl.bringup.environment import share_folders
from embodied_rl.bringup.names import find_policy
from embodied_rl.cli import UsageError
from embodied_rl.core.embodiment import Embodiment

if TYPE_CHECKING:
    from embodied_rl.training.supervised import FitResult

EXAMPLE = (
    "example: embodied_rl train ptp --config configs/ptp_replace_object.yaml --bags runs/bags "
    "--out models/my_ptp"
)


CONFIGS = {  # policy -> what it is trained with if no --config is named
    "ptp": Path("configs/ptp_replace_object.yaml"),
    "relic": Path("configs/relic_darkroom.yaml"),
    "tgpo": Path("configs/tgpo_linear.yaml"),
}


@dataclass(frozen=True)
class Arguments:
    """Trains a policy (ptp from recorded bags, relic and tgpo in simulation), writes a checkpoint
    folder, in all stages that the config has. Ctrl-C saves; the same command with --resume goes on.
    """

    policy: Annotated[str, tyro.conf.Positional]
    """Which policy: ptp, relic or tgpo."""
    bags: Path | None = None
    """Folder of bags, or a dataset cache that 'embodied_rl bags convert' wrote; ptp needs it."""
    embodiment: Path | None = None
    """Embodiment file of bags that do not carry their own."""
    actions: Literal["commands", "measured"] = "commands"
    """Of bags: measured takes the next measured state of the actuators for the action."""
    unfinished: bool = False
    """Also train on episodes whose start is declared and whose outcome is not recorded."""
    config: Path | None = None
    """Model and training settings; default: configs/ptp_replace_object.yaml, relic_darkroom.yaml or
    tgpo_linear.yaml."""
    out: Path | None = None
    """Checkpoint folder; default: runs/models/NAME, NAME being the config's."""
    work: Path | None = None
    """Resumable state, log, dataset cache and embeddings; default: runs/train/NAME."""
    steps: int | None = None
    """In place of the config's training.steps; of tgpo and relic: training.transitions."""
    seed: int | None = None
    """In place of the config's training.seed."""
    init: str | None = None
    """Fine-tune: begin with the weights of this model (a name or a checkpoint folder; ptp)."""
    resume: bool = False
    """Go on from the state that an interrupted run left."""
    device: str = "auto"
    """Where to compute: auto (a GPU if there is one), cpu, cuda, or cuda:N."""
    workers: int = 2
    """Processes that convert bags."""
    threads: int = 1
    """Threads of the training; sums, and so weights, differ a little with their number."""


def main(argv: list[str]) -> int:
    """Trains; 0 when the checkpoint is written, 1 when the run was stopped before its end."""
    arguments = tyro.cli(
        Arguments, args=argv, prog="embodied_rl train", description=f"{Arguments.__doc__} {EXAMPLE}"
    )
    if arguments.policy not in TRAINERS:
        near = suggestion(arguments.policy, TRAINERS)
        raise UsageError(
            f"unknown policy '{arguments.policy}'{near}; valid: {', '.join(sorted(TRAINERS))}"
        )
    if arguments.workers < 1 or arguments.threads < 1:
        raise UsageError("--workers and --threads are at least 1")
    return TRAINERS[arguments.policy](arguments)


def _train_ptp(arguments: Arguments) -> int:
    if arguments.bags is None:
        raise UsageError("train ptp: expected --bags DIR, saw none")
    import torch

    from embodied_rl.policies.ptp.config import read_run
    from embodied_rl.policies.ptp.train import ENCODER, recordings_of, train_ptp
    from embodied_rl.training.state import has_state

    torch.set_num_threads(arguments.threads)
    given = {"steps": arguments.steps, "seed": arguments.seed}
    run = read_run(
        _config_file(arguments.config or CONFIGS["ptp"]),
        {k: v for k, v in given.items() if v is not None},
    )
    work = arguments.work or Path("runs/train") / run.name
    out = arguments.out or Path("runs/models") / run.name
    _check_folders(work, out)
    console = Console()
    if arguments.resume and not (has_state(work) or has_state(work / ENCODER)):
        _say_no_state(work, console)
    cache = _cache(arguments, work / "cache", run.model.streams, console)
    recordings, failed, unfinished = recordings_of(
        cache, run.model.streams, unfinished=arguments.unfinished
    )
    source = f"{len(recordings)} episodes of {arguments.bags.name}"
    if failed:
        console.print(f"left out {failed} episodes that did not end in success")
        source += f" ({failed} more left out: no success)"
    if unfinished:
        console.print(f"left out {unfinished} episodes with no outcome (--unfinished takes them)")
        source += f" ({unfinished} more left out: no outcome)"
    result = train_ptp(
        run,
        recordings,
        cache.embodiment,
        out=out,
        work=work,
        source=source,
        device=arguments.device,
        resume=arguments.resume,
        init=Path(find_policy(arguments.init)) if arguments.init else None,
    )
    return _say(result, out, console)


def _train_tgpo(arguments: Arguments) -> int:
    from embodied_rl.policies.tgpo.config import read_run
    from embodied_rl.policies.tgpo.train import train_tgpo

    # auto is the CPU here: with networks this small a GPU has not been shown to help
    device = "cpu" if arguments.device == "auto" else arguments.device
    return _train_in_simulation(arguments, read_run, partial(train_tgpo, device=device))


def _train_relic(arguments: Arguments) -> int:
    from embodied_rl.policies.relic.run import read_run
    from embodied_rl.policies.relic.train import train_relic

    if arguments.device not in ("auto", "cpu"):
        raise UsageError(f"train relic: expected --device cpu, saw {arguments.device}")
    return _train_in_simulation(arguments, read_run, train_relic)


def _train_in_simulation(
    arguments: Arguments, read_run: Callable[..., Any], train: Callable[..., FitResult]
) -> int:
    """Reads the policy's config and trains; the two functions are the policy's own."""
    policy = arguments.policy
    if arguments.bags is not None:
        raise UsageError(f"train {policy}: expected no --bags, it learns in simulation")
    if arguments.init is not None:
        raise UsageError(f"train {policy}: expected no --init, only ptp begins with other weights")
    import torch

    from embodied_rl.training.state import has_state

    torch.set_num_threads(arguments.threads)
    given = {"transitions": arguments.steps, "seed": arguments.seed}
    run = read_run(
        _config_file(arguments.config or CONFIGS[policy]),
        {k: v for k, v in given.items() if v is not None},
    )
    out = arguments.out or Path("runs/models") / run.name
    work = arguments.work or Path("runs/train") / run.name
    _check_folders(work, out)
    console = Console()
    if arguments.resume and not has_state(work):
        _say_no_state(work, console)
    result = train(run, out=out, work=work, resume=arguments.resume)
    return _say(result, out, console)


TRAINERS: dict[str, Callable[[Arguments], int]] = {
    "ptp": _train_ptp,
    "relic": _train_relic,
    "tgpo": _train_tgpo,
}


def _check_folders(work: Path, out: Path) -> None:
    """Before the hours of work. The model's own folder comes into being complete, or not at all."""
    check_folder(work, "--work")
    check_folder(out.parent, "--out")


def _say_no_state(work: Path, console: Console) -> None:
    """Interrupted before the first steps, or the wrong folder: the user can tell."""
    console.print(f"no state of a training in {work}: beginning at step 0", soft_wrap=True)


def _say(result: FitResult, out: Path, console: Console) -> int:
    """How the training ended, and the exit code that belongs to it."""
    if not result.finished:
        console.print(
            f"stopped in stage {result.title} at {result.step} of {result.steps}; the same "
            "command with --resume goes on"
        )
        return 1
    console.print(f"wrote {out}: {result.step} steps in {result.wall_s:.0f} s")
    return 0


def _config_file(path: Path) -> Path:
    """The file as named, or the shipped one of that name when called from elsewhere."""
    shipped = [folder / path for folder in share_folders()]
    return next((file for file in [path, *shipped] if file.is_file()), path)


def _cache(
    arguments: Arguments, folder: Path, streams: tuple[str, ...], console: Console
) -> EpisodeCache:
    """The bags as a dataset cache; bags that were converted before are not read again."""
    bags = arguments.bags
    assert bags is not None
    if (bags / INDEX).exists():
        if arguments.embodiment is not None or arguments.actions != "commands":
            raise UsageError(
                f"{bags}: expected bags for --embodiment and --actions, saw a cache, whose robot "
                "and actions were chosen when it was converted"
            )
        return EpisodeCache(bags, streams)
    robot = Embodiment.load(arguments.embodiment) if arguments.embodiment else None
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("converting bags", total=None)
        summary = convert(
            bags,
            folder,
            embodiment=robot,
            keys=streams,
            options=Options(measured=arguments.actions == "measured"),
            workers=arguments.workers,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    for line in (line for result in summary.results for line in result.lines):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    return EpisodeCache(folder, streams)
