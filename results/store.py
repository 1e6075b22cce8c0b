"""The store: a folder with one file per finished cell, and what tables are made of.

    STORE/rows/CELL.json                    one finished cell; written whole or not at all
    STORE/per_sample/CELL.npz               what its intervals need: values and influences of its samples
    STORE/partial/SAMPLING/FIRST-END.npz    finished parts of samples whose cells are unfinished
    STORE/kept/SAMPLING/FIRST-END.npz       parts that were to be kept, with features or images
    STORE/images/CELL.npz or CELL/00000.png  images of a finished cell, where they were to be saved
    STORE/claims/JOB.lock                   what a process is at work on
    STORE/rows.parquet, rows.csv            all rows, rewritten now and then and at the end of a sweep
    STORE/damaged/                          row files that could not be read when their cells were computed anew

A row file is the commit point: every file is written as `datasets.files` does, so a killed process or a full disk
leaves rows that are complete or absent. Every file carries a checksum; what is damaged counts as missing and is
named in one line.

Several processes, of one host or of many, may work on one store: equal cells and parts have equal content, so it does
not matter who writes a file, only that each is whole. What one of them removes (the parts of a finished cell) another
computes again, if it still wants it. Stores of older versions have features in `per_sample`, which nothing reads, and
parts of another form in `partial`, which `fastsample store prune` removes.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, suppress
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
from fastsample.results.forms.escaping import csv_text
from fastsample.results.row import Row, frame_of, read_row
from fastsample.results.storage.claims import claimed
from fastsample.results.storage.parts import Parts, Source, add_arrays

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
        self._sampling: dict[
            str, tuple[str, dict[str, str]]
        ] = {}  # of rows that were read, by cell; with what was made
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
        parts = [folder for name in ("partial", "kept") for folder in (self.folder / name).glob("*/")]
        for folder in (self.folder, self.folder / "rows", self.folder / "per_sample", *parts):
            sweep(folder)
        for file in (self.folder / "claims").glob("*.lock"):
            with claimed(file):  # removes what a killed process left
                pass

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
                self.drop(row.sampling, until=file)  # left by one that was killed after its row
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

    def per_sample(self, cell: str, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
        """Per-sample arrays of a finished cell: `psnr` float64 [k], of its first k samples, and `influence[METRIC]`
        float64 [1 or 2, k], the effect of each sample on a metric; see `results.statistics`.

        Of adaptive solvers: `evaluations` and `forwards` int32 [n].
        Of `curvature` and `straightness`: `curvature` and `transport` float64 [n] (`bench.metrics.trajectories`).
        Of `truncation`: `truncation` float64 [k], the mean square error of each sample at the end, and along the
        way `truncation_curve` float64 [k], the root mean square distance per dimension to the reference trajectory
        at `truncation_times` float64 [k], both of the linear path; see `bench.metrics.measures.solution`.

        Empty where they are not there or damaged, which is said: the cell has no intervals until it is computed anew.

        Args:
            names: only those of these that are there; the others are not read.
        """
        then = "its cell has no intervals; the same `fastsample bench` computes it anew"
        return read_arrays(self._arrays(cell), then, names) or {}

    def parts(self, sampling: str) -> Parts:
        """What there is of samples of one identity: unfinished parts, kept ones, and values in finished rows.

        Arrays of rows are called NAME|HASH there, with the hash of what decides them; who adds parts names them so too.
        """
        if not sampling:
            return Parts([])
        files = [file for name in ("partial", "kept") for file in self._parts(name, sampling)]
        rows = (Source.row(self._arrays(cell), self._sampling[cell][1]) for cell in self._cells(sampling))
        return Parts([*map(Source.part, files), *rows])

    def earlier(self, sampling: str) -> Row | None:
        """A finished row of samples of one identity, whatever was measured of however many of them."""
        return next((row for cell in self._cells(sampling) if (row := self.finished(cell))), None)

    def _cells(self, sampling: str) -> list[str]:
        """The finished cells of samples of one identity."""
        for row in (self.folder / "rows").glob("*.json"):
            if row.stem not in self._sampling:
                with suppress(OSError, DamagedFileError):  # who shows or computes rows tells
                    read = read_row(row)
                    made = {name: f"{name}|{how}" for name, how in read.made.items()}
                    self._sampling[row.stem] = read.sampling, made
        return [cell for cell, (held, _) in self._sampling.items() if held == sampling]

    def _parts(self, name: str, sampling: str) -> list[Path]:
        files = (self.folder / name / sampling).glob("*.npz")
        return sorted(file for file in files if re.fullmatch(r"\d+-\d+", file.stem))

    def add_part(self, sampling: str, first: int, end: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep a finished part, samples [first, end), until its cell is finished; with what is kept of it already."""
        add_arrays(self.folder / "partial" / sampling / f"{first}-{end}.npz", arrays)

    def drop(self, sampling: str, until: Path | None = None) -> None:
        """Remove the unfinished parts of samples, all or those that are not newer than a file."""
        if not sampling:
            return
        with suppress(OSError):  # another process was faster, or adds to them
            last = until.stat().st_mtime_ns if until else None
            for file in self._parts("partial", sampling):
                if last is None or file.stat().st_mtime_ns <= last:
                    file.unlink(missing_ok=True)
            (self.folder / "partial" / sampling).rmdir()

    def _keep(self, sampling: str) -> None:
        """Move unfinished parts to those that are kept, with what is kept of them already."""
        for file in self._parts("partial", sampling):
            kept = self.folder / "kept" / sampling / file.name
            if kept.exists():
                add_arrays(kept, read_arrays(file) or {})
                file.unlink(missing_ok=True)
            else:
                kept.parent.mkdir(parents=True, exist_ok=True)
                with suppress(FileNotFoundError):  # another process was faster
                    file.replace(kept)

    def finish(self, row: Row, arrays: Mapping[str, np.ndarray], keep: bool = False) -> None:
        """Commit a cell: its arrays, then its row, then the summaries if they are due.

        Args:
            arrays: what intervals need, a few bytes for each sample.
            keep: move the parts of its samples to those that are kept; else they are dropped. Another cell of the
                same samples that is unfinished computes them again.

        Raises:
            ValueError: if the row would not be read back as it is; nothing is committed.
        """
        text = json_bytes(row.model_dump())
        write_arrays(self._arrays(row.cell), arrays)
        if keep and row.sampling:
            self._keep(row.sampling)
        write_atomically(self._file(row.cell), lambda stream: stream.write(text), lambda file: _same(file, row))
        self.drop(row.sampling)
        begin = time.monotonic()
        if begin > self._due:
            self.summarise()
            now = time.monotonic()
            self._due = now + 20 * (now - begin)  # so that it costs a twentieth of the time at most

    def claim(self, job: str) -> AbstractContextManager[bool]:
        """True while this process alone may do a job, by a name that a file can have; see `storage.claims`."""
        return claimed(self.folder / "claims" / f"{job}.lock")

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
