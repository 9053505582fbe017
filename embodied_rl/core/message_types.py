"""Names of the message types that an embodiment file may use, and what a stream takes of each."""

from __future__ import annotations

JOINT_STATE = "sensor_msgs/msg/JointState"
IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
POSE = "geometry_msgs/msg/PoseStamped"
POSE_COVARIANCE = "geometry_msgs/msg/PoseWithCovarianceStamped"
TF = "tf2_msgs/msg/TFMessage"
ODOMETRY = "nav_msgs/msg/Odometry"
LASER_SCAN = "sensor_msgs/msg/LaserScan"
POINT_CLOUD = "sensor_msgs/msg/PointCloud2"
IMU = "sensor_msgs/msg/Imu"
WRENCH = "geometry_msgs/msg/WrenchStamped"
JOY = "sensor_msgs/msg/Joy"
JOINT_TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"
TRAJECTORY_FEEDBACK = "control_msgs/action/FollowJointTrajectory_FeedbackMessage"  # of a bag
GRIPPER_COMMAND = "control_msgs/msg/GripperCommand"
GRIPPER_ACTION = "control_msgs/action/GripperCommand"
FLOAT = "std_msgs/msg/Float64"
FLOAT32 = "std_msgs/msg/Float32"
FLOAT_ARRAY = "std_msgs/msg/Float64MultiArray"
FLOAT32_ARRAY = "std_msgs/msg/Float32MultiArray"
TWIST_STAMPED = "geometry_msgs/msg/TwistStamped"
TWIST = "geometry_msgs/msg/Twist"

IMAGE_TYPES = (IMAGE, COMPRESSED_IMAGE)
HEADERLESS = (FLOAT, FLOAT32, FLOAT_ARRAY, FLOAT32_ARRAY)  # known by the time they are received

# type -> the fields a stream may take from it; an empty tuple means the message is one value
_POSE = ("position", "orientation", "yaw")
STREAM_FIELDS: dict[str, tuple[str, ...]] = {
    JOINT_STATE: ("position", "velocity", "effort"),
    POSE: _POSE,
    POSE_COVARIANCE: _POSE,
    TF: _POSE,
    ODOMETRY: ("position", "orientation", "yaw", "linear_velocity", "angular_velocity"),
    TWIST_STAMPED: ("linear_velocity", "angular_velocity"),
    IMU: ("orientation", "angular_velocity", "linear_acceleration"),
    WRENCH: ("force", "torque"),
    JOY: ("axes", "buttons"),
    FLOAT: (),
    FLOAT32: (),
    FLOAT_ARRAY: (),
    FLOAT32_ARRAY: (),
    IMAGE: (),
    COMPRESSED_IMAGE: (),
    LASER_SCAN: (),
    POINT_CLOUD: (),
}
COMMAND_TYPES = (
    JOINT_TRAJECTORY,
    FLOAT_ARRAY,
    FLOAT,
    JOINT_STATE,
    GRIPPER_COMMAND,
    GRIPPER_ACTION,
    POSE,
    TWIST_STAMPED,
    TWIST,
)
VELOCITY_TYPES = (TWIST_STAMPED, TWIST)
STAMPED_TARGETS = (TWIST_STAMPED, JOINT_STATE, POSE)  # of the commands that are in force at once
SINGLE_TYPES = (FLOAT, GRIPPER_COMMAND, GRIPPER_ACTION)  # commands of one joint

# What a part of a pose or of an odometry is made of; orientation is a quaternion. Positions are in
# the frame of the header, the velocities of an odometry in that of the robot (REP 105).
XYZ = ("x", "y", "z")
COMPONENTS: dict[str, tuple[str, ...]] = {
    "position": XYZ,
    "orientation": ("x", "y", "z", "w"),
    "yaw": ("yaw",),
    "linear_velocity": XYZ,
    "angular_velocity": XYZ,
    "linear_acceleration": XYZ,
    "force": XYZ,
    "torque": XYZ,
}
# Fields that are a place or a direction in the frame of the header, where `frame` can be declared.
# Without it those of FRAME_BOUND are held to the robot's base frame; the others are in the frame
# of their sensor, whatever it is called.
FRAMED: dict[str, tuple[str, ...]] = {
    POSE: _POSE,
    POSE_COVARIANCE: _POSE,
    TF: _POSE,
    ODOMETRY: _POSE,
    TWIST_STAMPED: ("linear_velocity", "angular_velocity"),
    IMU: ("angular_velocity", "linear_acceleration"),
    WRENCH: ("force", "torque"),
}
FRAME_BOUND = (POSE, POSE_COVARIANCE, TF, ODOMETRY)

# what a stream may hold: encoding -> (dtype, channels)
ENCODINGS: dict[str, tuple[str, int]] = {
    "rgb8": ("uint8", 3),
    "mono8": ("uint8", 1),
    "mono16": ("uint16", 1),
    "16UC1": ("uint16", 1),
    "32FC1": ("float32", 1),
}

# Topics on which the stack itself speaks; a robot's file must not lay a stream or command on them.
RESERVED_TOPICS = (
    "clock",
    "command/executed",
    "diagnostics",
    "embodiment",
    "emergency_stop",
    "episode/outcome",
    "episode/start",
    "instruction",
    "parameter_events",
    "policy/chunk",
    "policy/heartbeat",
    "policy/memory",
    "policy/plan",
    "robot_description",
    "rosout",
    "tracker/mask",
    "tracker/prompt",
    "tracker/status",
)
