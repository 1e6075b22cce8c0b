"""Files of torch.save, of both formats, read without executing them.

Every global of their pickles comes from an explicit table of functions that build inert data. What training scripts
keep beside the tensors (arguments, numpy scalars, paths, dates, random states, objects of any class) becomes an
`Inert`: it is neither imported nor called. The machine and its limits are those of `fastsample.datasets.pickles`. The
values of tensors stay in the file, which is mapped, until one is asked for.
"""

from __future__ import annotations

import io
import mmap
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from fastsample.datasets.pickles import MOST_OPCODES
from fastsample.models.checkpoints import CheckpointError
from fastsample.models.public.inert import (
    TENSORS,
    Call,
    Dict,
    Inert,
    Scripted,
    Storage,
    StoredTensor,
    Table,
    TableUnpickler,
)

__all__ = ["load_torch", "read_legacy", "scripted_tensors"]

_LONGEST_NAME = 500
_STORAGES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}  # fmt: skip


def _rebuild_attributed(function: Any, _: Any, arguments: Any, *__: Any) -> Any:
    """A tensor with attributes, or of a class that is derived from a tensor's."""
    return function(*arguments) if isinstance(function, Call) and isinstance(arguments, tuple) else Inert()


def _defaultdict(*_: Any) -> Dict:
    return Dict()


_TORCH: Table = {
    **TENSORS,
    **{("torch", name): dtype for name, dtype in _STORAGES.items()},
    ("torch._tensor", "_rebuild_from_type_v2"): _rebuild_attributed,
    ("collections", "defaultdict"): _defaultdict,
}


def _inert(module: str, _: str) -> type[Inert]:
    return Scripted if module.partition(".")[0] == "__torch__" else Inert


def load_torch(path: Path, other: Callable[[str, str], Any] = _inert) -> Any:
    """The content of a file of torch.save, of either format, with a `StoredTensor` for each tensor.

    Args:
        path: of the file; it stays mapped for as long as its tensors live.
        other: what stands for a global that is not of tensors. By default an object of a class that is no tensor's is
            an `Inert`, a module of torch.jit.save a `Scripted` one; `refused` lets in none.

    Raises:
        CheckpointError: when it is not such a file, or does or claims what no checkpoint does.
    """
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            return _zipped(path, data, other) if data[:4] == b"PK\x03\x04" else read_legacy(file, data, other)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from error


def _zipped(path: Path, data: mmap.mmap, other: Callable[[str, str], Any]) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            every = [one for one in archive.infolist() if "/code/" not in one.filename]  # of TorchScript; not read
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

    def storage(identity: Any) -> Storage | Inert:
        if _is_foreign(identity):
            return Inert()
        named = _named(identity)
        return Storage(lambda: flat(*named))

    return TableUnpickler(io.BytesIO(program), len(program), _TORCH, other, storage).load()


def scripted_tensors(root: Any) -> Iterator[tuple[str, Any]]:
    """Names and tensors of a TorchScript module and of those in it; of one in several places those of one."""
    if not isinstance(root, Scripted):
        raise CheckpointError(f"it holds a {type(root).__name__}, not a module of TorchScript")
    waiting, seen = [("", root)], {id(root)}
    while waiting:
        prefix, module = waiting.pop()
        for name, value in module.attributes.items():
            if len(prefix) + len(str(name)) > _LONGEST_NAME:
                raise CheckpointError(f"a module has a name that is too long: {prefix}{name}"[:_LONGEST_NAME])
            if isinstance(value, StoredTensor):
                yield f"{prefix}{name}", value
            elif isinstance(value, Scripted) and id(value) not in seen:
                seen.add(id(value))
                waiting.append((f"{prefix}{name}.", value))


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

    def storage(identity: Any) -> Storage | type[Inert]:
        if isinstance(identity, tuple) and identity[:1] == ("module",):  # a class, with its source
            return Inert
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


def _is_foreign(identity: Any) -> bool:
    """Whether a storage is of a type that no weights have, as complex numbers or raw bytes."""
    return isinstance(identity, tuple) and len(identity) > 1 and identity[:2] == ("storage", Inert)


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
