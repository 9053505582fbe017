"""Helpers of benchmarks are importable beside their scripts, as `embodied_rl bench` makes them."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
sys.path.insert(0, str(ROOT / "test" / "policies" / "tgpo"))  # its small tasks
