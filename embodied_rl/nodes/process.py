"""What every node's ``main`` needs: start, spin until told to stop, end with a sound exit code."""

from __future__ import annotations

import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence

import rclpy
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.executors import Executor, SingleThreadedExecutor, TimeoutException
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from embodied_rl.core.errors import UserError
from embodied_rl.core.parent import die_with_launcher
from embodied_rl.core.terminal import accept_any_encoding


class Stop:
    """Set by SIGINT or SIGTERM, or by a node that has finished; holds the exit code."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.code = 0

    def __bool__(self) -> bool:
        return self._event.is_set()

    def set(self, code: int = 0) -> None:
        self.code = max(self.code, code)
        self._event.set()


def run(make: Callable[[Stop], Node], spin: Callable[[Node, Stop], None] | None = None) -> int:
    """Run one node to its end.

    A node may have ``close()``, called before it is destroyed. A UserError is logged as one line
    and gives exit code 1; any other exception keeps its traceback and gives 1 as well.
    """
    accept_any_encoding()
    # Our own handlers: rclpy's would invalidate the context before a node can say its last word.
    rclpy.init(args=sys.argv, signal_handler_options=SignalHandlerOptions.NO)
    stop, node = Stop(), None
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    # `ros2 launch` leaves its nodes behind when anything but Ctrl-C ends it; a robot must not be
    # driven by what nobody looks after. SIGTERM, so that the gate leads it to a stop first.
    die_with_launcher()
    try:
        node = make(stop)
        (spin or spin_until)(node, stop)
    except UserError as error:
        if node is not None:
            node.get_logger().fatal(str(error))
        else:
            print(f"error: {error}", file=sys.stderr, flush=True)
        stop.set(1)
    except Exception:
        traceback.print_exc()
        stop.set(1)
    finally:
        try:
            if node is not None:
                if hasattr(node, "close"):
                    node.close()
                node.destroy_node()
        except UserError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            stop.set(1)
        except Exception:
            traceback.print_exc()
            stop.set(1)
        finally:
            rclpy.try_shutdown()
            # The interpreter puts the default back when it ends: one more Ctrl-C on the way out
            # would look like a crash.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
    return stop.code


def spin_until(node: Node, stop: Stop) -> None:
    """Run callbacks on this thread until ``stop`` is set."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while not stop:
            executor.spin_once(timeout_sec=0.1)
    finally:
        executor.remove_node(node)
        executor.shutdown()


def run_ready(executor: Executor, most: int = 100) -> None:
    """Run the callbacks that are ready, ``most`` of them, without waiting for others; of itself an
    executor runs one a call, or all there will be."""
    for _ in range(most):
        try:
            handler, _, _ = executor.wait_for_ready_callbacks(timeout_sec=0.0)
        except TimeoutException:  # nothing is ready
            return
        handler()
        error = handler.exception()
        if error is not None:
            raise error


def parameter(
    node: Node, name: str, default, description: str, choices: Sequence[str] | None = None
):
    """Declare a read-only parameter and return its value.

    Raises:
        UserError: the value is not one of ``choices``.
    """
    descriptor = ParameterDescriptor(description=description, read_only=True)
    value = node.declare_parameter(name, default, descriptor).value
    if choices is not None and value not in choices:
        raise UserError(
            f"{node.get_name()}: parameter {name}: expected one of {list(choices)}, saw '{value}'"
        )
    return value
