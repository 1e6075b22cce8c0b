"""Solvers whose steps or coefficients depend on the sample: they have no table."""
