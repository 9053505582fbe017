"""The other end of `_step_server`: a process that takes a step of a program when it is asked to."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from _steps import Cost

from embodied_rl.core.errors import UserError


class StepProcess:
    """Runs ``script`` with ``settings``, among them ``threads``.

    Args:
        foreign: another environment's Python: it must not find our packages and libraries.
    """

    def __init__(
        self, python: Path, script: Path, settings: Mapping[str, object], *, foreign: bool
    ) -> None:
        self.peak_mb = 0.0
        self._script, self._python = script, python
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed on exit
        self._process = subprocess.Popen(
            [python, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=_environment(foreign, int(str(settings["threads"]))),
        )
        self.description = self._ask(settings)

    def __enter__(self) -> StepProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()  # it holds nothing that is worth an orderly end
        self._process.communicate()
        self._errors.close()

    def step(self, kind: str) -> Cost:
        """Takes one step of the named kind."""
        answer = self._ask(kind)
        self.peak_mb = float(answer["peak_mb"])
        return Cost(float(answer["cpu_s"]), float(answer["wall_s"]))

    def _ask(self, value: object) -> dict[str, Any]:
        """Raises:
        UserError: the process ended; its last words are in the message.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(value) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self._errors.seek(0)
            words = self._errors.read().strip().splitlines() or ["it said nothing"]
            raise UserError(
                f"{self._script.name}, run by {self._python}: expected an answer, saw exit code "
                f"{self._process.wait()}: {words[-1]}"
            )
        return json.loads(answer)


def _environment(foreign: bool, threads: int) -> dict[str, str]:
    """Ours, or for another environment's Python without what leads into ours."""
    ours = ("PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "_ROS_WHEELS_BOOTSTRAP_COMPLETE")
    kept = {k: v for k, v in os.environ.items() if not (foreign and k in ours)}
    return {**kept, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
