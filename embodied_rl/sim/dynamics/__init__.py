"""Small robots as batched equations of motion in torch, for signal temporal logic tasks."""
