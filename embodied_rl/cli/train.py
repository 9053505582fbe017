"""``embodied_rl train METHOD``: from bags, or from simulation, to a checkpoint in one command."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from embodied_rl.bringup.arguments import suggestion
from embodied_rl.bringup.check import check_folder
from embodied_rl.bringup.environment import share_folders
from embodied_rl.cli import UsageError
from embodied_rl.cli.options import parse
from embodied_rl.policies.method import Folders, Method, TrainArguments
from embodied_rl.policies.registry import methods

EXAMPLE = (
    "example: embodied_rl train ptp --config configs/ptp_replace_object.yaml --bags runs/bags "
    "--out models/my_ptp"
)
RESUME = "Ctrl-C saves; the same command with --resume goes on."


def main(argv: list[str]) -> int:
    """Trains; 0 when the checkpoint is written, 1 when the run was stopped before its end."""
    if not argv or argv[0] in ("-h", "--help"):
        print(_overview())
        return 0 if argv else 2
    known = trainable()
    if argv[0] not in known:
        raise UsageError(
            f"unknown method '{argv[0]}'{suggestion(argv[0], known)}; valid: {', '.join(known)}"
        )
    method = known[argv[0]]
    trainer = method.trainer
    assert trainer is not None
    (arguments,) = parse(
        {"training": trainer.arguments},
        argv[1:],
        f"embodied_rl train {method.name}",
        f"{trainer.summary} {RESUME}",
    )
    if arguments.threads < 1:
        raise UsageError(f"--threads: expected at least 1, saw {arguments.threads}")
    return _train(method, arguments)


def trainable() -> dict[str, Method]:
    """Name -> method that makes checkpoints."""
    return {name: method for name, method in methods().items() if method.trainer is not None}


def _train(method: Method, arguments: TrainArguments) -> int:
    import torch

    torch.set_num_threads(arguments.threads)
    trainer, console = method.trainer, Console()
    assert trainer is not None
    run = trainer.read(config_file(arguments.config), arguments.overrides())
    out = arguments.out or Path("runs/models") / run.name
    work = arguments.work or Path("runs/train") / run.name
    # Before the hours of work. The model's own folder comes into being complete, or not at all.
    check_folder(work, "--work")
    check_folder(out.parent, "--out")
    if arguments.resume and not trainer.has_state(work):
        # Interrupted before the first steps, or the wrong folder: the user can tell.
        console.print(f"no state of a training in {work}: beginning at step 0", soft_wrap=True)
    result = trainer.run(run, arguments, Folders(out, work), console)
    if not result.finished:
        console.print(
            f"stopped in stage {result.title} at {result.step} of {result.steps}; the same "
            "command with --resume goes on"
        )
        return 1
    console.print(f"wrote {out}: {result.step} steps in {result.wall_s:.0f} s")
    return 0


def config_file(path: Path) -> Path:
    """The file as named, or the shipped one of that name when called from elsewhere."""
    shipped = [folder / path for folder in share_folders()]
    return next((file for file in [path, *shipped] if file.is_file()), path)


def _overview() -> str:
    lines = [
        "usage: embodied_rl train METHOD [options]",
        "",
        "Each has options of its own: embodied_rl train METHOD --help lists them.",
        "",
        "methods:",
        *(f"  {method.name:<8} {method.summary}" for method in trainable().values()),
        "",
        EXAMPLE,
    ]
    return "\n".join(lines)
