"""The largest numbers that a request may ask for."""

from __future__ import annotations

__all__ = ["MOST_BATCH", "MOST_NFE", "SEEDS", "TABLE_NFE"]

MOST_NFE = 10_000  # evaluations of a run
TABLE_NFE = 256  # evaluations of a coefficient table, which grows with their square
MOST_BATCH = 2**16  # samples of a network call
SEEDS = 2**31  # of benchmarks, from 0; from there on are the noises that solvers are distilled on
