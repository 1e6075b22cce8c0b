"""The store: a folder with one file per finished cell, and what tables are made of.

    STORE/rows/CELL.json          one finished cell; written whole or not at all
    STORE/per_sample/CELL.npz     per-sample PSNR and features of that cell
    STORE/partial/CELL/K.npz      finished shards of a cell that was interrupted
    STORE/rows.parquet, rows.csv  all rows, rewritten now and then and at the end of a sweep

A row file is the commit point: every file is written under a temporary name, flushed to disk and
renamed, so a killed process or a full disk leaves rows that are complete or absent.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

__all__ = ["Row", "Store", "StoreError", "frame_of", "write_atomically"]


class StoreError(ValueError):
    """A folder that is no store, cannot be written, or holds a file that is no row."""


class Row(BaseModel):
    """One cell's numbers and everything that they depend on.

    Attributes:
        cell: identity, a hash of all that determines the numbers.
        model, checkpoint_sha256: the model and the hash of its weights ("" for analytic models).
        solver, title, options, grid: the sampler; options complete, grid as `Grid.parse` reads it.
        times: outer times on the path that the solver integrates on.
        nfe_asked, nfe: budget, and network evaluations per sample in sequence that were made.
        nfe_mean, nfe_max: of adaptive solvers, where `nfe` is the rounded mean over samples; None of others.
        forwards: network calls per sample (guidance doubles them).
        classifier_calls: gradients of a guiding classifier per sample, which are no NFE.
        guidance, samples, seed, precision, device: as asked.
        metrics: values by full name, such as `psnr` [dB], `curvature` or `fd[cifar10-resnet]@1000`.
        standard_errors: of those metrics that have one, by the same names.
        seconds: `network`, `solver` (arithmetic around the network), `metrics` and `total`, for all samples.
        protocol: the other facts that decide the numbers (reference hashes, rounding, algorithms, ...).
        versions: of fastsample, Python and the libraries.
        created: UTC, ISO 8601.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cell: str
    model: str
    checkpoint_sha256: str
    solver: str
    title: str
    options: dict[str, Any]
    grid: str
    times: list[float]
    nfe_asked: int
    nfe: int
    nfe_mean: float | None = None
    nfe_max: int | None = None
    forwards: int
    classifier_calls: int = 0  # rows of 0.1.0 have none
    guidance: float
    samples: int
    seed: int
    precision: str
    device: str
    metrics: dict[str, float]
    standard_errors: dict[str, float] = {}  # rows of 0.1.0 have none
    seconds: dict[str, float]
    protocol: dict[str, str]
    versions: dict[str, str]
    created: str


class Store:
    """A store in a folder, made if it is not there.

    Raises:
        StoreError: if the folder cannot be made or written to.
    """

    def __init__(self, folder: Path | str, *, create: bool = True) -> None:
        self.folder, self._due = Path(folder), 0.0
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

    def __contains__(self, cell: str) -> bool:
        return (self.folder / "rows" / f"{cell}.json").exists()

    def row(self, cell: str) -> Row:
        """The row of a finished cell.

        Raises:
            StoreError: if it is not there or is no row.
        """
        file = self.folder / "rows" / f"{cell}.json"
        try:
            return Row.model_validate_json(file.read_bytes())
        except OSError as error:
            raise StoreError(f"cannot read {file}: {error.strerror}") from None
        except ValidationError as error:
            raise StoreError(f"{file} is no row of this version: {error.errors()[0]['msg']}") from None

    def rows(self) -> list[Row]:
        """All rows, oldest first."""
        rows = [self.row(file.stem) for file in (self.folder / "rows").glob("*.json")]
        return sorted(rows, key=lambda row: (row.created, row.cell))

    def frame(self) -> pd.DataFrame:
        """All rows as a flat frame; see `frame_of`."""
        return frame_of(self.rows())

    def per_sample(self, cell: str) -> dict[str, np.ndarray]:
        """Per-sample arrays of a finished cell: `psnr` float64 [n], `features[...]` float32 [n, d], and
        `influence[METRIC]` float64 [1 or 2, n], the effect of each sample on a metric; see `results.statistics`.

        Of adaptive solvers: `evaluations` int64 [n].
        Of `curvature` and `straightness`: `curvature` and `transport` float64 [n], see `bench.trajectories.bending`.
        Of `truncation`: `truncation` float64 [n], the mean square error of each sample at the end, and along the
        way `truncation_curve` float64 [k], the root mean square distance per dimension to the reference trajectory
        at `truncation_times` float64 [k], both of the linear path; see `bench.run.Runner.truncation_curve`.
        """
        return _read(self.folder / "per_sample" / f"{cell}.npz")

    def shards(self, cell: str) -> dict[int, dict[str, np.ndarray]]:
        """Finished shards of an unfinished cell by index; unreadable files count as not there."""
        found: dict[int, dict[str, np.ndarray]] = {}
        for file in (self.folder / "partial" / cell).glob("*.npz"):
            try:
                found[int(file.stem)] = _read(file)
            except (ValueError, OSError, KeyError, EOFError, BadZipFile):
                file.unlink()
        return found

    def add_shard(self, cell: str, index: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep a finished shard."""
        folder = self.folder / "partial" / cell
        folder.mkdir(exist_ok=True)
        write_atomically(folder / f"{index}.npz", lambda stream: np.savez(stream, **_untyped(arrays)))

    def finish(self, row: Row, arrays: Mapping[str, np.ndarray]) -> None:
        """Commit a cell: its arrays, then its row, then the summaries if they are due; its shards are dropped."""
        write_atomically(
            self.folder / "per_sample" / f"{row.cell}.npz", lambda stream: np.savez(stream, **_untyped(arrays))
        )
        text = row.model_dump_json(indent=1).encode()
        write_atomically(self.folder / "rows" / f"{row.cell}.json", lambda stream: stream.write(text))
        shutil.rmtree(self.folder / "partial" / row.cell, ignore_errors=True)
        begin = time.monotonic()
        if begin > self._due:
            self.summarise()
            now = time.monotonic()
            self._due = now + 20 * (now - begin)  # so that it costs a twentieth of the time at most

    def summarise(self) -> None:
        """Rewrite rows.parquet and rows.csv from the row files."""
        frame = self.frame()
        for name in frame.columns:
            if frame[name].map(lambda value: isinstance(value, list)).any():
                frame[name] = frame[name].map(str)
        write_atomically(self.folder / "rows.parquet", lambda stream: frame.to_parquet(stream, index=False))
        write_atomically(self.folder / "rows.csv", lambda stream: frame.to_csv(stream, index=False))


def frame_of(rows: Sequence[Row]) -> pd.DataFrame:
    """Rows as a flat frame: nested fields become columns such as `metrics.psnr`, options `key=value,...`."""
    flat = [row.model_dump() | {"options": ",".join(f"{k}={v}" for k, v in row.options.items())} for row in rows]
    return pd.json_normalize(flat, max_level=1)


def write_atomically(file: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write a file so that it is there whole or not at all."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _untyped(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """For numpy's annotation of savez, which takes every keyword for its flag."""
    return dict(arrays)


def _read(file: Path) -> dict[str, np.ndarray]:
    with np.load(file, allow_pickle=False) as data:
        return {name: data[name] for name in data.files}
