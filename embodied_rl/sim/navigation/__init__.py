"""Batched worlds for navigation that is learned in context: many episodes in one fixed world."""
