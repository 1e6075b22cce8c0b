"""The version of what the solvers compute: cells that were finished under another are computed anew.

`tests/solvers/test_numerics.py` holds every solver to its numbers of this version.
"""

__all__ = ["NUMERICS"]

NUMERICS = 1
