from __future__ import annotations

import os

import pytest

# Before anything imports torch: the tests themselves run on all cores, a process each.
os.environ.setdefault("OMP_NUM_THREADS", "1")

try:
    from hypothesis import settings
except ModuleNotFoundError:  # the machine of a robot, where colcon runs what can be run
    settings = None

if settings is not None:
    # The same cases on every machine and in every run; slow shared machines are no failure.
    settings.register_profile(
        "fixed", derandomize=True, deadline=None, database=None, max_examples=40
    )
    settings.load_profile("fixed")


class LenientModule(pytest.Module):
    """A file of tests that is skipped, with the reason, where a library it needs is missing."""

    def _getobj(self):
        try:
            return super()._getobj()
        except self.CollectError as error:
            cause = error.__cause__
            missing = cause.name if isinstance(cause, ModuleNotFoundError) else None
            if not missing or missing.startswith("embodied_rl"):
                raise
            pytest.skip(f"{missing} is not installed", allow_module_level=True)


def pytest_pycollect_makemodule(module_path, parent):
    """`colcon test` runs in the interpreter of colcon, which need not have our dependencies;
    everywhere else a missing one is a failure. It is known by the prefix that it asks for."""
    if parent.config.getoption("junitprefix", None):
        return LenientModule.from_parent(parent, path=module_path)
    return None
