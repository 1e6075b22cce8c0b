"""Files that are there whole or not at all, and that say so when they are damaged.

Every file of the project is written by `write_atomically`: under a temporary name that no other process can have, on
any host, flushed to disk and renamed. Until then its writer holds a lock on it, which the kernel releases when the
process dies, so whoever writes to that folder next removes what a killed process left, and not what a living one
writes. On a file system without locks nothing is removed, and `locked` lets everybody in: only a summary may lag.

Two forms carry a checksum: JSON objects have a field `checksum`, all other files end with a line of their sha256, which
zip readers (npz, pt) and mapped arrays (npy) do not mind. Files without one, of older versions, are read as before.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import stat
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast
from uuid import uuid4

import numpy as np
from pydantic_core import from_json

from fastsample.datasets.text import text_of

__all__ = [
    "DamagedFileError",
    "json_bytes",
    "locked",
    "open_sealed",
    "read_arrays",
    "read_facts",
    "read_json",
    "read_small",
    "sweep",
    "warn",
    "warn_once",
    "write_arrays",
    "write_atomically",
    "write_sealed",
]

_T = TypeVar("_T")
_PARTS = ".fastsample-*.part"
_MOST = 2**24  # bytes of `read_small`
_SEAL = b"\nsha256 "
_SEALED = len(_SEAL) + 64 + 1


class DamagedFileError(ValueError):
    """A file whose content is not what was written."""


def warn(line: str) -> None:
    """One line on stderr about a file that is set aside; a name in it cannot steer the terminal."""
    print("".join(c if c.isprintable() else "?" for c in line), file=sys.stderr, flush=True)


warn_once = cache(warn)


def write_atomically(file: Path, write: Callable[[BinaryIO], Any], check: Callable[[Path], Any] | None = None) -> None:
    """Write a file so that it is there whole or not at all; its folder is made, in one that is there.

    Behind a symlink the file that it points to is replaced; what is no file (a pipe, a device) is written to.

    Args:
        check: reads the finished file before it takes its place; what it raises leaves the old one there.
    """
    if _is_stream(file):
        with open(file, "wb", opener=lambda path, _: os.open(path, os.O_WRONLY | os.O_APPEND)) as device:
            write(device)
        return
    target = Path(os.path.realpath(file))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file))
    target.parent.mkdir(exist_ok=True)
    _sweep_once(target.parent)
    temporary, stream = _claimed(target.parent)
    try:
        with stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
            if check:
                check(temporary)
            temporary.replace(target)  # under the lock: nobody takes it for a leftover
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _is_stream(file: Path) -> bool:
    try:
        mode = file.stat().st_mode
    except OSError:
        return False
    redirected = str(file).startswith(("/dev/std", "/dev/fd/", "/proc/"))
    return redirected or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _claimed(folder: Path) -> tuple[Path, BinaryIO]:
    """A new file that nobody else has, locked, open for writing and reading; its mode follows the umask."""
    while True:
        temporary = folder / _PARTS.replace("*", uuid4().hex)
        stream = cast(BinaryIO, temporary.open("x+b"))  # never a file that is there, nor the target of a link
        with suppress(OSError):
            fcntl.flock(stream, fcntl.LOCK_EX)
        if temporary.exists():  # not swept between the two calls
            return temporary, stream
        stream.close()


def read_small(file: Path) -> bytes:
    """The content of a file that people write or that holds numbers of a table, at most 16 MB.

    Raises:
        OSError: if it cannot be read, or is larger (a device has no end).
    """
    with file.open("rb") as stream:
        content = stream.read(_MOST + 1)
    if len(content) > _MOST:
        raise OSError(errno.EFBIG, f"larger than {_MOST:,} bytes", str(file))
    return content


def sweep(folder: Path) -> None:
    """Remove the temporary files that processes which are gone left in a folder."""
    for file in folder.glob(_PARTS):
        with suppress(OSError), file.open("r+b") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.unlink()


_sweep_once = cache(sweep)


@contextmanager
def locked(file: Path, waiting: Callable[[], object] = lambda: None) -> Iterator[None]:
    """One process at a time, by a lock on that file; it is made, and stays. `waiting` is called where another has it.

    The system frees the lock when its process ends, however it ends. Everybody is let in where the file can be neither
    made nor read, or its file system knows no locks.
    """
    descriptor = _opened(file)
    try:
        if descriptor is not None:
            _hold(descriptor, waiting)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _opened(file: Path) -> int | None:
    for flags in (os.O_RDWR | os.O_CREAT, os.O_RDONLY):  # another user's file may be for reading only
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            return os.open(file, flags | os.O_CLOEXEC, 0o666)
    return None


def _hold(descriptor: int, waiting: Callable[[], object]) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        waiting()
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        pass


def write_sealed(file: Path, write: Callable[[BinaryIO], Any]) -> None:
    """`write_atomically`, with the sha256 of what was written, read back, at the end."""

    def sealed(stream: BinaryIO) -> None:
        write(stream)
        stream.flush()
        stream.seek(0)
        digest = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
        stream.seek(0, os.SEEK_END)
        stream.write(_SEAL + digest.encode() + b"\n")

    write_atomically(file, sealed)


@contextmanager
def open_sealed(file: Path) -> Iterator[BinaryIO]:
    """A file of `write_sealed`, at its beginning.

    Raises:
        OSError: if it cannot be read.
        DamagedFileError: if it ends with a checksum that is not its own.
    """
    with file.open("rb") as stream:
        size = max(0, stream.seek(0, os.SEEK_END) - _SEALED)
        stream.seek(size)
        seal = stream.read()
        stream.seek(0)
        if seal.startswith(_SEAL):
            digest = hashlib.sha256()
            while block := stream.read(min(2**20, size - stream.tell())):
                digest.update(block)
            if seal != _SEAL + digest.hexdigest().encode() + b"\n":
                raise DamagedFileError("its checksum is not that of its content")
            stream.seek(0)
        yield stream


def write_arrays(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an npz with its checksum."""
    write_sealed(file, lambda stream: np.savez(stream, **cast(dict[str, Any], dict(arrays))))


