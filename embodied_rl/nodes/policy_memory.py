"""The services that save and load a policy's memory, answered between two of its plans."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from rclpy.node import Node
from std_srvs.srv import Trigger

from embodied_rl.core.checkpoint import atomic_write
from embodied_rl.core.errors import UserError
from embodied_rl.core.loop import ControlLoop
from embodied_rl.core.schema import plain
from embodied_rl.nodes.deferred import create_deferred_service
from embodied_rl.nodes.policy_worker import PolicyWorker


class MemoryServices:
    """``~/save_memory`` and ``~/load_memory`` of a node's file at ``path``.

    Args:
        trace: called with the traceback of an error that is nobody's fault but ours.
    """

    def __init__(self, node: Node, worker: PolicyWorker, path: Path, trace: Callable[[str], None]):
        self._worker, self._path, self._trace = worker, path, trace
        actions = {"save_memory": self._save, "load_memory": self._load}
        self.services = [
            create_deferred_service(
                node, Trigger, f"~/{name}", functools.partial(self._between_ticks, action)
            )
            for name, action in actions.items()
        ]

    def _between_ticks(self, action: Callable[[ControlLoop], str], request) -> Future:
        """The response, once there is one."""
        answer: Future = Future()

        def carry_out(loop: ControlLoop | None) -> None:
            try:
                if loop is None:
                    raise UserError("the policy was stopped before it could answer")
                answer.set_result(Trigger.Response(success=True, message=action(loop)))
            except Exception as error:
                if not isinstance(error, (UserError, OSError)):
                    self._trace(traceback.format_exc())
                line = plain(str(error))
                answer.set_result(Trigger.Response(success=False, message=line))

        if self._worker.alive:
            self._worker.ask(carry_out)
        else:
            carry_out(None)
        return answer

    def _save(self, loop: ControlLoop) -> str:
        blob = loop.policy.save_memory()
        with atomic_write(self._path) as temporary:
            temporary.write_bytes(blob)
        return f"{len(blob)} bytes in {self._path}"

    def _load(self, loop: ControlLoop) -> str:
        blob = self._path.read_bytes()
        loop.load_memory(blob)
        return f"{len(blob)} bytes from {self._path}"
