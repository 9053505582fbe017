"""Bags: rosbag2 recordings read, written, checked and turned into training windows, without ROS."""
