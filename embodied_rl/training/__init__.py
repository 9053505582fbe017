"""Loops and tools that train policies: supervised learning, configuration files, statistics."""
