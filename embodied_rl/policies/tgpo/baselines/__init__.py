"""Rivals of TGPO: other ways to satisfy one formula, under the same budget of transitions."""
