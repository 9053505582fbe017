"""Running the episodes of an evaluation with a progress bar, in processes or over topics."""

from __future__ import annotations

from embodied_rl.policies.evaluation import Evaluation, evaluate_in_process
from embodied_rl.sim.rollout import EpisodeResult
from embodied_rl.training.progress import progress_bar


def run_episodes(evaluation: Evaluation, *, over_ros: bool, workers: int) -> list[EpisodeResult]:
    """All episodes, in their order; the success rate so far stands beside the bar.

    Args:
        workers: processes, where it is not ``over_ros``.
    """
    with progress_bar() as bar:
        task = bar.add_task(evaluation.model, total=evaluation.episodes, note="")
        done: list[EpisodeResult] = []

        def on_episode(result: EpisodeResult) -> None:
            done.append(result)
            rate = sum(r.outcome.success for r in done) / len(done)
            bar.update(task, completed=len(done), note=f"success {rate:.3f}")

        if over_ros:
            # Only this branch needs ROS: the wheels cost a second to import, and may be absent.
            from embodied_rl.bringup.evaluate import evaluate_over_ros

            return evaluate_over_ros(evaluation, on_episode=on_episode)
        return evaluate_in_process(evaluation, workers=workers, on_episode=on_episode)


def compare(
    evaluation: Evaluation, over_ros: list[EpisodeResult], *, workers: int
) -> dict[str, float]:
    """The same episodes in-process, for outcomes and commands step by step."""
    from embodied_rl.bringup.evaluate import same_commands

    in_process = evaluate_in_process(evaluation, workers=workers)
    return same_commands(over_ros, in_process)
