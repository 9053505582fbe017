"""The policies, one package each, and the registry that finds their checkpoints."""
