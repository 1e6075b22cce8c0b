"""One file a family of solvers or of grids, registered by being there: every module of this folder is imported."""

import pkgutil
from importlib import import_module

for _module in pkgutil.iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
