"""Reading pickles without executing them.

A pickle is a program for a small stack machine, whose only way out is to look up a global and call it. Here
every global comes from an explicit table of functions that build inert data; anything else is refused, or, where
a reader says so, replaced by an object that swallows whatever is done to it. Nothing is ever imported by name.
Before it runs, the program is scanned: its opcodes, its lengths and its memo indices must be sane, so that a few
bytes cannot ask for gigabytes.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch
from torch import Tensor

from fastsample.models.checkpoints import CheckpointError

__all__ = ["Inert", "PersistentModule", "StoredTensor", "TorchZip", "load_persistent", "reason"]

# Absent: extension registry, old-style instances, and text-mode persistent ids, which no checkpoint uses.
_REFUSED = {"EXT1", "EXT2", "EXT4", "INST", "OBJ", "PERSID", "NEXT_BUFFER", "READONLY_BUFFER", "BYTEARRAY8"}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}


def scan(file: IO[bytes], size: int, origin: str) -> None:
    """Check the opcodes of a pickle, and leave the file where it was.

    Args:
        file: seekable, at the start of a pickle.
        size: bytes that it holds from there.
        origin: its name in messages.

    Raises:
        CheckpointError: for a truncated or malformed pickle, a refused opcode, or a length or memo index that the
            file cannot justify.
    """
    start = file.tell()
    try:
        for count, (opcode, argument, position) in enumerate(
            pickletools.genops(cast(IO[bytes], _Bounded(file, start + size)))
        ):
            if opcode.name in _REFUSED:
                raise CheckpointError(f"{origin}: the pickle opcode {opcode.name} is refused")
            if opcode.name in _PUTS and (argument or 0) > count:
                raise CheckpointError(f"{origin}: memo index {argument} after {count} opcodes")
            if opcode.name == "FRAME" and (argument or 0) > start + size - (position or 0):
                raise CheckpointError(f"{origin}: a frame of {argument} bytes runs past the end of the file")
    except (ValueError, OverflowError, IndexError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{origin} is not a pickle, or is truncated: {error}") from error
    file.seek(start)


class _Bounded:
    """A file that is never asked for more than it has: reading with a huge length would allocate it first."""

    def __init__(self, file: IO[bytes], end: int) -> None:
        self._file, self._end = file, end
        self.tell, self.readline = file.tell, file.readline

    def read(self, count: int) -> bytes:
        return self._file.read(max(0, min(count, self._end - self._file.tell())))


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


class PersistentModule(Inert):
    """A module of an EDM or EDM2 pickle: the name of its class and its `__dict__`, as data."""

    class_name = ""
    state: Any = None

    @classmethod
    def of(cls, meta: Any) -> PersistentModule:
        """From the dictionary that torch_utils.persistence writes; its `module_src` is not kept."""
        if not isinstance(meta, dict) or not isinstance(meta.get("class_name"), str) or meta.get("type") != "class":
            raise CheckpointError("a persistent object without type and class_name")
        module = cls()
        module.class_name, module.state = meta["class_name"], meta.get("state")
        return module

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Fixed:
    """Can be made by a pickle, but not changed by it: BUILD calls `__setstate__`."""

    def __setstate__(self, state: Any) -> None:
        raise CheckpointError(f"the pickle tries to change a {type(self).__name__}")


@dataclass(frozen=True)
class _Storage(_Fixed):
    """A flat tensor, read when it is wanted."""

    read: Callable[[], Tensor]


@dataclass(frozen=True)
class StoredTensor(_Fixed):
    """A tensor as a pickle describes it: a view of a flat storage."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def read(self, name: str) -> Tensor:
        """The tensor; those of one storage share its memory.

        Raises:
            CheckpointError: when the view reaches outside its storage, or is larger than it.
        """
        numbers = (self.offset, *self.size, *self.stride)
        if len(self.size) != len(self.stride) or not all(type(n) is int and n >= 0 for n in numbers):
            raise CheckpointError(f"{name}: size {self.size}, stride {self.stride}, offset {self.offset} are no view")
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
    if not isinstance(storage, _Storage):
        raise CheckpointError(f"a tensor over {type(storage).__name__}, which is no storage")
    return StoredTensor(storage, offset, tuple(size), tuple(stride))


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    return data


