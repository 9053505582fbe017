"""Learned policies with memory on ROS 2 robots: simulate, record, train, deploy."""

from __future__ import annotations

__version__ = "0.1.0"
