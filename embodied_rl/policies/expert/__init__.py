"""The scripted demonstrators of the simulated tasks, which need no checkpoint."""
