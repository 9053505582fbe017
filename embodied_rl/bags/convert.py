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
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from embodied_rl.bags import cache
from embodied_rl.bags.arrays import ArrayWriter, copy_rows
from embodied_rl.bags.cache import CachedEpisode, Contract, EpisodeRecord, Index
from embodied_rl.bags.options import AS_RECORDED, Options
from embodied_rl.bags.order import read_again
from embodied_rl.bags.parts import Part
from embodied_rl.bags.read import Bag, BagPath, find_bags
from embodied_rl.bags.report import Report
from embodied_rl.bags.rows import EpisodeReader
from embodied_rl.bags.segment import Segment
from embodied_rl.bags.topics import Names
from embodied_rl.core.checkpoint import atomic_write
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.parent import start_worker

TEMPORARY = ".tmp"


@dataclass(frozen=True)
class Job:
    """One bag to convert, in a form that a worker process can be handed."""

    bag: BagPath
    out: Path  # the cache
    embodiment_text: str
    embodiment_origin: str
    given: bool  # the embodiment was named by the user: the bag's own does not count
    keys: tuple[str, ...]
    options: Options

    @property
    def source(self) -> str:
        return source_of(self.bag, self.options)


@dataclass(frozen=True)
class Result:
    """What became of one bag. Without rows there is no episode."""

    bag: str
    rows: int
    lines: list[str]
    size: int  # bytes of the bag
    reused: bool = False
    folders: list[str] = field(default_factory=list)  # of its episodes, in the cache
    actions: int = 0  # rows with an action
    unfinished: int = 0  # episodes with a declared start and no outcome


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
    options: Options = AS_RECORDED,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Summary:
    """Convert every bag at or below ``root`` into the cache ``out``.

    Args:
        embodiment: default: the one that the bags carry.
        keys: streams to keep; default: those of the embodiment that any of the bags has.
        options: how the user wants the bags to be read.
        workers: processes; default: one a core.
        progress: called with (bags done, bags in all).

    Raises:
        UserError: no bag, no embodiment, an unknown stream, ``out`` holds the cache of another
            robot or other streams, or it cannot be written.
    """
    began, out, bags = time.monotonic(), Path(out), find_bags(root)
    robot = embodiment if embodiment is not None else _recorded_embodiment(bags, options)
    chosen = tuple(
        sorted(_recorded_streams(bags, robot, options) if keys is None else robot.require(keys))
    )
    for key in chosen:
        cache.check_key(key)
    contract = Contract.of(robot, chosen)
    summary = Summary(out)
    with _claimed(out):
        _open_index(out, contract, robot)
        jobs = []
        for bag in bags:
            records = cache.whole_episodes(out, bag.name, source_of(bag, options), contract)
            if records:
                summary.results.append(_reused(out, bag, records))
                continue
            given = embodiment is not None
            jobs.append(Job(bag, out, robot.text, robot.origin, given, chosen, options))
        progress(len(summary.results), len(bags))
        for result in _run(jobs, workers or os.cpu_count() or 1):
            summary.results.append(result)
            progress(len(summary.results), len(bags))
        order = {bag.name: place for place, bag in enumerate(bags)}
        summary.results.sort(key=lambda result: order[result.bag])
        names = [name for result in summary.usable for name in result.folders]
        Index(contract, True, names).write(out)
    summary.seconds = time.monotonic() - began
    return summary


def source_of(bag: BagPath, options: Options) -> str:
    """Changes with the bag's files and with how they are read."""
    return bag.fingerprint() + ("" if options == AS_RECORDED else f";{options}")


