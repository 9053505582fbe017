"""Worlds: the robot, its surroundings and its sensors, built in code; one module a world."""
