"""The simulator, a policy and its episodes.

    ros2 launch embodied_rl sim.launch.py policy:=ptp_replace_object episodes:=3

Arguments: the same as of `embodied_rl launch sim`; `--show-args` lists them.
"""

from launch import LaunchDescription

from embodied_rl.bringup.ros_launch import description


def generate_launch_description() -> LaunchDescription:
    return description("sim")
