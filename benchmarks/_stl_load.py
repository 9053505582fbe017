"""The load that the monitor's budget is stated for: 20 joints at 100 Hz, ten formulas of two
predicates each, windows that reach 10 s ahead."""

from __future__ import annotations

RATE_HZ = 100
HORIZON = 999  # steps that a formula reaches ahead
JOINTS = tuple(f"j{i}" for i in range(20))
ROBOT = f"""
name: bench
control_rate_hz: {RATE_HZ}
streams:
  q: {{topic: joint_states, type: sensor_msgs/msg/JointState, field: position, unit: rad,
      joints: [{", ".join(JOINTS)}], rate_hz: {RATE_HZ}, max_age_s: 0.1}}
commands:
  c: {{topic: c, type: std_msgs/msg/Float64MultiArray, joints: [a], unit: rad,
      lower: [-1], upper: [1], max_velocity: [1]}}
"""


def specification(extra: str = "") -> str:
    """The specification's text; ``extra`` are lines of further formulas."""
    formulas = "".join(
        f"  {a}: G[0,5] ({a} > -0.99 -> F[0,4.99] {b} < 0.9)\n"
        for a, b in zip(JOINTS[::2], JOINTS[1::2])
    )
    signals = "".join(f"  {joint}: {{stream: q, component: {joint}}}\n" for joint in JOINTS)
    head = f"name: bench\ndt_s: {1 / RATE_HZ}\nmode: sliding\n"
    return f"{head}formulas:\n{formulas}{extra}signals:\n{signals}"
