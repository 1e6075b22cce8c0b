"""How it is integrated: time grids, solver families, coefficient tables.

Every module of this folder is imported here, so a family file registers its solvers by being there.
"""

import pkgutil
from importlib import import_module

for _module in pkgutil.iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
