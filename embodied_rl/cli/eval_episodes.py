"""Running the episodes of an evaluation with a progress bar, in processes or over topics."""

from __future__ import annotations

from embodied_rl.policies.evaluation import Evaluation, evaluate_in_process
from embodied_rl.sim.rollout import EpisodeResult
from embodied_rl.training.progress import progress_bar


class EpisodesWithProgress:
    """:class:`embodied_rl.policies.method.Episodes` at a terminal."""

    def run(self, evaluation: Evaluation, *, over_ros: bool, workers: int) -> list[EpisodeResult]:
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
                # Only this branch needs ROS: the wheels cost a second to import, or are absent.
                from embodied_rl.bringup.evaluate import evaluate_over_ros

                return evaluate_over_ros(evaluation, on_episode=on_episode)
            return evaluate_in_process(evaluation, workers=workers, on_episode=on_episode)

    def same(self, one: list[EpisodeResult], other: list[EpisodeResult]) -> dict[str, float]:
        """How far two runs of one evaluation agree."""
        from embodied_rl.bringup.evaluate import same_commands

        return same_commands(one, other)
