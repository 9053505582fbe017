"""Signal temporal logic: formulas, their robustness, decomposition, and an online monitor."""
