"""One file for each data set that is read in a way of its own; every file here is imported, which registers it."""

from importlib import import_module
from pkgutil import iter_modules

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
