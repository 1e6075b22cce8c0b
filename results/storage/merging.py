"""Several stores as one: their rows with what intervals need, and the parts of samples that they keep."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastsample.datasets.files import read_arrays, warn, write_atomically
from fastsample.results.commands import GIVEN, SHAPE
from fastsample.results.metrics import REAL
from fastsample.results.row import Row
from fastsample.results.storage.parts import Source, add_arrays
from fastsample.results.store import Store

__all__ = ["MergeError", "merge"]

# In which equal rows may differ: facts of a run, and those that older versions did not write.
_OF_A_RUN: dict[str, Any] = dict.fromkeys(("created", "seconds", "device", "versions", "version", "sampling"), True)


class MergeError(ValueError):
    """Stores with different content under one identity."""


def merge(folders: Sequence[Path], out: Path) -> tuple[int, int]:
    """Bring the rows and the kept parts of stores into one, which may be one of them; returns how many of each came.

    Rows that differ in nothing but their run are one. Everything is compared before anything is written, and each
    file is copied whole, so that a merge that was interrupted can be repeated. What is damaged is named and left out.

    Raises:
        StoreError: for a folder that is no store, or cannot be written to.
        MergeError: where a row or a part is not the same in two of them.
    """
    sources = [Store(folder, create=False) for folder in dict.fromkeys(folders)]
    if (out / "rows").is_dir():
        sources.insert(0, Store(out, create=False))
        sources[1:] = [one for one in sources[1:] if not one.folder.samefile(out)]
    rows: dict[str, tuple[Path, Row]] = {}
    parts: dict[str, list[Path]] = {}
    for store in sources:
        for row in store.rows():
            if _sound(store.folder, row.cell):
                folder, known = rows.setdefault(row.cell, (store.folder, row))
                _check_rows(folder, known, store.folder, row)
        for file in sorted(store.folder.glob("kept/*/*-*.npz")):
            if arrays := read_arrays(file, "it is left out"):
                found = parts.setdefault(str(file.relative_to(store.folder)), [])
                for other in found:
                    what = f"the part {file.stem} of the samples {file.parent.name}"
                    _check_arrays(what, other, file, read_arrays(other) or {}, arrays)
                found.append(file)
    target = Store(out)
    new_rows = {cell: folder for cell, (folder, _) in rows.items() if folder != out}
    for cell, folder in new_rows.items():
        _copy(_arrays(folder, cell), _arrays(out, cell))
        _copy(folder / "rows" / f"{cell}.json", out / "rows" / f"{cell}.json")  # after what it stands for
    new_parts = sum(_bring(files, out / name) for name, files in parts.items())
    target.summarise()
    return len(new_rows), new_parts


def _bring(files: Sequence[Path], kept: Path) -> bool:
    """Make a part of sound files that have it, the part itself first if it is one of them; whether it is another."""
    first, *others = files
    if first != kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        _copy(first, kept)
    more = [file for file in others if Source.part(file).lines.keys() - Source.part(kept).lines.keys()]
    for file in more:
        add_arrays(kept, read_arrays(file) or {})
    return first != kept or bool(more)


def _sound(folder: Path, cell: str) -> bool:
    """Whether the arrays of a row can be read; if not, it is said."""
    file = _arrays(folder, cell)
    if not file.exists():
        warn(f"{folder / 'rows' / f'{cell}.json'} is without its arrays: it is left out")
    return read_arrays(file, "its row is left out") is not None


def _arrays(folder: Path, cell: str) -> Path:
    return folder / "per_sample" / f"{cell}.npz"


def _copy(file: Path, to: Path) -> None:
    with file.open("rb") as stream:
        write_atomically(to, lambda out: shutil.copyfileobj(stream, out))


def _check_rows(one: Path, row: Row, two: Path, other: Row) -> None:
    """Raise MergeError where the rows of one cell in two stores differ in more than their run."""
    if one == two:
        return
    what = f"the row {row.cell} ({row.model} {row.sampler} NFE {row.nfe_asked}, seed {row.seed})"
    first, second = _content(row), _content(other)
    if fields := [name for name in first if first[name] != second[name]]:
        raise MergeError(f"{what} has another {fields[0]} in {two} than in {one}: {_REMEDY}")
    files = _arrays(one, row.cell), _arrays(two, row.cell)
    _check_arrays(what, *files, *(read_arrays(file) or {} for file in files))


def _content(row: Row) -> dict[str, Any]:
    """The facts of a row but those of its run, what commands need, and the scale whose images not every machine has."""
    return row.model_dump(exclude=_OF_A_RUN | {"protocol": {GIVEN, SHAPE, *map(REAL.format, row.metrics)}})


def _check_arrays(
    what: str, one: Path, two: Path, first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]
) -> None:
    """Raise MergeError where an array that both have is not the same."""
    for name in first.keys() & second.keys():
        if not np.array_equal(first[name], second[name]):
            raise MergeError(f"{what} has another {name} in {two} than in {one}: {_REMEDY}")


_REMEDY = "remove the file that is wrong, or keep the two stores apart"
