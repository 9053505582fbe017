"""The experts as a method."""

from __future__ import annotations

from pathlib import Path

from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import Policy
from embodied_rl.policies.method import Method, Options, Setting


def _load(folder: Path | None, setting: Setting, options: Options) -> Policy:
    from embodied_rl.sim.tasks.expert import EXPERTS, make_expert

    if setting.task is None:
        raise UserError(f"the expert needs a task; valid: {', '.join(sorted(EXPERTS))}")
    return make_expert(setting.task, setting.embodiment)


METHOD = Method(name="expert", summary="scripted demonstrations of the simulated tasks", load=_load)
