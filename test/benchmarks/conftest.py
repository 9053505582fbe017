"""Helpers of benchmarks are importable beside their scripts, as `embodied_rl bench` makes them."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