def _nested_storage(data: Any) -> _Storage:
    """The storage in the nested file that EDM's pickles hold for each tensor; read by PyTorch's restricted reader."""
    if not isinstance(data, bytes):
        raise CheckpointError("a nested storage that is not bytes")
    try:
        loaded = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        flat = torch.empty(0, dtype=loaded.dtype).set_(loaded)
    except Exception as error:  # A hostile file can raise anything; all of it means the same.
        raise CheckpointError(f"a nested storage is refused or damaged: {reason(error)}") from error
    if flat.untyped_storage().nbytes() > len(data):
        raise CheckpointError(f"a nested storage of {len(data)} bytes claims {flat.untyped_storage().nbytes()}")
    return _Storage(lambda: flat)


class _Number:
    """numpy.dtype of a number: the code is kept, its state must say little-endian."""

    def __init__(self, code: Any = None, *_: Any) -> None:
        if code not in ("b1", "u1", "i1", "i2", "i4", "i8", "f2", "f4", "f8"):
            raise CheckpointError(f"numpy.dtype({code!r}) is refused")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", "|", "="):
            raise CheckpointError("a numpy.dtype that is not a little-endian number")


def _number(dtype: Any, data: Any) -> Any:
    if not isinstance(dtype, _Number) or not isinstance(data, bytes) or len(data) != dtype.dtype.itemsize:
        raise CheckpointError("a numpy scalar that is not a number")
    return np.frombuffer(data, dtype.dtype)[0].item()


