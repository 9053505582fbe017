"""Thin ROS 2 nodes, one file each. Only this package imports rclpy; it holds no algorithm."""
