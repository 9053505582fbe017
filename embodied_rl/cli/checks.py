"""The questions of ``embodied_rl doctor``: one small function each, run in a process of its own.

    python -m embodied_rl.cli.checks NAME

prints one line of JSON. A check returns what it found, or raises :class:`Trouble` with what to do;
a crash, a hang or a missing library then costs its own line of the report and nothing else.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from embodied_rl.bringup.environment import (
    PACKAGE,
    PROFILE,
    ROS_ADVICE,
    models,
    profile_variable,
    share_file,
)
from embodied_rl.bringup.graph_arguments import GRAPHS
from embodied_rl.bringup.interpreter import graph_of
from embodied_rl.core.errors import UserError

SETUP = "make setup"
_GIB = 1 << 30
_SEGMENT = 16 << 20
# as cheap as the simulator's own worlds: no shadows, no multisampling
_RED_BALL = """<mujoco><visual><quality shadowsize="0" offsamples="0"/></visual>
<worldbody><light pos="0 0 3"/><geom type="plane" size="1 1 .1"/>
<geom type="sphere" size=".2" pos="0 0 .2" rgba="1 0 0 1"/></worldbody></mujoco>"""


class Trouble(Exception):
    """Something does not work: what was seen, and what to do about it."""

    def __init__(self, seen: str, advice: str) -> None:
        super().__init__(seen)
        self.seen, self.advice = seen, advice


def _version(package: str, advice: str = SETUP) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        raise Trouble(f"{package} is not installed", advice) from None


def python() -> str:
    seen = f"{platform.python_version()} ({sys.executable})"
    if not (3, 10) <= sys.version_info[:2] <= (3, 13):
        raise Trouble(seen, "Python 3.10 to 3.13: PYTHON=/path/to/python make setup")
    return seen


def ros() -> str:
    try:
        import_seen = subprocess.run(
            [sys.executable, "-c", "import rclpy; print(rclpy.__file__)"],
            capture_output=True,
            text=True,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        raise Trouble(f"import rclpy: {_last_line(error.stderr)}", ROS_ADVICE) from None
    distro = os.environ.get("ROS_DISTRO")
    if distro:
        return f"rclpy of ROS 2 {distro} ({Path(import_seen.stdout.strip()).parent})"
    try:
        return f"rclpy {importlib.metadata.version('ros-jazzy-rclpy')} (wheels, jazzy)"
    except importlib.metadata.PackageNotFoundError:
        return f"rclpy in {Path(import_seen.stdout.strip()).parent}"


def ros_node() -> str:
    facts = _ros_probe("node", 20.0)
    segment = facts["segment"]
    if facts["rmw"] != "rmw_fastrtps_cpp":
        return f"{facts['rmw']}; the shared-memory profile is for rmw_fastrtps_cpp"
    if segment < _SEGMENT:
        raise Trouble(
            f"shared-memory segment of {segment / 2**20:.1f} MiB: the profile is not in force",
            f"export {profile_variable()}=.../{PROFILE} (embodied_rl launch sets it)",
        )
    return f"{facts['rmw']}, shared-memory segment {segment / 2**20:.0f} MiB"


def ros_roundtrip() -> str:
    command = [sys.executable, "-m", "embodied_rl.nodes.ros_probe", "echo"]
    other = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        facts = _ros_probe("ping", 45.0)
    finally:
        other.terminate()
        try:
            other.wait(5)
        except subprocess.TimeoutExpired:
            other.kill()
            other.wait()
    if facts["returned"] < max(facts["sent"], 1):
        raise Trouble(
            f"{facts['returned']} of {facts['sent']} images came back from another process",
            "loopback multicast or /dev/shm is blocked: sudo ip link set lo multicast on",
        )
    return (
        f"{facts['sent']} images 640x480 to another process and back, p50 {facts['p50_ms']:.1f} ms"
    )


def _ros_probe(what: str, limit_s: float) -> dict:
    command = [sys.executable, "-m", "embodied_rl.nodes.ros_probe", what]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s)
    except subprocess.TimeoutExpired:
        raise Trouble(f"no answer within {limit_s:g} s", "see the lines above first") from None
    if done.returncode:
        raise Trouble(_last_line(done.stderr), f"ROS 2 does not work here: {SETUP}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def gl() -> str:
    from embodied_rl.cli.gl_probe import ADVICE, missing_gl

    reason = missing_gl()
    if reason:
        seen, _, advice = reason.rpartition(": ")
        raise Trouble(seen, advice)
    import mujoco

    model = mujoco.MjModel.from_xml_string(_RED_BALL)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    try:
        renderer = mujoco.Renderer(model, 128, 128)
    except Exception as error:  # the GL libraries raise whatever they like
        raise Trouble(f"MuJoCo cannot render: {_last_line(str(error))}", ADVICE) from None
    times_ms = []
    for _ in range(10):
        begun_s = time.perf_counter()
        renderer.update_scene(data)
        image = renderer.render()
        times_ms.append(1e3 * (time.perf_counter() - begun_s))
    renderer.close()
    if int(image.max()) == int(image.min()):
        raise Trouble("the rendered image is of one colour", ADVICE)
    backend = os.environ.get("MUJOCO_GL", "egl")
    return f"{backend}, off-screen 128x128 in {sorted(times_ms)[5]:.1f} ms a frame"


def torch() -> str:
    _version("torch", "pip install -e '.[torch]' -c constraints.txt")
    import torch as module

    module.zeros(2, 2) @ module.zeros(2, 2)
    if not module.cuda.is_available():
        gpu = "no CUDA device (policies run on the CPU)"
    else:
        gpu = f"CUDA {module.version.cuda}, {module.cuda.get_device_name(0)}"
    return f"{module.__version__}, {module.get_num_threads()} threads, {gpu}"


def mujoco() -> str:
    seen = _version("mujoco", "pip install -e '.[sim]' -c constraints.txt")
    import mujoco as module

    model = module.MjModel.from_xml_string(_RED_BALL)
    module.mj_step(model, module.MjData(model))
    return seen


def ogbench() -> str:
    advice = f"{SETUP}, or pip install --no-deps -c constraints.txt ogbench (its models are enough)"
    seen = _version("ogbench", advice)
    found = importlib.util.find_spec("ogbench")
    folder = Path(list(found.submodule_search_locations or [""])[0]) if found else Path()
    arm = sorted(folder.rglob("ur5e.xml"))
    if not arm:
        raise Trouble(f"{seen}, but {folder} holds no ur5e.xml", f"rm -r .venv; {advice}")
    return f"{seen}, UR5e and gripper in {arm[0].parent}"


def bags() -> str:
    return f"rosbags {_version('rosbags')}, mcap {_version('mcap')}"


def checkpoints() -> str:
    from embodied_rl.core.checkpoint import load_checkpoint

    found = models()
    if not found:
        raise Trouble(
            "no model is installed", "embodied_rl train --help; policy:=expert needs none"
        )
    parts = []
    for name, folder in found.items():
        _, tensors = load_checkpoint(folder)
        parts.append(f"{name} ({sum(t.size for t in tensors.values()) / 1e6:.2f} M weights)")
    return ", ".join(parts)


def disk() -> str:
    free = shutil.disk_usage(Path.cwd()).free / _GIB
    if free < 2:
        raise Trouble(
            f"{free:.1f} GiB free in {Path.cwd()}", "bags of images need some GiB: free disk"
        )
    return f"{free:.0f} GiB free in {Path.cwd()}"


def shared_memory() -> str:
    if not os.path.isdir("/dev/shm"):
        raise Trouble(
            "/dev/shm does not exist", "mount -t tmpfs shm /dev/shm (docker: --shm-size=1g)"
        )
    free = shutil.disk_usage("/dev/shm").free / 2**20
    # six processes of a graph map 16 MiB each, twice that with port queues
    if free < 192:
        raise Trouble(
            f"/dev/shm has {free:.0f} MiB free, a graph wants 192", "docker: --shm-size=1g"
        )
    return f"/dev/shm has {free:.0f} MiB free"


def launch() -> str:
    """Has the real `launch` read our files, and an interpreter found for the nodes."""
    seen = _launch_files()
    with tempfile.TemporaryDirectory() as folder:
        try:
            _, one = graph_of("sim", {"cameras": "none", "policy": "expert", "out": folder})
        except UserError as error:
            raise Trouble(str(error), "see the lines above first") from None
    return f"{seen}; nodes would run in {one.path} ({one.source})"


def _launch_files() -> str:
    ros2 = shutil.which("ros2")
    if ros2 is not None:
        for name in GRAPHS:
            command = [ros2, "launch", PACKAGE, f"{name}.launch.py", "--show-args"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=50)
            if done.returncode or f"'{GRAPHS[name].arguments[0].name}':" not in done.stdout:
                said = _last_line(done.stderr or done.stdout)
                raise Trouble(
                    f"{shlex.join(command)}: {said}",
                    "colcon build --packages-select embodied_rl, then source install/setup.bash",
                )
        return f"`ros2 launch {PACKAGE}` reads {', '.join(GRAPHS)}"
    if importlib.util.find_spec("launch_ros") is None:
        return "no `ros2` here: `embodied_rl launch` runs the same graphs"
    source = importlib.import_module("launch.launch_description_sources")
    for name in GRAPHS:
        path = str(share_file(f"launch/{name}.launch.py"))
        source.get_launch_description_from_any_launch_file(path).get_launch_arguments()
    return f"`launch` reads {', '.join(GRAPHS)}"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


def answer(check: Callable[[], str]) -> dict:
    """Returns ``{ok, seen, advice}`` of one check; no exception leaves it."""
    try:
        return {"ok": True, "seen": check(), "advice": ""}
    except Trouble as trouble:
        return {"ok": False, "seen": trouble.seen, "advice": trouble.advice}
    except Exception as error:
        return {
            "ok": False,
            "seen": f"{type(error).__name__}: {_last_line(str(error))}",
            "advice": SETUP,
        }


CHECKS: dict[str, Callable[[], str]] = {
    "python": python,
    "ros": ros,
    "ros_node": ros_node,
    "ros_roundtrip": ros_roundtrip,
    "gl": gl,
    "mujoco": mujoco,
    "ogbench": ogbench,
    "torch": torch,
    "bags": bags,
    "models": checkpoints,
    "disk": disk,
    "shared_memory": shared_memory,
    "launch": launch,
}

if __name__ == "__main__":
    print(json.dumps(answer(CHECKS[sys.argv[1]])))
