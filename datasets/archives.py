"""NumPy's npz archives, whose arrays can be a thousand times larger than the file: looked at before they are read."""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["MOST_EXPANSION", "map_array", "read_arrays"]

MOST_EXPANSION = 50  # times the size of the file; moments and images are compressed to a half at best
_ALWAYS = 2**20  # bytes that an archive may unpack to, however small it is


def read_arrays(source: str | Path | IO[bytes], names: Iterable[str] | None = None) -> dict[str, NDArray[Any]]:
    """The arrays of those names in an npz, or all of them; never Python objects.

    Raises:
        ValueError: when it is no npz, has no such array, an array is damaged, of another size than its header says or
            of Python objects, or all that is asked for is more than `MOST_EXPANSION` times the size of the file.
        OSError: when it cannot be opened.
    """
    with _opened(source) as archive:
        size = archive.fp.seek(0, 2)  # type: ignore[union-attr]
        members = {one.filename.removesuffix(".npy"): one for one in archive.infolist()}
        wanted = list(members if names is None else names)
        if missing := [name for name in wanted if name not in members]:
            raise ValueError(f"it has no array {missing[0]!r}; it has: {', '.join(list(members)[:8]) or 'none'}")
        total = sum(members[name].file_size for name in wanted)
        if total > max(MOST_EXPANSION * size, _ALWAYS):
            raise ValueError(
                f"its arrays have {total:,} bytes in a file of {size:,}; at most {MOST_EXPANSION} times are read"
            )
        return {name: _array(archive, members[name]) for name in wanted}


def map_array(path: Path, name: str) -> NDArray[Any]:
    """The array of that name in an npz, its values left in the file where they are stored as they are (`np.savez`).

    Raises:
        ValueError, OSError: as `read_arrays`.
    """
    with _opened(path) as archive:
        member = archive.getinfo(f"{name}.npy")
        if member.compress_type == zipfile.ZIP_STORED:
            with archive.open(member) as file:
                shape, fortran_order, dtype = _header(file, member)
                values = file.tell()
            with path.open("rb") as raw:  # the lengths of two fields stand at the end of the member's header
                raw.seek(member.header_offset + 26)
                start = raw.tell() + 4 + sum(struct.unpack("<HH", raw.read(4)))
            if zlib.crc32(np.memmap(path, np.uint8, "r", start, member.file_size).data) != member.CRC:
                raise ValueError(f"{member.filename} is damaged: its checksum is another")
            return np.memmap(path, dtype, "c", start + values, shape, "F" if fortran_order else "C")
    return read_arrays(path, [name])[name]


@contextmanager
def _opened(source: str | Path | IO[bytes]) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(source) as archive:
            yield archive
    except (OSError, ValueError):
        raise
    except Exception as error:  # zipfile, zlib and numpy raise many things for damaged files
        raise ValueError(f"it is no npz, or is damaged: {type(error).__name__}: {error}") from error


def _header(file: IO[bytes], member: zipfile.ZipInfo) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether columns lie together, and dtype."""
    first = np.lib.format.read_magic(file) == (1, 0)
    header = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
    shape, fortran_order, dtype = header(file)
    if dtype.hasobject:
        raise ValueError(f"{member.filename} holds Python objects, which are refused (allow_pickle=False)")
    if math.prod(shape) * dtype.itemsize != member.file_size - file.tell():
        raise ValueError(f"{member.filename} claims the shape {shape} in {member.file_size:,} bytes")
    return shape, fortran_order, dtype


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(member) as file:
        _header(file, member)
    with archive.open(member) as file:
        return np.asarray(np.lib.format.read_array(file, allow_pickle=False))
