"""An evaluation over real ROS topics: the simulation graph in lockstep, read back from its bags."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from embodied_rl.bags import topics
from embodied_rl.bags.episode import Episode, read_episode
from embodied_rl.bags.messages import Decoder
from embodied_rl.bags.read import Bag
from embodied_rl.bringup.environment import child_environment, private_domain
from embodied_rl.bringup.names import DEFAULT_SPEC
from embodied_rl.core.decode import stamp_ns
from embodied_rl.core.errors import UserError
from embodied_rl.core.parent import die_with_starter
from embodied_rl.core.window import Observation
from embodied_rl.policies.evaluation import Evaluation, place_of
from embodied_rl.policies.registry import load_policy
from embodied_rl.sim.registry import WORLDS, world_embodiment
from embodied_rl.sim.rollout import EpisodeResult
from embodied_rl.sim.worlds.base import CameraSource


def evaluate_over_ros(
    evaluation: Evaluation, on_episode: Callable[[EpisodeResult], None] | None = None
) -> list[EpisodeResult]:
    """Run all episodes through ``embodied_rl launch sim`` and read outcome and commands back.

    The figures of the results are the policy node's, with the episode's real-time factor.

    Raises:
        UserError: the graph ended with an error; the end of its log is part of the message.
    """
    with tempfile.TemporaryDirectory(prefix="eval_ros_") as folder:
        results = []
        for result in _episodes(evaluation, Path(folder)):
            results.append(result)
            if on_episode is not None:
                on_episode(result)
        return _with_figures(results, Path(folder) / "episodes.json")


def _with_figures(results: Sequence[EpisodeResult], path: Path) -> list[EpisodeResult]:
    """What the graph wrote of each episode at its end."""
    reports = {report["episode"]: report for report in json.loads(path.read_text("utf-8"))}
    found = []
    for result in results:
        report = reports[result.info.episode]
        figures = {
            key: float(value)
            for key, value in report["policy_node"].items()
            if isinstance(value, (int, float))
        }
        figures["real_time_factor"] = report["real_time_factor"]
        found.append(replace(result, figures=figures))
    return found


def _episodes(evaluation: Evaluation, folder: Path) -> Iterator[EpisodeResult]:
    log_path = folder / "graph.log"
    with open(log_path, "w", encoding="utf-8") as log:
        graph = subprocess.Popen(
            _command(evaluation, folder),
            env=_environment(),
            stdout=log,
            stderr=log,
            preexec_fn=die_with_starter(),
        )
        try:
            for episode in range(evaluation.episodes):
                bag = _bag(folder, episode)
                while not bag.exists():
                    # The bag gets its name when it is complete; the graph may end right after it.
                    ended = graph.poll() is not None
                    if ended and not bag.exists():
                        raise UserError(_failure(graph.returncode, log_path))
                    time.sleep(0.05)
                yield _result(bag, evaluation.keep)
                # Hours of images are more than a disk may hold. The graph itself reads the last.
                shutil.rmtree(_bag(folder, episode - 1), ignore_errors=True)
            if graph.wait(timeout=60) != 0:
                raise UserError(_failure(graph.returncode, log_path))
        finally:
            graph.terminate()
            graph.wait()


def _bag(folder: Path, episode: int) -> Path:
    return folder / f"episode_{episode:06d}"


def _command(evaluation: Evaluation, folder: Path) -> list[str]:
    cameras = _cameras(evaluation)
    return [
        *(sys.executable, "-m", "embodied_rl.cli.main", "launch", "sim", "mode:=lockstep"),
        *_place(evaluation),
        f"policy:={evaluation.model}",
        f"episodes:={evaluation.episodes}",
        f"seed:={evaluation.seed}",
        f"policy_options:={json.dumps(dict(evaluation.options))}",
        f"cameras:={','.join(cameras) or 'none'}",
        "record:=true",
        f"out:={folder}",
    ]


def _place(evaluation: Evaluation) -> list[str]:
    world, task = place_of(evaluation)
    if world in DEFAULT_SPEC:
        return [f"world:={world}", f"spec:={task}", "pictures:=false"]
    return [f"world:={world}", f"task:={task}"]


def _cameras(evaluation: Evaluation) -> list[str]:
    """Names of the cameras that the policy looks through."""
    world, task = place_of(evaluation)
    policy = load_policy(evaluation.model, world_embodiment(world), task, **evaluation.options)
    sources = [WORLDS[world].sources[key] for key in policy.spec.streams]
    return sorted({source.camera for source in sources if isinstance(source, CameraSource)})


def _environment() -> dict[str, str]:
    """A domain of its own, so that no other graph of this machine joins in."""
    return child_environment({"ROS_DOMAIN_ID": str(private_domain())})


def _failure(code: int, log_path: Path) -> str:
    lines = log_path.read_text(encoding="utf-8").strip().splitlines()
    errors = [line for line in lines if "error" in line.lower()] or lines
    return f"the graph ended with exit code {code}: {' | '.join(errors[-2:])}"


def _result(path: Path, keep: Sequence[str]) -> EpisodeResult:
    with Bag.open(path) as bag:
        episode = read_episode(bag, keys=keep or None)
        limited = _limited_chunks(bag, int(episode.stamps_ns[-1]) if len(episode) else 0)
    if episode.info is None or episode.outcome is None:
        raise UserError(f"{path}: expected episode/start and episode/outcome in the bag")
    # The row of the final instant has no command that was carried out.
    commands = episode.actions[:-1]
    missing = int(np.count_nonzero(~episode.action_valid[:-1]))
    if missing:
        raise UserError(f"{path}: {missing} control ticks without a recorded command")
    rows = [_row(episode, number, keep) for number in range(len(commands))] if keep else []
    return EpisodeResult(episode.info, episode.outcome, len(commands), limited, commands, rows)


def _row(episode: Episode, number: int, keys: Sequence[str]) -> Observation:
    return Observation(
        int(episode.stamps_ns[number]),
        {key: episode.values[key][number] for key in keys},
        {key: bool(episode.valid[key][number]) for key in keys},
    )


def _limited_chunks(bag: Bag, end_ns: int) -> int:
    """How many chunks of the policy left the command gate with other targets.

    One that was planned at the final instant, ``end_ns``, was never carried out.
    """
    decoder, wanted = Decoder(bag.topics.values()), [f"/{topics.CHUNK}", f"/{topics.EXECUTED}"]
    targets: dict[str, dict[int, list[list[float]]]] = {topic: {} for topic in wanted}
    for message in bag.messages(wanted):
        trajectory = decoder(message.topic, topics.TRAJECTORY, message.data)
        positions = [point.positions.tolist() for point in trajectory.points]
        targets[message.topic][stamp_ns(trajectory.header)] = positions
    asked, executed = (targets[topic] for topic in wanted)
    return sum(
        executed.get(stamp) != positions for stamp, positions in asked.items() if stamp < end_ns
    )


def same_commands(one: list[EpisodeResult], other: list[EpisodeResult]) -> dict[str, float]:
    """How far two runs of the same evaluation agree, episode by episode and step by step."""
    pairs = list(zip(one, other, strict=True))
    aligned = [(a, b) for a, b in pairs if a.commands.shape == b.commands.shape]
    differences = [float(np.abs(a.commands - b.commands).max()) for a, b in aligned]
    return {
        "episodes": len(pairs),
        "same_outcome": sum(a.outcome == b.outcome for a, b in pairs),
        "same_commands": sum(difference == 0.0 for difference in differences),
        "steps": sum(len(a.commands) for a, _ in aligned),
        "largest_difference_rad": max(differences, default=float("nan")),
    }
