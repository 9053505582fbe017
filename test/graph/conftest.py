"""Real processes over real topics: a private domain, discovery on this machine only, deadlines."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

rclpy = pytest.importorskip("rclpy")

from lifecycle_msgs.msg import Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.lifecycle import TransitionCallbackReturn  # noqa: E402
from rclpy.node import Node  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from embodied_rl.bringup.arguments import Value  # noqa: E402
from embodied_rl.bringup.environment import (  # noqa: E402
    PROFILE,
    child_environment,
    private_domain,
    profile_variable,
    release_domain,
    share_file,
)
from embodied_rl.bringup.runner import parameter_text  # noqa: E402
from embodied_rl.core.embodiment import Embodiment  # noqa: E402
from embodied_rl.core.parent import die_with_starter  # noqa: E402
from embodied_rl.core.policy import Policy  # noqa: E402
from embodied_rl.nodes.policy_node import PolicyNode  # noqa: E402
from embodied_rl.nodes.process import Stop  # noqa: E402

EMBODIMENT = share_file("sim_worlds/tabletop/ur5e_2f85.yaml")


class Processes:
    """Nodes as processes of their own, all ended with the test."""

    def __init__(self, domain: int, folder: Path):
        self._folder = folder
        self._environment = child_environment(
            {
                "ROS_DOMAIN_ID": str(domain),
                "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
                profile_variable(): str(share_file(PROFILE)),
                "OMP_NUM_THREADS": "1",
            }
        )
        self._running: dict[str, subprocess.Popen] = {}

    def start(self, name: str, *arguments: str, **parameters: Value | Path) -> subprocess.Popen:
        words = []
        for key, value in parameters.items():
            plain = str(value) if isinstance(value, Path) else value
            words += ["-p", f"{key}:={parameter_text(plain)}"]
        command = [sys.executable, "-m", f"embodied_rl.nodes.{name}"]
        log = open(self._folder / f"{name}.log", "w")  # noqa: SIM115 - lives with the process
        self._running[name] = subprocess.Popen(
            [*command, "--ros-args", *arguments, *words],
            env=self._environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=die_with_starter(),
        )
        return self._running[name]

    def kill(self, name: str) -> None:
        """End a node at once, without a word of farewell."""
        self._running[name].kill()
        self._running[name].wait(timeout=10)

    def stop(self, name: str, number: signal.Signals) -> subprocess.Popen:
        """Ask a node to end; its process."""
        self._running[name].send_signal(number)
        return self._running[name]

    def log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text()

    def close(self) -> None:
        for process in reversed(self._running.values()):
            process.send_signal(signal.SIGINT)
        for process in self._running.values():
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Probe:
    """A node of the test itself, spun by :meth:`until`."""

    def __init__(self, domain: int):
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = Node("probe", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)

    def until(self, condition: Callable[[], object], what: str, seconds: float = 180.0):
        """Run callbacks until the condition holds; fails the test past the deadline."""
        deadline_s = time.monotonic() + seconds
        while not (value := condition()):
            if time.monotonic() > deadline_s:
                pytest.fail(f"within {seconds:g} s: no {what}")
            self.executor.spin_once(timeout_sec=0.05)
        return value

    def call(self, kind, name: str, request=None, seconds: float = 180.0, settle_s: float = 0.3):
        client = self.node.create_client(kind, name)
        self.until(client.service_is_ready, f"service {name}", seconds)
        # A service can be seen before it sees its caller; an answer of that moment is lost.
        settled_s = time.monotonic() + settle_s
        self.until(lambda: time.monotonic() > settled_s, "settling")
        future = client.call_async(request or kind.Request())
        self.until(future.done, f"answer of {name}", seconds)
        self.node.destroy_client(client)
        return future.result()

    def change(self, transition: int) -> bool:
        """Ask the policy node for a transition; whether it went."""
        request = ChangeState.Request(transition=Transition(id=transition))
        return self.call(ChangeState, "policy_node/change_state", request, settle_s=1.0).success

    def activate_policy(self) -> None:
        assert self.change(Transition.TRANSITION_CONFIGURE)
        self.until(lambda: self.change(Transition.TRANSITION_ACTIVATE), "activation")

    def reset_simulator(self) -> None:
        """It refuses as long as it is not connected with those who will send it commands."""
        self.until(lambda: self.call(Trigger, "sim/reset").success, "reset of the simulator")

    def collect(self, kind, topic: str, quality=10) -> list:
        """Messages of a topic, as they come: ``(arrival in s, message)``."""
        found: list = []
        self.node.create_subscription(
            kind, topic, lambda message: found.append((time.monotonic(), message)), quality
        )
        return found

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture(scope="session", autouse=True)
def _transport() -> Iterator[None]:
    """The test's own nodes use the transport that the bring-up gives to the others."""
    wanted = {
        profile_variable(): str(share_file(PROFILE)),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    }
    before = {key: os.environ.get(key) for key in wanted}
    os.environ.update(wanted)
    yield
    for key, value in before.items():
        if value is None:
            del os.environ[key]
        else:
            os.environ[key] = value


@pytest.fixture
def domain() -> Iterator[int]:
    claimed = private_domain()
    yield claimed
    release_domain(claimed)


@pytest.fixture
def processes(domain: int, tmp_path: Path) -> Iterator[Processes]:
    made = Processes(domain, tmp_path)
    yield made
    made.close()


@pytest.fixture
def probe(domain: int) -> Iterator[Probe]:
    made = Probe(domain)
    yield made
    made.close()


class Host:
    """Runs the policy node inside this process, with a policy of the test's own making."""

    def __init__(self, domain: int, probe: Probe):
        self._domain, self._probe = domain, probe
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._spin)
        self.node: PolicyNode | None = None

    def configure(self, make: Callable[[Embodiment], Policy], **parameters: object) -> Policy:
        """The policy that ``make`` gave for the embodiment, hosted but not active yet."""
        words = [w for key, value in parameters.items() for w in ("-p", f"{key}:={value}")]
        rclpy.init(args=["--ros-args", *words], domain_id=self._domain)
        made: list[Policy] = []

        def load(name: str, embodiment: Embodiment, task: str | None, **_: object) -> Policy:
            made.append(make(embodiment))
            return made[0]

        self.node = PolicyNode(Stop(), load)
        assert self.node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        return made[0]

    def activate(self) -> None:
        self._thread.start()
        self._probe.until(
            lambda: self.node.trigger_activate() == TransitionCallbackReturn.SUCCESS, "activation"
        )

    def _spin(self) -> None:
        executor = SingleThreadedExecutor()
        executor.add_node(self.node)
        while not self._done.is_set():
            executor.spin_once(timeout_sec=0.05)

    def close(self) -> None:
        self._done.set()
        if self._thread.ident is not None:
            self._thread.join()
        if self.node is not None:
            self.node.close()
            self.node.destroy_node()
        rclpy.try_shutdown()


@pytest.fixture
def host(domain: int, probe: Probe, processes: Processes) -> Iterator[Host]:
    del processes  # they outlive it
    made = Host(domain, probe)
    yield made
    made.close()
