"""The store: a folder with one file per finished cell, and what tables are made of.

    STORE/rows/CELL.json          one finished cell; written whole or not at all
    STORE/per_sample/CELL.npz     per-sample PSNR and features of that cell
    STORE/partial/CELL/K.npz      finished shards of a cell that was interrupted
    STORE/rows.parquet, rows.csv  all rows, rewritten now and then and at the end of a sweep
    STORE/damaged/                row files that could not be read when their cells were computed anew

A row file is the commit point: every file is written as `datasets.files` does, so a killed process or a full disk
leaves rows that are complete or absent. Every file carries a checksum; what is damaged counts as missing and is
named in one line.

Several processes, of one host or of many, may work on one store: equal cells and shards have equal content, so it does
not matter who writes a file, only that each is whole. What one of them removes (the shards of a finished cell) the
others can do without: they hold their own in memory.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import numpy as np
import pandas as pd

from fastsample.datasets.files import (
    DamagedFileError,
    json_bytes,
    locked,
    read_arrays,
    sweep,
    warn,
    write_arrays,
    write_atomically,
)
from fastsample.results.escaping import csv_text
from fastsample.results.row import Row, frame_of, read_row

__all__ = ["Store", "StoreError"]


class StoreError(ValueError):
    """A folder that is no store, cannot be written, or holds a file that is no row."""


class Store:
    """A store in a folder, made if it is not there.

    Raises:
        StoreError: if the folder cannot be made or written to.
    """

    def __init__(self, folder: Path | str, *, create: bool = True) -> None:
        self.folder, self._due = Path(folder), 0.0
        self._told: set[str] = set()
        if not create:
            if not (self.folder / "rows").is_dir():
                raise StoreError(
                    f"{self.folder} is no store: it has no folder rows/; `fastsample bench --out` makes one"
                )
            return
        try:
            for name in ("rows", "per_sample", "partial"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder / "rows"):
                pass
        except OSError as error:
            raise StoreError(f"cannot write to the output folder {self.folder}: {error.strerror}") from None
        partial = list((self.folder / "partial").iterdir())
        for folder in (self.folder, self.folder / "rows", self.folder / "per_sample", *partial):
            sweep(folder)
        for folder in partial:  # killed between its row and the end
            if self._file(folder.name).exists():
                shutil.rmtree(folder, ignore_errors=True)

    def _file(self, cell: str) -> Path:
        return self.folder / "rows" / f"{cell}.json"

    def __contains__(self, cell: str) -> bool:
        return self._file(cell).exists() and self.finished(cell) is not None

    def finished(self, cell: str) -> Row | None:
        """The row of a finished cell; None where it is to be computed, or computed anew.

        A row that cannot be read, or whose arrays cannot, is moved to `damaged` first.
        """
        file = self._file(cell)
        try:
            row = read_row(file)
        except FileNotFoundError:
            return None
        except (OSError, DamagedFileError) as error:
            warn(f"{file} {error}: it is moved to {self.folder / 'damaged'}, and its cell is computed anew")
        else:
            if read_arrays(self._arrays(cell), "its cell is computed anew") is not None:
                return row
            if not self._arrays(cell).exists():
                warn(f"{file} is without its arrays: its cell is computed anew")
        (self.folder / "damaged").mkdir(exist_ok=True)
        with suppress(FileNotFoundError):  # another process was faster
            file.replace(self.folder / "damaged" / f"{cell}.{uuid4().hex[:8]}.json")
        return None

    def row(self, cell: str) -> Row:
        """The row of a finished cell.

        Raises:
            StoreError: if it is not there or is no row of this version.
        """
        file = self._file(cell)
        try:
            return read_row(file)
        except OSError as error:
            raise StoreError(f"cannot read {file}: {error.strerror}") from None
        except DamagedFileError as error:
            raise StoreError(f"{file} {error}") from None

    def rows(self) -> list[Row]:
        """All rows, oldest first; what is no row of this version is left out, and named once."""
        rows = []
        for file in (self.folder / "rows").glob("*.json"):
            try:
                rows.append(read_row(file))
            except FileNotFoundError:  # set aside just now by another process
                continue
            except (OSError, DamagedFileError) as error:
                self._tell(f"{file} {error}: it is left out; the same `fastsample bench` computes its cell anew")
        return sorted(rows, key=lambda row: (row.created, row.cell))

    def _tell(self, line: str) -> None:
        if line not in self._told:
            self._told.add(line)
            warn(line)

    def frame(self) -> pd.DataFrame:
        """All rows as a flat frame; see `frame_of`."""
        return frame_of(self.rows())

    def _arrays(self, cell: str) -> Path:
        return self.folder / "per_sample" / f"{cell}.npz"

    def per_sample(self, cell: str) -> dict[str, np.ndarray]:
        """Per-sample arrays of a finished cell: `psnr` float64 [n], `features[...]` float32 [n, d], and
        `influence[METRIC]` float64 [1 or 2, n], the effect of each sample on a metric; see `results.statistics`.

        Of adaptive solvers: `evaluations` int64 [n].
        Of `curvature` and `straightness`: `curvature` and `transport` float64 [n] (`bench.metrics.trajectories`).
        Of `truncation`: `truncation` float64 [n], the mean square error of each sample at the end, and along the
        way `truncation_curve` float64 [k], the root mean square distance per dimension to the reference trajectory
        at `truncation_times` float64 [k], both of the linear path; see `bench.run.Runner.truncation_curve`.

        Empty where they are not there or damaged, which is said: the cell has no intervals until it is computed anew.
        """
        then = "its cell has no intervals; the same `fastsample bench` computes it anew"
        return read_arrays(self._arrays(cell), then) or {}

    def shards(self, cell: str) -> dict[int, dict[str, np.ndarray]]:
        """Finished shards of an unfinished cell by index, whoever computed them; damaged files count as not there."""
        files = (self.folder / "partial" / cell).glob("[0-9]*.npz")
        found = {int(file.stem): read_arrays(file) for file in files}
        return {index: arrays for index, arrays in found.items() if arrays is not None}

    def add_shard(self, cell: str, index: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep a finished shard, unless another process has finished the cell."""
        folder = self.folder / "partial" / cell
        while not self._file(cell).exists():
            try:
                folder.mkdir(parents=True, exist_ok=True)
                return write_arrays(folder / f"{index}.npz", arrays)
            except FileNotFoundError:  # the folder was removed by the one that has finished the cell
                continue

    def finish(self, row: Row, arrays: Mapping[str, np.ndarray]) -> None:
        """Commit a cell: its arrays, then its row, then the summaries if they are due; its shards are dropped.

        Raises:
            ValueError: if the row would not be read back as it is; nothing is committed.
        """
        text = json_bytes(row.model_dump())
        write_arrays(self._arrays(row.cell), arrays)
        write_atomically(self._file(row.cell), lambda stream: stream.write(text), lambda file: _same(file, row))
        shutil.rmtree(self.folder / "partial" / row.cell, ignore_errors=True)
        begin = time.monotonic()
        if begin > self._due:
            self.summarise()
            now = time.monotonic()
            self._due = now + 20 * (now - begin)  # so that it costs a twentieth of the time at most

    def summarise(self) -> None:
        """Rewrite rows.parquet and rows.csv from the row files, one process at a time."""
        with locked(self.folder / ".lock"):
            frame = self.frame()
            for name in frame.columns:
                if frame[name].map(lambda value: isinstance(value, list)).any():
                    frame[name] = frame[name].map(str)
            write_atomically(self.folder / "rows.parquet", lambda stream: frame.to_parquet(stream, index=False))
            write_atomically(self.folder / "rows.csv", lambda stream: stream.write(csv_text(frame).encode()))


def _same(file: Path, row: Row) -> None:
    if read_row(file, row.cell) != row:
        raise StoreError(f"the row of {row.cell} would not be read back as it is")
