"""Solvers that add noise on the way."""
