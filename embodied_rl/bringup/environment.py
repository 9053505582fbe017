"""What every process of a graph finds in its environment, and where the shipped files lie."""

from __future__ import annotations

import fcntl
import importlib.metadata
import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from embodied_rl.core.errors import UserError

PACKAGE = "embodied_rl"
PROFILE = "config/fastdds_profile.xml"
LOCAL_PROFILE = "config/fastdds_local_profile.xml"
# One variable, renamed in Kilted, which warns of the old name; Jazzy does not know the new one.
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
_BEFORE_DISCOVERY_RANGE = ("foxy", "galactic", "humble")
_BEFORE_FASTDDS_3 = (*_BEFORE_DISCOVERY_RANGE, "iron", "jazzy")
ROS_ADVICE = "make setup installs the wheels; or source /opt/ros/<distro>/setup.bash first"
_DOMAINS = range(1, 102)  # 0 is everybody's; above 101 the ports meet the system's own
_turns = itertools.count(os.getpid())  # a domain just given back is not the next to be claimed
_claims: dict[int, TextIO] = {}  # domain -> its lock
_BOOTSTRAP_MARK = "_ROS_WHEELS_BOOTSTRAP_COMPLETE"


def share_folders() -> list[Path]:
    """Returns the folders that may hold launch/, config/, sim_worlds/ and models/, nearest first.

    The source tree comes first: with the ROS wheels there is no ament index to ask.
    """
    folders = [Path(__file__).resolve().parents[2]]
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    folders += [Path(prefix) / "share" / PACKAGE for prefix in [*prefixes, sys.prefix] if prefix]
    return folders


def share_file(relative: str) -> Path:
    """Returns a shipped file.

    Raises:
        UserError: it is in none of the folders.
    """
    folders = share_folders()
    for folder in folders:
        if (folder / relative).is_file():
            return folder / relative
    raise UserError(
        f"{relative}: not found in {', '.join(map(str, folders))}; "
        "install with 'pip install -e .' or source the colcon workspace"
    )


def models() -> dict[str, Path]:
    """Returns the shipped checkpoints: name -> folder."""
    found: dict[str, Path] = {}
    for folder in share_folders():
        for config in sorted(folder.glob("models/*/config.yaml")):
            found.setdefault(config.parent.name, config.parent)
    return found


def defaults(local: bool) -> dict[str, str]:
    """Returns the variables a graph sets unless the user has set them.

    Args:
        local: speak and listen on this machine only (a simulation must not meet a robot on the
            network), unless the user has opened it with one of ROS's own variables.
    """
    local = local and not _opened()
    wanted = {
        "RMW_IMPLEMENTATION": "rmw_fastrtps_cpp",
        # small networks, once a tick: more threads only steal cores from the simulator
        "OMP_NUM_THREADS": "1",
        "MUJOCO_GL": "egl",
        "PYTHONUNBUFFERED": "1",
    }
    if local and os.environ.get("ROS_DISTRO") in _BEFORE_DISCOVERY_RANGE:
        wanted["ROS_LOCALHOST_ONLY"] = "1"
    elif local:
        wanted["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    if not any(os.environ.get(name) for name in PROFILE_VARIABLES):
        wanted[profile_variable()] = str(share_file(LOCAL_PROFILE if local else PROFILE))
    return {name: value for name, value in wanted.items() if not os.environ.get(name)}


def profile_variable() -> str:
    """The variable that names the profile to the Fast DDS of this ROS."""
    distro = os.environ.get("ROS_DISTRO")
    if distro:
        return PROFILE_VARIABLES[distro not in _BEFORE_FASTDDS_3]
    try:
        importlib.metadata.version("ros-fastdds")  # of the wheels since Kilted
    except importlib.metadata.PackageNotFoundError:
        return PROFILE_VARIABLES[0]
    return PROFILE_VARIABLES[1]


def _opened() -> bool:
    """Whether the user wants others on the network to take part."""
    discovery = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "").upper()
    return discovery == "SUBNET" or os.environ.get("ROS_LOCALHOST_ONLY") == "0"


def private_domain() -> int:
    """A ROS domain that no other process of this machine that asks here has, until we end or
    :func:`release_domain` it.

    Two graphs that share a domain by chance mix their topics, and nothing looks wrong at first.

    Raises:
        UserError: all are taken.
    """
    for _ in _DOMAINS:
        domain = _DOMAINS[next(_turns) % len(_DOMAINS)]
        path = Path(tempfile.gettempdir()) / f"{PACKAGE}_domain_{domain}.lock"
        try:
            claim = open(path, "a", encoding="utf-8")  # noqa: SIM115
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # somebody has it, or the file is another user's
            continue
        _claims[domain] = claim  # the lock lives as long as the file is open
        return domain
    raise UserError(f"ROS_DOMAIN_ID: expected a free one of {_DOMAINS}, saw all of them taken")


def release_domain(domain: int) -> None:
    """Give a domain back whose processes have ended."""
    _claims.pop(domain).close()


def child_environment(extra: Mapping[str, str], prefix: str | Path = sys.prefix) -> dict[str, str]:
    """Returns the environment of a child that runs the interpreter installed below `prefix`.

    The ROS wheels set LD_LIBRARY_PATH by executing Python once more, and mark that they did. A
    mark left by the interpreter of another environment would make ours skip that step, so the mark
    and foreign library folders are dropped unless they are our own.
    """
    environment = {**os.environ, **extra}
    paths = [p for p in environment.get("LD_LIBRARY_PATH", "").split(os.pathsep) if p]
    wheels = [p for p in paths if "site-packages/ros_" in p]
    foreign = [p for p in wheels if not Path(p).is_relative_to(prefix)]
    if foreign:
        environment["LD_LIBRARY_PATH"] = os.pathsep.join(p for p in paths if p not in foreign)
    if foreign or not wheels:
        environment.pop(_BOOTSTRAP_MARK, None)
    return environment


def require_ros() -> None:
    """Tries ROS before anything starts: a missing or foreign one would fail node by node.

    Raises:
        UserError: ``import rclpy`` does not work; says why and what to do.
    """
    tried = subprocess.run(
        [sys.executable, "-c", "import rclpy"],
        env=child_environment({}),
        capture_output=True,
        text=True,
    )
    if tried.returncode:
        reason = (tried.stderr.strip().splitlines() or [f"exit code {tried.returncode}"])[-1]
        raise UserError(f"ROS 2 does not work here: import rclpy: {reason}; {ROS_ADVICE}")
