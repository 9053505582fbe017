"""Tasks in signal temporal logic for the small robots of ``sim.dynamics``."""
