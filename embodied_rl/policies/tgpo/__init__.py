"""TGPO: one policy that reaches timed subgoals, and a search for the times (arXiv 2510.00225)."""
