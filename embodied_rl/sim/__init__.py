"""Simulators behind one interface: physics, sensors, tasks and scripted experts.

Start at :func:`embodied_rl.sim.registry.make_simulator`; :mod:`embodied_rl.sim.base` holds the
interface, :mod:`embodied_rl.sim.mujoco_sim` the MuJoCo backend.
"""
