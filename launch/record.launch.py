"""The recorder alone, driven by its services.

    ros2 launch embodied_rl record.launch.py embodiment:=my_robot.yaml

Arguments: the same as of `embodied_rl launch record`; `--show-args` lists them.
"""

from launch import LaunchDescription

from embodied_rl.bringup.ros_launch import description


def generate_launch_description() -> LaunchDescription:
    return description("record")
