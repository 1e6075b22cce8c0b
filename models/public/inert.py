"""What a pickle of tensors is made into: inert data, by an explicit table of functions for each global that it names.

The machine and its limits are those of `fastsample.datasets.pickles`.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import IO, Any

import torch
from torch import Tensor

from fastsample.datasets.pickles import MOST_OPCODES, InertUnpickler, check_keys
from fastsample.models.checkpoints import CheckpointError

__all__ = [
    "TENSORS",
    "Call",
    "Dict",
    "Inert",
    "Scripted",
    "Storage",
    "StoredTensor",
    "Table",
    "TableUnpickler",
    "refused",
]

_MOST_DIMENSIONS = 16


class Inert:
    """Stands for an object of a foreign class, and swallows all that a pickle does to it.

    Attributes:
        entries: what it was filled with, if it is a kind of dictionary (EasyDict, AttributeDict).
    """

    entries: Mapping[Any, Any] = MappingProxyType({})

    def __new__(cls, *_: Any, **__: Any) -> Inert:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, *_: Any) -> Inert:
        return Inert()

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        self.__dict__.setdefault("entries", {})[key] = value

    def append(self, item: Any) -> None:
        pass

    extend = add = append


class Scripted(Inert):
    """A module of a TorchScript archive; its code is in another record, which nothing reads.

    Attributes:
        attributes: tensors, further modules and settings by name.
    """

    attributes: Mapping[Any, Any] = MappingProxyType({})

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.attributes = state


class _Fixed:
    """Can be made by a pickle, but not changed by it: BUILD calls `__setstate__`."""

    def __setstate__(self, state: Any) -> None:
        raise CheckpointError(f"the pickle tries to change a {type(self).__name__}")


class Dict(dict[Any, Any]):
    """A dictionary, also as Python 2 pickles an OrderedDict: made of a list of pairs."""

    def __init__(self, pairs: Any = ()) -> None:
        if not isinstance(pairs, list | tuple):
            raise CheckpointError(f"a dictionary made of a {type(pairs).__name__}")
        check_keys(key for key, _ in pairs)
        super().__init__(pairs)


@dataclass(frozen=True)
class Storage(_Fixed):
    """A flat tensor, read when it is wanted."""

    read: Callable[[], Tensor]


@dataclass(frozen=True)
class StoredTensor(_Fixed):
    """A tensor as a pickle describes it: a view of a flat storage."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def read(self, name: str) -> Tensor:
        """The tensor; those of one storage share its memory.

        Raises:
            CheckpointError: when the view reaches outside its storage, or is larger than it.
        """
        numbers = (self.offset, *self.size, *self.stride)
        if (
            len(self.size) != len(self.stride)
            or len(self.size) > _MOST_DIMENSIONS
            or not all(type(n) is int and 0 <= n < 2**63 for n in numbers)
        ):
            told = reprlib.repr((self.size, self.stride, self.offset))
            raise CheckpointError(f"{name}: size, stride and offset {told} are no view")
        flat = self.storage.read()
        count = math.prod(self.size)
        last = self.offset + sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))
        if count and (count > len(flat) or last >= len(flat)):
            raise CheckpointError(f"{name}: a tensor of size {self.size} in a storage of {len(flat)} values")
        return flat.as_strided(self.size, self.stride, self.offset) if count else flat.new_empty(self.size)


@dataclass(frozen=True)
class Call(_Fixed):
    """A function of the table."""

    function: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)


def _rebuild_tensor(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> StoredTensor | Inert:
    if isinstance(storage, Inert):
        return storage
    if not isinstance(storage, Storage) or not isinstance(size, tuple) or not isinstance(stride, tuple):
        raise CheckpointError(f"a tensor over {type(storage).__name__}, which is no storage, or of a size that is none")
    return StoredTensor(storage, offset, size, stride)


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    return data


Table = Mapping[tuple[str, str], Any]

TENSORS: Table = {
    ("collections", "OrderedDict"): Dict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
}


class TableUnpickler(InertUnpickler):
    """Looks globals up in a table; `other` decides on those not in it, `storage` on data outside the pickle."""

    error = CheckpointError

    def __init__(
        self, file: IO[bytes], size: int, table: Table, other: Callable[[str, str], Any],
        storage: Callable[[Any], Storage | Inert | type[Inert]] | None = None, most_opcodes: int = MOST_OPCODES,
    ) -> None:  # fmt: skip
        super().__init__(file, size, most_opcodes)
        self._table, self._other, self._storage = table, other, storage

    def find_class(self, module: str, name: str) -> Any:
        found = self._table.get((module, name))
        if found is None:
            return self._other(module, name)
        return found if isinstance(found, type | torch.dtype) else Call(found)

    def persistent_load(self, identity: Any) -> Storage | Inert | type[Inert]:
        if self._storage is None:
            raise CheckpointError("the pickle refers to data outside itself")
        return self._storage(identity)


def refused(module: str, name: str) -> Any:
    raise CheckpointError(f"the pickle asks for {module}.{name}, which is refused")
