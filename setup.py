"""Package metadata, in setup.py because colcon's ament_python build reads it from here."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from setuptools import find_packages, setup

NAME = "embodied_rl"
SHARE = f"share/{NAME}"
SHIPPED = ("launch", "config", "configs", "examples", "sim_worlds", "models")
NODES = (
    "sim_node",
    "policy_node",
    "command_gate_node",
    "recorder_node",
    "episode_node",
    "lifecycle_node",
    "operator_node",
    "plan_view_node",
    "stand_in_node",
    "stl_monitor_node",
)
MESSAGES = (
    "diagnostic", "geometry", "lifecycle", "nav", "rosgraph",
    "sensor", "std", "trajectory", "visualization",
)  # fmt: skip


def ros_wheels(distro: str) -> list[str]:
    """ROS 2 from the package index, for machines without one; `distro` is jazzy or kilted."""
    names = ("rclpy", "rmw-fastrtps-cpp", "std-srvs", *(f"{name}-msgs" for name in MESSAGES))
    return [f"ros-{distro}-{name}" for name in names]


# What a module imports decides the extra. Reading bags and the numpy core need the base alone: a
# machine that only converts bags installs neither torch nor a simulator nor ROS.
BASE = [
    "numpy",
    "PyYAML",
    "safetensors",
    "opencv-python-headless",  # pictures of other encodings and sizes, and compressed ones
    "rosbags",
    "mcap",
    "rich",
    "tyro",
]
EXTRAS = {
    "ros": ros_wheels("jazzy"),
    "ros-kilted": ros_wheels("kilted"),
    # Only the robot models of ogbench are used, it is never imported. One of its dependencies
    # (labmaze) has no wheel for Python 3.13: there `make setup` installs ogbench without them.
    "sim": [
        "mujoco",
        "ogbench; python_version < '3.13'",
        "pillow",
    ],
    "torch": ["torch==2.13.0"],
    "plot": ["matplotlib"],
    "test": ["pytest"],  # `colcon test` takes a package with this extra for one with pytest
    "dev": [
        "diffusers",  # reference implementation in tests
        "hypothesis",
        "import-linter",
        "mypy",
        "pytest",
        "pytest-timeout",
        "pytest-xdist",
        # reference implementation in tests; its antlr 4.7 runtime needs typing.io, gone in 3.13
        "rtamt; python_version < '3.13'",
        "ruff",
        "scipy",  # reference in tests, and intervals of the benchmarks
        "types-PyYAML",
    ],
}
EXTRAS["all"] = EXTRAS["sim"] + EXTRAS["torch"] + EXTRAS["plot"]


def tree(root: str) -> list[tuple[str, list[str]]]:
    """Returns the files below `root` as data_files entries that keep their folders."""
    found = []
    for folder, _, names in sorted(os.walk(root)):
        kept = [os.path.join(folder, n) for n in sorted(names) if not n.endswith((".pyc", ".log"))]
        if kept and "__pycache__" not in folder:
            found.append((f"{SHARE}/{folder}", kept))
    return found


# setup.cfg puts executables where `ros2 run` looks for them; what is typed in a terminal with the
# workspace sourced stands in bin/. Of a wheel pip makes that one itself.
WORKSPACE_BIN = [("bin", [f"scripts/{NAME}"])] if {"install", "develop"} & set(sys.argv) else []

setup(
    name=NAME,
    version="0.1.0",
    description="Learned policies with memory on ROS 2 robots: simulate, record, train, deploy.",
    long_description=Path("README.md").read_text(encoding="utf-8")
    if Path("README.md").exists()
    else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    maintainer="embodied_rl maintainers",
    maintainer_email="maintainers@example.com",
    python_requires=">=3.10",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={NAME: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (SHARE, ["package.xml"]),
        *WORKSPACE_BIN,
        *(entry for root in SHIPPED for entry in tree(root)),
    ],
    install_requires=BASE,
    extras_require=EXTRAS,
    zip_safe=False,
    entry_points={
        "console_scripts": [
            f"{NAME} = {NAME}.cli.main:main",
            *(f"{node} = {NAME}.nodes.{node}:main" for node in NODES),
        ]
    },
)
