"""The stack machine of pickle for data that nobody trusts: nothing is imported, and nothing is called but what is told.

A pickle is a program. Its only way out of its machine is to name a global and call it; here a reader says what each
name stands for. Its ways to take a machine down are lengths that the file does not have, objects that are copied or
hashed again and again, and sheer numbers of them. So no read passes the end of the file, keys are flat (the hash of
nested pairs takes 2^depth steps), integers are short, the arguments of all calls together are at most a few times as
long as the file, and there is a limit on opcodes, each of which makes a few hundred bytes at most.
"""

from __future__ import annotations

import math
import pickle
import reprlib
import struct
from collections.abc import Callable, Iterable
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fastsample.datasets.moments import ReferenceError

__all__ = ["MOST_OPCODES", "ArrayUnpickler", "InertUnpickler", "StoredArray", "check_keys"]

_STORAGES = {"DoubleStorage": "f8", "FloatStorage": "f4", "HalfStorage": "f2"}

MOST_OPCODES = 500_000  # with the state of an optimizer a network of 1,000 tensors takes about 100,000
_MOST_COPIES = 3  # of the file, in the arguments of calls
_LONGEST_INTEGER = 32  # bytes
_KEYS = (str, bytes, int, float, bool, type(None), frozenset)
_LONGEST_KEY = 16  # items of a tuple

# Extension registry, old-style instances, text-mode persistent ids and out-of-band buffers: no checkpoint and no
# statistics use them.
_REFUSED = ("EXT1", "EXT2", "EXT4", "INST", "OBJ", "PERSID", "NEXT_BUFFER", "READONLY_BUFFER")


class _RefusedError(ValueError):
    """What no file of data does."""


def check_keys(keys: Iterable[Any]) -> None:
    """Raise a ValueError unless their hashes cost nothing.

    So those are texts, numbers of at most 64 bits, frozen sets of such keys, classes, objects that are hashed by
    identity, or a few of them in a tuple.
    """
    for key in keys:
        short = type(key) is tuple and len(key) <= _LONGEST_KEY
        if not all(map(_is_flat, key if short else (key,))):
            raise _RefusedError(f"it has a key that is neither text nor a number: {reprlib.repr(key)}")


def _is_flat(key: Any) -> bool:
    if type(key) in _KEYS:
        return type(key) is not int or key.bit_length() <= 64
    return isinstance(key, type) or type(key).__hash__ is object.__hash__  # type: ignore[comparison-overlap]


class _Bounded:
    """A file that is never asked for more than it has: reading with a huge length would allocate it first."""

    def __init__(self, file: IO[bytes], end: int) -> None:
        self._file, self._end = file, end

    def read(self, count: int) -> bytes:
        left = self._end - self._file.tell()
        if count > left:
            raise _RefusedError(f"it is truncated: {count} bytes are wanted where {max(left, 0)} are left")
        return self._file.read(count)

    def readline(self) -> bytes:
        return self._file.readline(max(0, self._end - self._file.tell()))


