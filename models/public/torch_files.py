"""Files of torch.save, of both formats, read without executing them.

Every global of their pickles comes from an explicit table of functions that build inert data; anything else is
refused, or, where a reader says so, replaced by an object that swallows whatever is done to it. The machine and its
limits are those of `fastsample.datasets.pickles`. The values of tensors stay in the file, which is mapped, until one
is asked for.
"""

from __future__ import annotations

import io
import math
import mmap
import reprlib
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from fastsample.datasets.pickles import MOST_OPCODES, InertUnpickler, check_keys
from fastsample.models.checkpoints import CheckpointError

__all__ = ["TENSORS", "Dict", "Inert", "Storage", "StoredTensor", "Table", "TableUnpickler", "load_torch"]
__all__ += ["read_legacy", "refused"]

_MOST_DIMENSIONS = 16


class Inert:
    """Stands for an object of a foreign class, and swallows all that a pickle does to it."""

    def __new__(cls, *_: Any, **__: Any) -> Inert:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        pass

    extend = add = append


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
class _Call(_Fixed):
    """A function of the table."""

    function: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)


def _rebuild_tensor(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> StoredTensor:
    if not isinstance(storage, Storage) or not isinstance(size, tuple) or not isinstance(stride, tuple):
        raise CheckpointError(f"a tensor over {type(storage).__name__}, which is no storage, or of a size that is none")
    return StoredTensor(storage, offset, size, stride)


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    return data


Table = Mapping[tuple[str, str], Any]

_STORAGES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}  # fmt: skip

TENSORS: Table = {
    ("collections", "OrderedDict"): Dict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
}

_TORCH: Table = {
    **TENSORS,
    **{("torch", name): dtype for name, dtype in _STORAGES.items()},
    # What beside tensors PyTorch's restricted reader takes, and training states hold: nobody asks for it.
    ("torch", "Size"): Inert, ("torch", "device"): Inert,
    ("collections", "defaultdict"): Inert, ("collections", "Counter"): Inert,
}  # fmt: skip


class TableUnpickler(InertUnpickler):
    """Looks globals up in a table; `other` decides on those not in it, `storage` on data outside the pickle."""

    error = CheckpointError

    def __init__(
        self, file: IO[bytes], size: int, table: Table, other: Callable[[str, str], Any],
        storage: Callable[[Any], Storage] | None = None, most_opcodes: int = MOST_OPCODES,
    ) -> None:  # fmt: skip
        super().__init__(file, size, most_opcodes)
        self._table, self._other, self._storage = table, other, storage

    def find_class(self, module: str, name: str) -> Any:
        found = self._table.get((module, name))
        if found is None:
            return self._other(module, name)
        return found if isinstance(found, type | torch.dtype) else _Call(found)

    def persistent_load(self, identity: Any) -> Storage:
        if self._storage is None:
            raise CheckpointError("the pickle refers to data outside itself")
        return self._storage(identity)


def refused(module: str, name: str) -> Any:
    raise CheckpointError(f"the pickle asks for {module}.{name}, which is refused")


def load_torch(path: Path, *, foreign: bool = False) -> Any:
    """The content of a file of torch.save, of either format, with a `StoredTensor` for each tensor.

    Args:
        path: of the file; it stays mapped for as long as its tensors live.
        foreign: an object of a class that is no tensor's becomes an `Inert`, and is not refused.

    Raises:
        CheckpointError: when it is not such a file, or does or claims what no checkpoint does.
    """
    other = (lambda *_: Inert) if foreign else refused
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            return _zipped(path, data, other) if data[:4] == b"PK\x03\x04" else read_legacy(file, data, other)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from error