def _latin1(text: Any, encoding: Any) -> bytes:
    """How protocol 2 writes bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise CheckpointError(f"_codecs.encode with {encoding!r} is refused")
    return text.encode("latin1")


_Table = Mapping[tuple[str, str], Any]

_TENSORS: _Table = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
}

_PERSISTENT: _Table = {
    **_TENSORS,
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): PersistentModule.of,
    ("torch.storage", "_load_from_bytes"): _nested_storage,
    ("dnnlib.util", "EasyDict"): dict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("_codecs", "encode"): _latin1,
    ("numpy", "dtype"): _Number,
    ("numpy", "ndarray"): Inert,  # Constants of EDM2's encoder, which nobody asks for.
    **{
        (f"numpy.{core}.multiarray", name): made
        for core in ("core", "_core")
        for name, made in (("scalar", _number), ("_reconstruct", Inert))
    },
}

_STORAGES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}  # fmt: skip


class _Unpickler(pickle.Unpickler):
    """Looks globals up in a table; `other` decides on those that are not in it."""

    def __init__(
        self,
        file: IO[bytes],
        table: _Table,
        other: Callable[[str, str], Any],
        storage: Callable[[Any], _Storage] | None = None,
    ) -> None:
        super().__init__(file)
        self._table, self._other, self._storage = table, other, storage

    def find_class(self, module: str, name: str) -> Any:
        found = self._table.get((module, name))
        if found is None:
            return self._other(module, name)
        return found if isinstance(found, type | torch.dtype) else _Call(found)

    def persistent_load(self, identity: Any) -> _Storage:
        if self._storage is None:
            raise CheckpointError("the pickle refers to data outside itself")
        return self._storage(identity)


def _modules_only(module: str, name: str) -> type:
    """A fresh class for a container of torch.nn, so that no pickle can change one that another sees."""
    if not module.startswith("torch.nn.modules."):
        raise CheckpointError(f"the pickle asks for {module}.{name}, which is refused")
    return type(name, (PersistentModule,), {"class_name": name})


def load_persistent(file: IO[bytes], size: int, origin: str) -> Any:
    """The content of an EDM or EDM2 .pkl: plain data, `PersistentModule` and `StoredTensor`.

    The Python source that these files embed, and that the original loader executes, is dropped unread.

    Raises:
        CheckpointError: for anything but such a pickle.
    """
    scan(file, size, origin)
    return _run(_Unpickler(file, _PERSISTENT, _modules_only), origin)


class TorchZip:
    """A file of torch.save, as a zip, in which foreign classes are inert.

    Args:
        path: of the file; it stays open until `close`.

    Raises:
        CheckpointError: when it is not such a zip, or a record is compressed or lies outside the file.
    """

    def __init__(self, path: Path) -> None:
        self._origin = str(path)
        try:
            self._zip = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile, ValueError) as error:
            raise CheckpointError(f"{path} is not a file of torch.save: {error}") from error
        self._records = {record.filename: record for record in self._zip.infolist()}
        roots = [name.removesuffix("data.pkl") for name in self._records if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise CheckpointError(f"{path} is a zip, but not one of torch.save: it holds {len(roots)} data.pkl")
        records = self._records.values()
        if any(record.compress_type != zipfile.ZIP_STORED for record in records):
            raise CheckpointError(f"{path}: torch.save does not compress, this file does")
        if sum(record.file_size for record in records) > Path(path).stat().st_size:
            raise CheckpointError(f"{path}: its records claim more bytes than it has")
        self._root, self._flat = roots[0], dict[tuple[str, torch.dtype], Tensor]()

    def load(self) -> Any:
        """The content, with a `StoredTensor` for each tensor and `Inert` for each foreign object."""
        if self._read(f"{self._root}byteorder", b"little") != b"little":
            raise CheckpointError(f"{self._origin} was written on a big-endian machine")
        data = self._read(f"{self._root}data.pkl")
        scan(io.BytesIO(data), len(data), self._origin)
        storages = {("torch", name): dtype for name, dtype in _STORAGES.items()}
        table = {**_TENSORS, **storages}
        unpickler = _Unpickler(io.BytesIO(data), table, lambda *_: type("Foreign", (Inert,), {}), self._storage)
        return _run(unpickler, self._origin)

    def close(self) -> None:
        self._zip.close()

    def _read(self, name: str, default: bytes | None = None) -> bytes:
        if name not in self._records and default is not None:
            return default
        try:
            return self._zip.read(name)
        except Exception as error:  # zipfile raises many things for damaged records.
            raise CheckpointError(f"{self._origin}: the record {name} is missing or damaged: {error}") from error

    def _storage(self, identity: Any) -> _Storage:
        match identity:
            case ("storage", torch.dtype() as dtype, str() as key, _, int() as count):
                pass
            case _:
                raise CheckpointError("an unknown kind of storage")
        record = f"{self._root}data/{key}"

        def read() -> Tensor:
            if (key, dtype) not in self._flat:
                data = self._read(record)
                if len(data) != count * dtype.itemsize:
                    raise CheckpointError(f"{record} holds {len(data)} bytes for {count} values")
                self._flat[key, dtype] = torch.frombuffer(bytearray(data or bytes(dtype.itemsize)), dtype=dtype)[:count]
            return self._flat[key, dtype]

        return _Storage(read)


def _run(unpickler: _Unpickler, origin: str) -> Any:
    try:
        return unpickler.load()
    except CheckpointError as error:
        raise CheckpointError(f"{origin}: {error}") from error
    except Exception as error:  # A hostile file can raise anything; all of it means the same.
        raise CheckpointError(f"{origin} cannot be read: {reason(error)}") from error


def reason(error: Exception) -> str:
    """What an error says, without PyTorch's advice to open the file with all its code."""
    told = re.split(r"trusted source\.|WeightsUnpickler error:", str(error))[-1].strip()
    return f"{type(error).__name__}: {told.splitlines()[0].split(' Please use ')[0] if told else 'no details'}"
