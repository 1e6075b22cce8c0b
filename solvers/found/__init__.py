"""What is found for a model without training a solver: time grids, and the statistics of DPM-Solver-v3."""