def convert_bag(job: Job) -> Result:
    """Convert one bag; what is wrong with it is in the result's lines.

    Raises:
        UserError: the cache cannot be written.
    """
    report = Report(job.bag.name)
    # the process in its name: whoever outlived a killed conversion must not write into ours
    temporary = job.out / f".{cache.folder_name(job.bag.name)}.{os.getpid()}{TEMPORARY}"
    with Bag(job.bag, report) as bag:
        try:
            return read_again(bag, lambda in_order: _write(job, bag, temporary, in_order))
        except UserError as error:
            lines = [*report.lines(), _with_name(job.bag.name, error)]
            return Result(job.bag.name, 0, lines, job.bag.size)
        except OSError as error:
            raise UserError(
                f"{job.out}: {job.bag.name}: cannot be written: {error.strerror}"
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _reused(out: Path, bag: BagPath, records: list[EpisodeRecord]) -> Result:
    folders = [cache.folder_name(bag.name, r.episode, r.episodes) for r in records]
    return Result(
        bag.name,
        sum(record.rows for record in records),
        records[-1].report,
        bag.size,
        reused=True,
        folders=folders,
        actions=sum(int(CachedEpisode(out / f).action_valid.sum()) for f in folders),
        unfinished=sum(record.unfinished for record in records),
    )


@lru_cache(maxsize=8)
def _robot(text: str, origin: str) -> Embodiment:
    """Parsed once for all bags of a process."""
    return Embodiment.parse(text, origin)


def _reader(job: Job, bag: Bag, part: Part | None, in_order: bool) -> EpisodeReader:
    robot = _robot(job.embodiment_text, job.embodiment_origin)
    reader = EpisodeReader(
        bag, robot, job.keys, job.options, copy=False, part=part, in_order=in_order
    )
    text = reader.facts.embodiment_text
    if text and not job.given:
        own = _robot(text, f"{bag.place.name}: /embodiment")
        Contract.of(robot, job.keys).check(Contract.of(own, job.keys), bag.place.name)
    return reader


def _with_name(bag: str, error: UserError) -> str:
    text = str(error)
    return text if text.startswith(bag) else f"{bag}: {text}"


@dataclass
class _Drafted:
    """An episode in the temporary folder, and what its record will say."""

    folder: Path
    reader: EpisodeReader
    segment: Segment


def _write(job: Job, bag: Bag, temporary: Path, in_order: bool) -> Result:
    """Write all episodes of a bag, and put them in place when all are whole."""
    shutil.rmtree(temporary, ignore_errors=True)
    drafts: list[_Drafted] = []
    reader = _reader(job, bag, None, in_order)
    for number, part in enumerate(reader.parts):
        if part is not reader.part:
            drafts += _draft(job, _reader(job, bag, part, in_order), temporary / str(number))
        else:
            drafts += _draft(job, reader, temporary / str(number))
    rows = actions = unfinished = 0
    folders = []
    for episode, draft in enumerate(drafts):
        record, known = _record(job, draft, episode, len(drafts))
        folder = job.out / cache.folder_name(job.bag.name, episode, len(drafts))
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(draft.folder, folder)
        folders.append(folder.name)
        rows, actions = rows + record.rows, actions + known
        unfinished += record.unfinished
    lines = bag.report.all_lines()
    return Result(
        job.bag.name, rows, lines, job.bag.size,
        folders=folders, actions=actions, unfinished=unfinished,
    )  # fmt: skip


def _draft(job: Job, reader: EpisodeReader, folder: Path) -> list[_Drafted]:
    """Stream the rows of one part of a bag to disk; one folder each episode in it."""
    folder.mkdir(parents=True)
    with ExitStack() as stack:
        values, valid = {}, {}
        for key, stream in reader.embodiment.require(job.keys).items():
            path = folder / cache.values_file(key)
            writer = ArrayWriter(path, stream.shape, stream.dtype)
            values[key] = stack.enter_context(writer)
            valid[key] = stack.enter_context(
                ArrayWriter(folder / cache.valid_file(key), (), "bool")
            )
        for row in reader.rows():
            for key in job.keys:
                values[key].append(row.values[key])
                valid[key].append(np.asarray(row.valid[key]))
    episodes = [segment for segment in reader.episodes() if segment.stamps_ns]
    if len(reader.segments) == 1:
        return [_Drafted(folder, reader, segment) for segment in episodes]
    drafts = []
    for number, segment in enumerate(episodes):
        place = folder.with_name(f"{folder.name}.{number}")
        place.mkdir()
        for path in folder.glob("*.npy"):
            copy_rows(path, place / path.name, reader.span(segment))
        drafts.append(_Drafted(place, reader, segment))
    shutil.rmtree(folder)
    return drafts


def _record(job: Job, draft: _Drafted, episode: int, episodes: int) -> tuple[EpisodeRecord, int]:
    """Add stamps, actions and the record to an episode's folder; also how many actions."""
    reader, segment, folder = draft.reader, draft.segment, draft.folder
    actions, action_valid = reader.actions(segment)
    np.save(folder / cache.STAMPS, np.array(segment.stamps_ns, dtype=np.int64))
    np.save(folder / cache.ACTIONS, actions)
    np.save(folder / cache.ACTION_VALID, action_valid)
    contract = Contract.of(reader.embodiment, job.keys)
    record = EpisodeRecord(
        bag=job.bag.name,
        source=job.source,
        rows=len(segment.stamps_ns),
        embodiment_hash=contract.embodiment_hash,
        streams=contract.streams,
        instruction=reader.instruction,
        info=asdict(reader.info) if reader.info else None,
        outcome=asdict(segment.outcome) if segment.outcome else None,
        damaged=reader.report.damaged,
        report=reader.report.lines(),
        episode=episode,
        episodes=episodes,
    )
    record.write(folder)
    return record, int(action_valid.sum())


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


def _recorded_embodiment(bags: list[BagPath], options: Options) -> Embodiment:
    """That of the first bag that carries one."""
    for place in bags:
        with Bag(place, Report(place.name)) as bag:
            if any(f"/{name}".endswith("/embodiment") for name in bag.topics):
                return EpisodeReader(bag, None, (), replace(options, measured=False)).embodiment
    raise UserError(
        f"{bags[0].folder}: expected the robot's description on topic 'embodiment', saw none in "
        f"{len(bags)} bags; name the file with --embodiment"
    )


def _recorded_streams(bags: list[BagPath], robot: Embodiment, options: Options) -> list[str]:
    """The streams that at least one bag holds: a camera that was off in all is not asked for."""
    missing, found = dict(robot.streams), []
    for place in bags:
        with Bag(place, Report(place.name)) as bag:
            spelling = Names(bag.topics, options.namespace or "", options.remap)
            for key, stream in list(missing.items()):
                named = spelling.of(stream.topic) in bag.topics
                if named or any(f"/{name}".endswith(f"/{stream.topic}") for name in bag.topics):
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
