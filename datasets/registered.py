"""The data sets that are read in ways of their own, by name; their files are in `datasets.sets`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fastsample.datasets.image_set import Images

__all__ = ["REGISTERED", "register_dataset"]

Loader = Callable[[str, Path | None], Images]
REGISTERED: dict[str, tuple[str, Loader]] = {}


def register_dataset(name: str, about: str) -> Callable[[Loader], Loader]:
    """Register a function (split, path or None) -> `Images` as a data set, with a line that says what it is.

    Raises:
        ValueError: for a name that there is already.
    """

    def decorate(load: Loader) -> Loader:
        if name in REGISTERED:
            raise ValueError(f"data set {name} is registered twice")
        REGISTERED[name] = about, load
        return load

    return decorate