def read_arrays(
    file: Path, then: str = "it is made anew", names: Collection[str] | None = None
) -> dict[str, np.ndarray] | None:
    """The arrays of an npz; None where it is not there, or damaged, which is said with what happens `then`.

    Args:
        names: only those of these that are there. Nothing else is read, so not the checksum of the file but the CRC-32
            of each array stands for it.
    """
    try:
        opened = open_sealed(file) if names is None else file.open("rb")
        with opened as stream, np.load(stream, allow_pickle=False) as data:
            for member in data.zip.infolist():  # raises where the directory has another name than the array itself
                data.zip.open(member).close()
            return {name: data[name] for name in data.files if names is None or name in names}
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:  # a damaged archive without a checksum makes zipfile and numpy raise anything
        warn(f"{file} {_fault(error)}: {then}")
        return None


def json_bytes(facts: Mapping[str, Any]) -> bytes:
    """A JSON object with its checksum.

    Raises:
        ValueError: if a number is NaN or infinite.
    """
    whole = {**facts, "checksum": _checksum(facts)}
    return json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def read_json(text: bytes, read: Callable[[dict[str, Any]], _T]) -> _T:
    """What `read` makes of the facts of `json_bytes`, without their checksum; it may refuse them first.

    Raises:
        DamagedFileError: if they are no JSON object, hold NaN or infinity, or are not those of the checksum.
    """
    try:
        facts = from_json(text_of(text))
    except ValueError as error:
        raise DamagedFileError(f"Invalid JSON: {_reason(error)}") from None
    if not isinstance(facts, dict):
        raise DamagedFileError("it holds no JSON object")
    told = facts.pop("checksum", None)
    made = read(facts)
    try:
        sound = told in (None, _checksum(facts))
    except ValueError as error:
        raise DamagedFileError(_reason(error)) from None
    if not sound:
        raise DamagedFileError("its checksum is not that of its content; a file changed by hand is to have none")
    return made


def read_facts(file: Path) -> dict[str, Any] | None:
    """A JSON object of `json_bytes` in a file; None where it is not there, or damaged, which is said."""
    try:
        return read_json(file.read_bytes(), dict)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, DamagedFileError) as error:
        warn(f"{file} {_fault(error)}: it is made anew")
        return None


def _checksum(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _fault(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read ({error.strerror})"
    return f"is damaged ({_reason(error)})"


def _reason(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
