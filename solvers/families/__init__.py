"""One file a family of solvers or of grids, registered by being there: every module here and below is imported."""

import pkgutil
from importlib import import_module

for _module in pkgutil.walk_packages(__path__, f"{__name__}."):
    import_module(_module.name)
