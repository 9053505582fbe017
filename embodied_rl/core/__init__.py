"""What every room speaks: embodiment, windows, policy interface, commands, checkpoints.

Nothing here imports anything else of ours, and nothing here needs ROS or torch.
"""
