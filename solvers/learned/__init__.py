"""Learned solvers: their parameters, their fit, and where their tables lie."""
