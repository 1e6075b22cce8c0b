"""Pickles of whole modules in the manner of EDM, read without executing them: as data, by explicit tables of globals.

Besides the networks of EDM and EDM2 these are the predictors of learned solvers (AMED, EPD, DyWeight, AdaSDE).
"""

from __future__ import annotations

import io
import reprlib
from typing import IO, Any

import numpy as np

from fastsample.datasets.pickles import check_keys
from fastsample.models.checkpoints import CheckpointError
from fastsample.models.public.inert import TENSORS, Dict, Inert, Storage, Table, TableUnpickler, refused
from fastsample.models.public.torch_files import read_legacy

__all__ = ["PersistentModule", "load_persistent", "load_predictor"]

_MOST_CLASSES = 1000  # of torch.nn by name
_NESTED_OPCODES = 1000  # a storage takes about 60
_LONGEST_SOLVER = 100


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


def _nested_storage(data: Any) -> Storage:
    """The storage in the nested file that EDM's pickles hold for each tensor."""
    if not isinstance(data, bytes):
        raise CheckpointError("a nested storage that is not bytes")
    try:
        found = read_legacy(io.BytesIO(data), data, refused, _NESTED_OPCODES)
    except CheckpointError as error:
        raise CheckpointError(f"a nested storage is refused or damaged: {error}") from error
    if not isinstance(found, Storage):
        raise CheckpointError(f"a nested storage is a {type(found).__name__}")
    return found


class _Number:
    """numpy.dtype of a number: the code is kept, its state must say little-endian."""

    def __init__(self, code: Any = None, *_: Any) -> None:
        if code not in ("b1", "u1", "i1", "i2", "i4", "i8", "f2", "f4", "f8"):
            raise CheckpointError(f"numpy.dtype({reprlib.repr(code)}) is refused")
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
        raise CheckpointError(f"_codecs.encode with {reprlib.repr(encoding)} is refused")
    return text.encode("latin1")


def _set(items: Any = ()) -> set[Any]:
    """How protocol 2 writes sets."""
    check_keys(items)
    return set(items)


_PREDICTORS: Table = {
    **TENSORS,
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): PersistentModule.of,
    ("torch.storage", "_load_from_bytes"): _nested_storage,
    ("builtins", "set"): _set,
    ("__builtin__", "set"): _set,
}

_PERSISTENT: Table = {
    **_PREDICTORS,
    ("dnnlib.util", "EasyDict"): Dict,
    ("_codecs", "encode"): _latin1,
    ("numpy", "dtype"): _Number,
    ("numpy", "ndarray"): Inert,  # Constants of EDM2's encoder, which nobody asks for.
    **{
        (f"numpy.{core}.multiarray", name): made
        for core in ("core", "_core")
        for name, made in (("scalar", _number), ("_reconstruct", Inert))
    },
}


def load_persistent(file: IO[bytes], size: int, origin: str) -> Any:
    """The content of an EDM or EDM2 .pkl: plain data, `PersistentModule` and `StoredTensor`.

    The Python source that these files embed, and that the original loader executes, is dropped unread.

    Raises:
        CheckpointError: for anything but such a pickle.
    """
    classes: dict[str, type] = {}

    def modules_only(module: str, name: str) -> type:
        """One class for each name under torch.nn."""
        if not module.startswith("torch.nn.modules.") or len(classes) >= _MOST_CLASSES:
            refused(module, name)
        return classes.setdefault(name, type(name, (PersistentModule,), {"class_name": name}))

    try:
        return TableUnpickler(file, size, _PERSISTENT, modules_only).load()
    except CheckpointError as error:
        raise CheckpointError(f"{origin}: {error}") from error


def load_predictor(file: IO[bytes], size: int) -> Any:
    """The content of a learned solver's .pkl: as `load_persistent`, but no module is of torch.

    The functions of its `solvers` (which tell student and teacher) are their names as text.

    Raises:
        CheckpointError: for anything but such a pickle.
    """

    def solver_name(module: str, name: str) -> str:
        if module not in ("solvers", "solvers_amed"):
            refused(module, name)
        return f"{module}.{name}"[:_LONGEST_SOLVER]

    return TableUnpickler(file, size, _PREDICTORS, solver_name).load()
