"""Tasks: scene, randomisation, success and time limit, each with a scripted expert."""
