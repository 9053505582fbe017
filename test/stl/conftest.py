"""The plain definition that the fast paths are held against stands beside the benchmarks."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

# Two threads on matrices this small wait for each other, for minutes if the machine is busy.
torch = pytest.importorskip("torch")
torch.set_num_threads(1)
