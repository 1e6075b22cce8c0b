"""Parts of samples: what a store knows of them, array by array, read only when it is asked for.

A part is the samples [first, end) of one identity of samples (`results.row.Row.sampling`), in a file FIRST-END.npz of
arrays with a line for each sample, and of numbers about the whole part, such as counts of calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import ZipFile

import numpy as np
from numpy.lib import format as npy

from fastsample.datasets.files import read_arrays, write_arrays

__all__ = ["Parts", "Source", "add_arrays"]


@dataclass(frozen=True)
class Source:
    """An npz that holds arrays of samples from number `first` on; `lines` of each array, None for a number.

    A number is of [first, end) as a whole; an array may end before, where a metric is of the first samples alone.
    """

    file: Path
    first: int
    end: int
    lines: Mapping[str, int | None]
    names: Mapping[str, str] = field(default_factory=dict)  # in the file, where they are others

    @classmethod
    def part(cls, file: Path) -> Source:
        """A file FIRST-END.npz."""
        first, _, end = file.stem.partition("-")
        shapes = _shapes(file).items()
        return cls(file, int(first), int(end), {name: shape[0] if shape else None for name, shape in shapes})

    @classmethod
    def row(cls, file: Path, made: Mapping[str, str]) -> Source:
        """The arrays of a finished row, of which those [n] are values of its first samples.

        Args:
            made: the name in parts of those that are meant, by their name in the file.
        """
        lines = {made[name]: shape[0] for name, shape in _shapes(file).items() if len(shape) == 1 and name in made}
        return cls(file, 0, max(lines.values(), default=0), lines, {name: own for own, name in made.items()})


@dataclass
class Parts:
    """What the sources together know of samples of one identity: equal samples have equal lines in all of them.

    A source that turns out to be damaged is named in one line, and is not there from then on.
    """

    sources: list[Source]
    _damaged: set[Path] = field(default_factory=set)

    def names(self, first: int, end: int) -> set[str]:
        """The arrays that have a line for each sample of [first, end), and the numbers of exactly this part."""
        known = {name for source in self.sources for name in source.lines}
        return {name for name in known if self._pieces(first, end, name)}

    def read(self, first: int, end: int, name: str) -> np.ndarray | None:
        """The lines of samples [first, end), or the number of exactly this part; None where they are not all there."""
        while pieces := self._pieces(first, end, name):
            found = [self._lines(name, *piece) for piece in pieces]
            whole = [lines for lines in found if lines is not None]
            if len(whole) == len(pieces):
                return whole[0] if len(whole) == 1 else np.concatenate(whole)
        return None

    def _pieces(self, first: int, end: int, name: str) -> list[tuple[Source, int, int]]:
        """(source, low, high): where the lines of [first, end) come from, in their order; none if one is missing."""
        there = [one for one in self.sources if name in one.lines and one.file not in self._damaged]
        for one in there:
            if one.lines[name] is None and (one.first, one.end) == (first, end):
                return [(one, first, end)]
        reach = {one.file: one.first + (one.lines[name] or 0) for one in there}
        pieces, low = [], first
        while low < end:
            over = [one for one in there if one.first <= low < reach[one.file]]
            if not over:
                return []
            longest = max(over, key=lambda one: reach[one.file])
            pieces.append((longest, low, min(end, reach[longest.file])))
            low = pieces[-1][2]
        return pieces

    def _lines(self, name: str, source: Source, low: int, high: int) -> np.ndarray | None:
        own = source.names.get(name, name)
        array = (read_arrays(source.file, names=(own,)) or {}).get(own)
        if array is None:  # damaged, or dropped by a process that finished its cell
            self._damaged.add(source.file)
            return None
        return array if source.lines[name] is None else array[low - source.first : high - source.first]


def add_arrays(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays to a part, beside those that are in it already."""
    while True:
        file.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # the folder was removed by a process that has finished a cell
            return write_arrays(file, {**(read_arrays(file) or {}), **arrays})


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the arrays in an npz, of which no data are read; none where it is not there, or damaged."""
    try:
        with ZipFile(file) as archive:
            return {name.removesuffix(".npy"): _shape(archive, name) for name in archive.namelist()}
    except Exception:  # as of any file; reading it tells
        return {name: array.shape for name, array in (read_arrays(file) or {}).items()}


def _shape(archive: ZipFile, name: str) -> tuple[int, ...]:
    with archive.open(name) as stream:
        read = npy.read_array_header_1_0 if npy.read_magic(stream) == (1, 0) else npy.read_array_header_2_0
        shape: tuple[int, ...] = read(stream)[0]
        return shape
