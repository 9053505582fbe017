"""A policy and the command gate on a robot.

    ros2 launch embodied_rl robot.launch.py embodiment:=my_robot.yaml policy:=ptp_replace_object

Arguments: the same as of `embodied_rl launch robot`; `--show-args` lists them.
"""

from launch import LaunchDescription

from embodied_rl.bringup.ros_launch import description


def generate_launch_description() -> LaunchDescription:
    return description("robot")
