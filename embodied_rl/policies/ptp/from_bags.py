"""From a folder of bags to a PTP checkpoint: what ``embodied_rl train ptp`` does."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from embodied_rl.bags.cache import INDEX, EpisodeCache
from embodied_rl.bags.convert import convert
from embodied_rl.bags.options import Options
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.policies.method import Folders
from embodied_rl.policies.ptp.config import PtpRun
from embodied_rl.policies.ptp.method import PtpTraining
from embodied_rl.policies.ptp.train import recordings_of, train_ptp
from embodied_rl.policies.registry import find_checkpoint
from embodied_rl.training.supervised import FitResult


def train_from_bags(
    run: PtpRun, arguments: PtpTraining, folders: Folders, console: Console
) -> FitResult:
    """Converts the bags, where that has not been done, and trains.

    Raises:
        UserError: what does not fit: bags, settings, or the checkpoint of ``init``.
    """
    streams = run.model.streams
    cache = _cache(arguments, folders.work / "cache", streams, console)
    recordings, failed, halves = recordings_of(cache, streams, unfinished=arguments.unfinished)
    source = f"{len(recordings)} episodes of {arguments.bags.name}"
    if failed:
        console.print(f"left out {failed} episodes that did not end in success")
        source += f" ({failed} more left out: no success)"
    if halves:
        console.print(f"left out {halves} episodes with no outcome (--unfinished takes them)")
        source += f" ({halves} more left out: no outcome)"
    return train_ptp(
        run,
        recordings,
        cache.embodiment,
        out=folders.out,
        work=folders.work,
        source=source,
        device=arguments.device,
        resume=arguments.resume,
        init=find_checkpoint(arguments.init) if arguments.init else None,
    )


def _cache(
    arguments: PtpTraining, folder: Path, streams: tuple[str, ...], console: Console
) -> EpisodeCache:
    """The bags as a dataset cache; bags that were converted before are not read again."""
    bags, measured = arguments.bags, arguments.actions == "measured"
    if (bags / INDEX).exists():
        if arguments.embodiment is not None or measured:
            raise UserError(
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
            options=Options(measured=measured),
            workers=arguments.workers,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    for line in (line for result in summary.results for line in result.lines):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    return EpisodeCache(folder, streams)
