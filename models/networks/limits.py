"""What no network of a configuration passes: limits that are looked at before memory is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["Counted", "check_integers"]

_MOST_PARAMETERS = 4 * 10**9  # EDM2's largest network has 1.5 billion
_MOST_CALLS = 50_000  # of torch's functions; the deepest network of the catalogue takes 24,345
_LARGEST_INTEGER = 2**20  # widths, counts, sizes
_FACTS = {"num_params"}  # not arguments
_SMALL = 4096  # values of tables of frequencies, taps of filters


class Counted(TorchFunctionMode):
    """Ends the building of a network that is larger than any; used on the device `meta`."""

    def __init__(self) -> None:
        super().__init__()
        self._calls = self._values = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = _made(function, args, kwargs or {})
        self._calls += 1
        if isinstance(made, Tensor) and not types:  # a factory's
            self._values += made.numel()
        if self._calls > _MOST_CALLS or self._values > _MOST_PARAMETERS:
            raise ValueError(f"it makes more than {_MOST_PARAMETERS:,} parameters or {_MOST_CALLS:,} calls, the limits")
        return made


def _made(function: Any, args: Any, kwargs: Any) -> Any:
    """What `function` makes, as far as a shape goes: no values are written, and small tables are made on the CPU.

    torch computes on the device `meta` in Python, for which it imports its compiler: a second of CPU time.
    """
    given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    name = function.__name__
    if given and _writes(name):
        return given[0]
    if not given or name in ("__get__", "__set__") or sum(map(Tensor.numel, given)) > _SMALL:
        return function(*args, **kwargs)
    args, kwargs = tree_map(lambda leaf: _like(leaf, "cpu") if isinstance(leaf, Tensor) else leaf, (args, kwargs))
    made = function(*args, **kwargs)
    return _like(made, "meta") if type(made) is Tensor else made


def _like(tensor: Tensor, device: str) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=device)


def _writes(name: str) -> bool:
    return name.endswith("_") and not name.endswith("__")


def check_integers(config: Mapping[str, Any]) -> None:
    """Raise a ValueError for an integer that would make lists and tables of any length."""
    for name, value in config.items():
        if name not in _FACTS:
            _check(name, value)


def _check(name: str, value: Any) -> None:
    if isinstance(value, int) and abs(value) > _LARGEST_INTEGER:
        raise ValueError(f"{name} is {value}, more than {_LARGEST_INTEGER:,}, the limit")
    if isinstance(value, Mapping):
        check_integers(value)
    elif isinstance(value, list | tuple):
        for item in value:
            _check(name, item)