class InertUnpickler(pickle._Unpickler):
    """Runs one pickle; subclasses say in `find_class` what a global stands for.

    Of what is made, only instances of classes with `__setstate__` can be given a state.

    Args:
        file: seekable, at the start of the pickle; left behind its end.
        size: bytes that it holds from there.
        most_opcodes: the limit on opcodes.

    Attributes:
        error: what is raised.
    """

    error: type[ValueError] = ValueError

    def __init__(self, file: IO[bytes], size: int, most_opcodes: int = MOST_OPCODES) -> None:
        super().__init__(_Bounded(file, file.tell() + size))  # type: ignore[arg-type]
        self._most_copied, self._copied, self._most_opcodes = _MOST_COPIES * size + 1024, 0, most_opcodes

    def load(self) -> Any:
        """The content.

        Raises:
            error: for a damaged or truncated pickle, or one that passes a limit.
        """
        frames = pickle._Unframer(self._file_read, self._file_readline)  # type: ignore[attr-defined]
        self.read, self.readinto, self.readline = frames.read, frames.readinto, frames.readline
        self._unframer, self.metastack, self.stack = frames, list[Any](), list[Any]()
        self.append = self.stack.append
        try:
            for _ in range(self._most_opcodes):
                code = self.read(1)
                if code and code[0] not in _OPCODES:
                    raise _RefusedError(f"it is no pickle: byte {code[0]:#04x} is no opcode")
                _OPCODES[code[0]](self)  # type: ignore[arg-type]
            raise _RefusedError(f"it has more than {self._most_opcodes:,} opcodes")
        except pickle._Stop as stop:  # type: ignore[attr-defined]
            return stop.value
        except self.error:
            raise
        except Exception as error:  # A hostile file can raise anything; all of it means the same.
            told = (
                str(error) if isinstance(error, _RefusedError) else f"it is no pickle: {type(error).__name__}: {error}"
            )
            raise self.error(told) from error

    def _charge(self) -> None:
        arguments = self.stack[-1]
        if type(arguments) is not tuple:
            raise _RefusedError("it calls something with arguments that are no tuple")
        sized = (len(a) for a in arguments if isinstance(a, str | bytes | bytearray | tuple | list | dict | set))
        self._copied += len(arguments) + sum(sized)
        if self._copied > self._most_copied:
            raise _RefusedError(f"the arguments of its calls have more than {_MOST_COPIES} times the bytes of the file")

    def _refuse(self) -> None:
        raise _RefusedError(f"it has a pickle opcode that is refused: {', '.join(_REFUSED)}")

    def _reduce(self) -> None:
        self._charge()
        self.load_reduce()  # type: ignore[attr-defined]

    def _newobj(self) -> None:
        self._charge()
        self.load_newobj()  # type: ignore[attr-defined]

    def _newobj_ex(self) -> None:
        self.stack.pop()  # of keywords, which nothing that is made here takes
        self._newobj()

    def _frozenset(self) -> None:
        check_keys(self.stack)
        self.load_frozenset()  # type: ignore[attr-defined]

    def _build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, dict):  # torch gives an OrderedDict the attribute _metadata, which nobody needs
            return
        if isinstance(target, type) or not hasattr(target, "__setstate__"):
            raise _RefusedError(f"it tries to change a {type(target).__name__}")
        target.__setstate__(state)

    def _setitem(self) -> None:
        check_keys(self.stack[-2:-1])
        self.load_setitem()  # type: ignore[attr-defined]

    def _setitems(self) -> None:
        check_keys(self.stack[::2])
        self.load_setitems()  # type: ignore[attr-defined]

    def _dict(self) -> None:
        check_keys(self.stack[::2])
        self.load_dict()  # type: ignore[attr-defined]

    def _additems(self) -> None:
        check_keys(self.stack)
        self.load_additems()  # type: ignore[attr-defined]

    def _long4(self) -> None:
        size = struct.unpack("<i", self.read(4))[0]
        if not 0 <= size <= _LONGEST_INTEGER:
            raise _RefusedError(f"it has an integer of {size} bytes")
        self.append(pickle.decode_long(self.read(size)))

    def _bytearray8(self) -> None:
        self.append(bytearray(self.read(struct.unpack("<Q", self.read(8))[0])))


_OPCODES = (
    pickle._Unpickler.dispatch
    | {getattr(pickle, name)[0]: InertUnpickler._refuse for name in _REFUSED}
    | {
        pickle.REDUCE[0]: InertUnpickler._reduce, pickle.NEWOBJ[0]: InertUnpickler._newobj,
        pickle.NEWOBJ_EX[0]: InertUnpickler._newobj_ex, pickle.FROZENSET[0]: InertUnpickler._frozenset,
        pickle.BUILD[0]: InertUnpickler._build, pickle.SETITEM[0]: InertUnpickler._setitem,
        pickle.SETITEMS[0]: InertUnpickler._setitems, pickle.DICT[0]: InertUnpickler._dict,
        pickle.ADDITEMS[0]: InertUnpickler._additems, pickle.LONG4[0]: InertUnpickler._long4,
        pickle.BYTEARRAY8[0]: InertUnpickler._bytearray8,
    }
)  # fmt: skip


