"""A clock and a lifecycle node for the gate's tests: fake_lifecycle.py clock|good|refuses."""

from __future__ import annotations

import sys

import rclpy
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rosgraph_msgs.msg import Clock

kind = sys.argv[1]


class Fake(LifecycleNode):
    def on_configure(self, state):
        failed = kind == "refuses"
        return TransitionCallbackReturn.FAILURE if failed else TransitionCallbackReturn.SUCCESS

    def on_activate(self, state):
        print("activated", flush=True)
        return TransitionCallbackReturn.SUCCESS


rclpy.init()
if kind == "clock":
    node = rclpy.create_node("fake_clock")
    publisher = node.create_publisher(Clock, "/clock", 1)
    node.create_timer(0.05, lambda: publisher.publish(Clock()))
else:
    node = Fake("policy_node")
rclpy.spin(node)