def _zipped(path: Path, data: mmap.mmap, other: Callable[[str, str], Any]) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            every = archive.infolist()
            records = {record.filename: record for record in every}
            roots = [name.removesuffix("data.pkl") for name in records if name.endswith("/data.pkl")]
            if len(roots) != 1:
                raise CheckpointError(f"it is a zip, but not one of torch.save: it holds {len(roots)} data.pkl")
            if any(record.compress_type != zipfile.ZIP_STORED for record in every):
                raise CheckpointError("torch.save does not compress, this file does")
            if sum(record.file_size for record in every) > len(data):
                raise CheckpointError("its records claim more bytes than it has")
            if f"{roots[0]}byteorder" in records and archive.read(f"{roots[0]}byteorder") != b"little":
                raise CheckpointError("it was written on a big-endian machine")
            program = archive.read(f"{roots[0]}data.pkl")
    except CheckpointError:
        raise
    except Exception as error:  # zipfile raises many things for damaged files.
        raise CheckpointError(f"it is a damaged file of torch.save: {error}") from error

    @cache
    def flat(dtype: torch.dtype, key: str, count: int) -> Tensor:
        record = records.get(f"{roots[0]}data/{key}")
        if record is None or record.file_size != count * dtype.itemsize:
            raise CheckpointError(f"it has no record of {count} values under {key!r:.40}")
        start = record.header_offset
        start += 30 + sum(struct.unpack("<HH", data[start + 26 : start + 30]))  # the local header, its name and extra
        with memoryview(data) as view, view[start : start + record.file_size] as stored:
            if len(stored) != record.file_size or zlib.crc32(stored) != record.CRC:
                raise CheckpointError(f"its record {key} is damaged")
        return _values(data, start, count, dtype)

    def storage(identity: Any) -> Storage:
        named = _named(identity)
        return Storage(lambda: flat(*named))

    return TableUnpickler(io.BytesIO(program), len(program), _TORCH, other, storage).load()


def read_legacy(
    file: IO[bytes], data: mmap.mmap | bytes, other: Callable[[str, str], Any], most_opcodes: int = MOST_OPCODES
) -> Any:
    """PyTorch's format before 1.6: a magic number, a version, facts on the machine, the content, keys, storages."""

    def load() -> Any:
        return TableUnpickler(file, len(data) - file.tell(), _TORCH, other, storage, most_opcodes).load()

    named: dict[str, tuple[torch.dtype, int]] = {}
    starts: dict[str, int] = {}

    @cache
    def flat(key: str) -> Tensor:
        dtype, count = named[key]
        if key not in starts:
            raise CheckpointError(f"it has no storage {key!r:.40}")
        return _values(data, starts[key], count, dtype)

    def storage(identity: Any) -> Storage:
        dtype, key, count = _named(identity)
        if named.setdefault(key, (dtype, count)) != (dtype, count):
            raise CheckpointError(f"its storage {key!r:.40} has two types or sizes")
        return Storage(lambda: flat(key))

    if (load(), load()) != (0x1950A86A20F9469CFC6C, 1001):
        raise CheckpointError("it is not a file of torch.save")
    facts = load()
    if not isinstance(facts, dict) or facts.get("little_endian") is not True:
        raise CheckpointError("it was written on a big-endian machine")
    content, keys = load(), load()
    for key in keys if isinstance(keys, list) else ():
        if not isinstance(key, str) or key not in named or key in starts:
            raise CheckpointError("its list of storages does not fit its content")
        dtype, count = named[key]
        head = file.read(8)
        starts[key] = file.tell()
        if len(head) < 8 or struct.unpack("<q", head)[0] != count or file.tell() + count * dtype.itemsize > len(data):
            raise CheckpointError(f"its storage {key!r:.40} has not the {count} values that its tensors claim")
        file.seek(count * dtype.itemsize, io.SEEK_CUR)
    return content


def _named(identity: Any) -> tuple[torch.dtype, str, int]:
    """(type, key, number of values) of the persistent id of a storage."""
    match identity:
        case ("storage", torch.dtype() as dtype, str() as key, _, int() as count, *view):
            if 0 <= count < 2**48 and view in ([], [None]):
                return dtype, key, count
    raise CheckpointError("an unknown kind of storage")


def _values(data: mmap.mmap | bytes, start: int, count: int, dtype: torch.dtype) -> Tensor:
    """`count` values of a file: in place where it is mapped, and they lie as the type wants it; else a copy."""
    if count and isinstance(data, mmap.mmap) and start % dtype.itemsize == 0:
        return torch.frombuffer(data, dtype=dtype, count=count, offset=start)
    copy = bytearray(data[start : start + count * dtype.itemsize] or bytes(dtype.itemsize))
    return torch.frombuffer(copy, dtype=dtype)[:count]
