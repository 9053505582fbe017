"""Names of the message types that an embodiment file may use, and what a stream takes of each."""

from __future__ import annotations

JOINT_STATE = "sensor_msgs/msg/JointState"
IMAGE = "sensor_msgs/msg/Image"
POSE = "geometry_msgs/msg/PoseStamped"
ODOMETRY = "nav_msgs/msg/Odometry"
LASER_SCAN = "sensor_msgs/msg/LaserScan"
JOINT_TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"
FLOAT_ARRAY = "std_msgs/msg/Float64MultiArray"
TWIST_STAMPED = "geometry_msgs/msg/TwistStamped"
TWIST = "geometry_msgs/msg/Twist"

# type -> the fields a stream may take from it; an empty tuple means the message is one value
STREAM_FIELDS: dict[str, tuple[str, ...]] = {
    JOINT_STATE: ("position", "velocity", "effort"),
    POSE: ("position", "orientation"),
    ODOMETRY: ("position", "orientation", "yaw", "linear_velocity", "angular_velocity"),
    IMAGE: (),
    LASER_SCAN: (),
}
COMMAND_TYPES = (JOINT_TRAJECTORY, FLOAT_ARRAY, TWIST_STAMPED, TWIST)
VELOCITY_TYPES = (TWIST_STAMPED, TWIST)

# What a part of a pose or of an odometry is made of; orientation is a quaternion. Positions are in
# the frame of the header, the velocities of an odometry in that of the robot (REP 105).
XYZ = ("x", "y", "z")
COMPONENTS: dict[str, tuple[str, ...]] = {
    "position": XYZ,
    "orientation": ("x", "y", "z", "w"),
    "yaw": ("yaw",),
    "linear_velocity": XYZ,
    "angular_velocity": XYZ,
}

# encoding -> (dtype, channels)
ENCODINGS: dict[str, tuple[str, int]] = {
    "rgb8": ("uint8", 3),
    "mono8": ("uint8", 1),
    "mono16": ("uint16", 1),
    "16UC1": ("uint16", 1),
    "32FC1": ("float32", 1),
}
