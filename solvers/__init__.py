"""How it is integrated: time grids, solver families, coefficient tables."""

from fastsample.solvers import families as _families  # noqa: F401 - registers every solver
