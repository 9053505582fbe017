"""Bags to dataset cache, several episodes at a time; resumable."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    ProcessPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from embodied_rl.bags import cache
from embodied_rl.bags.arrays import ArrayWriter, keep_rows
from embodied_rl.bags.cache import Contract, EpisodeRecord, Index
from embodied_rl.bags.episode import EpisodeReader
from embodied_rl.bags.read import Bag, BagPath, find_bags
from embodied_rl.bags.report import Report
from embodied_rl.core.checkpoint import atomic_write
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.parent import start_worker

TEMPORARY = ".tmp"


@dataclass(frozen=True)
class Job:
    """One bag to convert, in a form that a worker process can be handed."""

    bag: BagPath
    folder: Path
    embodiment_text: str
    embodiment_origin: str
    given: bool  # the embodiment was named by the user: the bag's own does not count
    keys: tuple[str, ...]
    namespace: str | None


@dataclass(frozen=True)
class Result:
    """What became of one bag. Without rows there is no episode."""

    bag: str
    rows: int
    lines: list[str]
    size: int  # bytes of the bag
    reused: bool = False


@dataclass
class Summary:
    """What became of all."""

    out: Path
    results: list[Result] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def usable(self) -> list[Result]:
        return [result for result in self.results if result.rows]

    @property
    def fresh(self) -> list[Result]:
        return [result for result in self.results if not result.reused]


def convert(
    root: str | Path,
    out: str | Path,
    *,
    embodiment: Embodiment | None = None,
    keys: Iterable[str] | None = None,
    namespace: str | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Summary:
    """Convert every bag at or below ``root`` into the cache ``out``.

    Args:
        embodiment: default: the one that the bags carry.
        keys: streams to keep; default: those of the embodiment that any of the bags has.
        workers: processes; default: one a core.
        progress: called with (bags done, bags in all).

    Raises:
        UserError: no bag, no embodiment, an unknown stream, ``out`` holds the cache of another
            robot or other streams, or it cannot be written.
    """
    began, out, bags = time.monotonic(), Path(out), find_bags(root)
    robot = embodiment if embodiment is not None else _recorded_embodiment(bags, namespace)
    chosen = tuple(sorted(_recorded_streams(bags, robot) if keys is None else robot.require(keys)))
    for key in chosen:
        cache.check_key(key)
    contract = Contract.of(robot, chosen)
    summary = Summary(out)
    with _claimed(out):
        _open_index(out, contract, robot)
        jobs = []
        for bag in bags:
            folder = out / cache.folder_name(bag.name)
            if cache.episode_is_whole(folder, bag.fingerprint(), contract):
                record = EpisodeRecord.read(folder)
                summary.results.append(
                    Result(bag.name, record.rows, record.report, bag.size, reused=True)
                )
                continue
            jobs.append(
                Job(
                    bag, folder, robot.text, robot.origin, embodiment is not None, chosen, namespace
                )
            )
        progress(len(summary.results), len(bags))
        for result in _run(jobs, workers or os.cpu_count() or 1):
            summary.results.append(result)
            progress(len(summary.results), len(bags))
        order = {bag.name: place for place, bag in enumerate(bags)}
        summary.results.sort(key=lambda result: order[result.bag])
        names = [cache.folder_name(result.bag) for result in summary.usable]
        Index(contract, True, names).write(out)
    summary.seconds = time.monotonic() - began
    return summary


def convert_bag(job: Job) -> Result:
    """Convert one bag; what is wrong with it is in the result's lines.

    Raises:
        UserError: the cache cannot be written.
    """
    report = Report(job.bag.name)
    with Bag(job.bag, report) as bag:
        try:
            reader = _reader(job, bag)
        except UserError as error:
            lines = [*report.lines(), _with_name(job.bag.name, error)]
            return Result(job.bag.name, 0, lines, job.bag.size)
        try:
            rows = _write(job, reader)
        except OSError as error:
            raise UserError(f"{job.folder}: cannot be written: {error.strerror}") from error
    return Result(job.bag.name, rows, report.lines(), job.bag.size)


@lru_cache(maxsize=8)
def _robot(text: str, origin: str) -> Embodiment:
    """Parsed once for all bags of a process."""
    return Embodiment.parse(text, origin)


def _reader(job: Job, bag: Bag) -> EpisodeReader:
    robot = _robot(job.embodiment_text, job.embodiment_origin)
    reader = EpisodeReader(bag, robot, job.keys, job.namespace, copy=False)
    text = reader.facts.embodiment_text
    if text and not job.given:
        own = _robot(text, f"{bag.place.name}: /embodiment")
        Contract.of(robot, job.keys).check(Contract.of(own, job.keys), bag.place.name)
    return reader


def _with_name(bag: str, error: UserError) -> str:
    text = str(error)
    return text if text.startswith(bag) else f"{bag}: {text}"


def _write(job: Job, reader: EpisodeReader) -> int:
    """Stream the rows to disk; returns their number. Without rows no folder is left."""
    # the process in its name: whoever outlived a killed conversion must not write into ours
    temporary = job.folder.with_name(f".{job.folder.name}.{os.getpid()}{TEMPORARY}")
    temporary.mkdir(parents=True)
    try:
        with ExitStack() as stack:
            values, valid = {}, {}
            for key, stream in reader.embodiment.require(job.keys).items():
                path = temporary / cache.values_file(key)
                writer = ArrayWriter(path, stream.shape, stream.dtype)
                values[key] = stack.enter_context(writer)
                valid[key] = stack.enter_context(
                    ArrayWriter(temporary / cache.valid_file(key), (), "bool")
                )
            for row in reader.rows():
                for key in job.keys:
                    values[key].append(row.values[key])
                    valid[key].append(np.asarray(row.valid[key]))
        rows = _finish(job, reader, temporary)
        if rows:
            shutil.rmtree(job.folder, ignore_errors=True)
            os.rename(temporary, job.folder)
        return rows
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _finish(job: Job, reader: EpisodeReader, folder: Path) -> int:
    """Cut to the episode, add actions and the record."""
    segment, span = reader.segment(), reader.span()
    rows = len(segment.stamps_ns)
    if len(reader.segments) > 1:
        for path in folder.glob("*.npy"):
            keep_rows(path, span)
    actions, action_valid = reader.actions()
    np.save(folder / cache.STAMPS, np.array(segment.stamps_ns, dtype=np.int64))
    np.save(folder / cache.ACTIONS, actions)
    np.save(folder / cache.ACTION_VALID, action_valid)
    contract = Contract.of(reader.embodiment, job.keys)
    EpisodeRecord(
        bag=job.bag.name,
        source=job.bag.fingerprint(),
        rows=rows,
        embodiment_hash=contract.embodiment_hash,
        streams=contract.streams,
        instruction=reader.instruction,
        info=asdict(reader.info) if reader.info else None,
        outcome=asdict(segment.outcome) if segment.outcome else None,
        damaged=reader.report.damaged,
        report=reader.report.lines(),
    ).write(folder)
    return rows


def _run(jobs: list[Job], workers: int) -> Iterator[Result]:
    if min(workers, len(jobs)) <= 1:
        yield from map(convert_bag, jobs)
        return
    # spawn, not fork: the caller may hold threads of ROS or torch
    pool = ProcessPoolExecutor(
        min(workers, len(jobs)), mp_context=get_context("spawn"), initializer=start_worker
    )
    try:
        waiting = {pool.submit(convert_bag, job) for job in jobs}
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    except BrokenProcessPool as error:
        raise UserError(
            "a conversion process was killed (out of memory?); run again with --workers 1"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _recorded_embodiment(bags: list[BagPath], namespace: str | None) -> Embodiment:
    """That of the first bag that carries one."""
    for place in bags:
        with Bag(place, Report(place.name)) as bag:
            if any(name.endswith("/embodiment") for name in bag.topics):
                reader = EpisodeReader(bag, None, (), namespace)
                return reader.embodiment
    raise UserError(
        f"{bags[0].folder}: expected the robot's description on topic 'embodiment', saw none in "
        f"{len(bags)} bags; name the file with --embodiment"
    )


def _recorded_streams(bags: list[BagPath], robot: Embodiment) -> list[str]:
    """The streams that at least one bag holds: a camera that was off in all is not asked for."""
    missing, found = dict(robot.streams), []
    for place in bags:
        with Bag(place, Report(place.name)) as bag:
            for key, stream in list(missing.items()):
                if any(name.endswith(f"/{stream.topic}") for name in bag.topics):
                    found.append(key)
                    del missing[key]
        if not missing:
            break
    return found or list(robot.streams)


def _open_index(out: Path, contract: Contract, robot: Embodiment) -> None:
    """Take over an existing cache of the same contract, or begin one."""
    episodes: list[str] = []
    if (out / cache.INDEX).exists():
        index = Index.read(out)
        contract.check(index.contract, f"{out / cache.INDEX} (name another --out?)")
        episodes = index.episodes
    with atomic_write(out / cache.ROBOT) as temporary:
        temporary.write_text(robot.text, encoding="utf-8")
    Index(contract, False, episodes).write(out)


@contextmanager
def _claimed(out: Path) -> Iterator[None]:
    """Hold the folder against a second conversion."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = open(out / ".lock", "w")  # noqa: SIM115 - held for the whole conversion
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{out}: another conversion is running there") from error
        for left in out.glob(f".*{TEMPORARY}"):  # by a conversion that was killed
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
        yield