class ArrayUnpickler(InertUnpickler):
    """Reads dictionaries of NumPy arrays of floats, and a tensor of floats whose storage `record` reads by its key."""

    error = ReferenceError

    def __init__(self, file: IO[bytes], size: int, record: Callable[[str], bytes] | None) -> None:
        super().__init__(file, size)
        self._record = record

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _STORAGES:
            return _Type(_STORAGES[name])
        return _Name(module.replace("numpy._core", "numpy.core"), name)

    def persistent_load(self, identity: Any) -> Any:
        match identity:
            case ("storage", _Type() as kind, str() as key, *_) if self._record:
                return self._record(key), kind
        raise ReferenceError("the pickle refers to data outside itself")


class _Name:
    """What a pickle calls: makes arrays and types from inert data, and cannot be changed."""

    __slots__ = ("_name",)

    def __init__(self, module: str, name: str) -> None:
        self._name = f"{module}.{name}"
        if self._name not in (
            "numpy.core.multiarray._reconstruct", "numpy.core.numeric._frombuffer", "numpy.ndarray", "numpy.dtype",
            "_codecs.encode", "torch._utils._rebuild_tensor_v2", "collections.OrderedDict",
        ):  # fmt: skip
            raise ReferenceError(f"the pickle asks for {self._name}, which is refused")

    def __setstate__(self, state: Any) -> None:
        raise ReferenceError(f"the pickle tries to change {self._name}")

    def __call__(self, *arguments: Any) -> Any:
        match self._name.rpartition(".")[2], arguments:
            case "_reconstruct", _:
                return StoredArray()
            case "_frombuffer", (bytes() | bytearray() as data, dtype, shape, order):
                return StoredArray(_filled(bytes(data), dtype, shape, order))
            case "dtype", ("f2" | "f4" | "f8" as code, *_):
                return _Type(code)
            case "encode", (str(text), "latin1"):  # how protocol 2 writes bytes
                return text.encode("latin1")
            case "OrderedDict", ():
                return {}
            case "_rebuild_tensor_v2", ((bytes() as data, _Type() as dtype), 0, shape, strides, *_):
                array = _filled(data, dtype, shape, "C")
                if tuple(step // array.itemsize for step in array.strides) == strides:
                    return StoredArray(array)
        raise ReferenceError(f"the pickle calls {self._name} in a way that no array of floats needs")


class _Type:
    """A type of floats. Its state says the byte order."""

    __slots__ = ("dtype",)

    def __init__(self, code: str) -> None:
        self.dtype = np.dtype(f"<{code}")

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or state[1:2] != ("<",):
            raise ReferenceError("the numbers are not little-endian floats")


class StoredArray:
    """An array, empty until its state comes."""

    __slots__ = ("array",)

    def __init__(self, array: NDArray[Any] | None = None) -> None:
        self.array = np.empty(0) if array is None else array

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self.array = _filled(data, dtype, shape, "F" if fortran else "C")


def _filled(data: Any, dtype: Any, shape: Any, order: Any) -> NDArray[Any]:
    if not isinstance(dtype, _Type) or not isinstance(data, bytes) or order not in ("C", "F"):
        raise ReferenceError("an array that is not of floats")
    if not isinstance(shape, tuple) or len(shape) > 2 or not all(type(size) is int and size >= 0 for size in shape):
        raise ReferenceError(f"an array of shape {reprlib.repr(shape)}")
    if len(data) != math.prod(shape) * dtype.dtype.itemsize:
        raise ReferenceError(f"an array of shape {shape} and {len(data)} bytes")
    return np.frombuffer(data, dtype.dtype).reshape(shape, order=order)
