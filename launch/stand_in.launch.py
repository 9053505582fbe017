"""A stand-in robot behind the topics of an embodiment file, for trying a graph without the robot.

    ros2 launch embodied_rl stand_in.launch.py embodiment:=my_robot.yaml

Arguments: the same as of `embodied_rl launch stand_in`; `--show-args` lists them.
"""

from launch import LaunchDescription

from embodied_rl.bringup.ros_launch import description


def generate_launch_description() -> LaunchDescription:
    return description("stand_in")
