"""Baselines: the numbers of a store in one file, kept to compare later runs with.

Each number is kept with the effect of each sample on it, so that a later run of the same seeds is compared with it
sample by sample.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fastsample.datasets.files import read_small, write_atomically
from fastsample.datasets.text import text_of
from fastsample.results.comparable import CELL, FINGERPRINT, incomparable, what_decides
from fastsample.results.evidence import Comparison
from fastsample.results.statistics import Estimate
from fastsample.results.store import Store

__all__ = ["Baseline", "BaselineError", "Entry", "Figure", "baseline_of"]


class BaselineError(ValueError):
    """A file that is no baseline, or a store that none can be made of."""


class Figure(BaseModel):
    """One number of a baseline.

    Attributes:
        value, standard_error: of the metric.
        influence: effect of each sample, in base64 of little-endian float16 [1 or 2, samples], of any scale; see
            `results.statistics.Estimate`.
        samples: that it is from, where these are not all of its cell.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    value: float
    standard_error: float = Field(ge=0)
    influence: str
    samples: int | None = Field(None, ge=2)

    @classmethod
    def of(cls, estimate: Estimate, samples: int) -> Self:
        """Of an estimate from one set of samples, or the first of them, of a cell that has so many."""
        (part,) = estimate.parts
        scaled = (part / (np.abs(part).max() or 1)).astype("<f2")
        return cls(
            value=estimate.value, standard_error=estimate.standard_error,
            influence=base64.b64encode(scaled.tobytes()).decode(),
            samples=estimate.samples if estimate.samples != samples else None,
        )  # fmt: skip

    def estimate(self, samples: int) -> Estimate:
        """The estimate again, to three digits in the influences, in a cell of so many samples.

        Raises:
            ValueError: if the influences are not those of as many samples as it is from.
        """
        samples = self.samples or samples
        data = base64.b64decode(self.influence, validate=True)
        if len(data) not in (2 * samples, 4 * samples):
            raise ValueError(f"the influences are not those of {samples} samples")
        part = np.frombuffer(data, "<f2").reshape(-1, samples).astype(np.float64)
        unscaled = Estimate(self.value, (part - part.mean(1, keepdims=True),))
        scale = self.standard_error / unscaled.standard_error if unscaled.standard_error else 1.0
        return Estimate(self.value, (scale * unscaled.parts[0],))


class Entry(BaseModel):
    """One row of a baseline: its cell, what decides its numbers, and these."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    solver: str
    options: str
    grid: str
    nfe_asked: int
    nfe: int
    seed: int
    samples: int = Field(ge=2)
    facts: dict[str, str]
    metrics: dict[str, Figure] = Field(min_length=1)

    @model_validator(mode="after")
    def _readable(self) -> Self:
        for figure in self.metrics.values():
            figure.estimate(self.samples)
        return self


class Baseline(BaseModel):
    """Numbers that later runs are compared with.

    Attributes:
        format, version: of the file.
        created: UTC, ISO 8601.
        fastsample: the version that computed the numbers.
        cells: one entry for each row.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["fastsample baseline"] = "fastsample baseline"
    version: Literal[1] = 1
    created: str
    fastsample: str
    cells: tuple[Entry, ...] = Field(min_length=1)

    @classmethod
    def read(cls, file: Path) -> Self:
        """A file of `write`.

        Raises:
            BaselineError: if it cannot be read, or is no baseline of this version.
        """
        try:
            return cls.model_validate_json(text_of(read_small(file)))
        except OSError as error:
            raise BaselineError(f"cannot read {file}: {error.strerror}") from None
        except ValidationError as error:
            first = error.errors()[0]
            what = ": ".join(
                filter(None, [".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")])
            )
            raise BaselineError(f"{file} is no baseline that this version reads: {what}") from None
        except ValueError as error:  # of a text that is not UTF-8
            raise BaselineError(f"{file} is no baseline: {error}") from None

    def write(self, file: Path) -> None:
        """Write the file, whole or not at all, and the folder that it lies in."""
        file.parent.mkdir(parents=True, exist_ok=True)
        text = self.model_dump_json(indent=1, exclude_none=True).encode() + b"\n"
        write_atomically(file, lambda stream: stream.write(text), self.read)


def baseline_of(store: Store) -> Baseline:
    """The baseline of a store: its numbers that have a standard error.

    Raises:
        BaselineError: if no row has such a number, or if the store is mixed: numbers of one metric are not comparable.
    """
    frame, comparison = store.frame(), Comparison(store)
    names = [name.removeprefix("metrics.") for name in frame.columns if name.startswith("metrics.")]
    entries: dict[tuple[Any, ...], Entry] = {}
    for row in frame.to_dict("records"):
        found = {name: comparison.by_seed(row["cell"], name) for name in names}
        figures = {name: Figure.of(one[row["seed"]], row["samples"]) for name, one in found.items() if one}
        if not figures:
            continue
        facts = {field: text for name in figures for field, text in what_decides(row, name).items()}
        if isinstance(judge := row.get(f"protocol.{FINGERPRINT}"), str):
            facts[FINGERPRINT] = judge
        entry = Entry(**{name: row[name] for name in (*CELL, "nfe", "seed", "samples")}, facts=facts, metrics=figures)
        key = tuple(row[name] for name in (*CELL, "seed", "samples"))
        if older := entries.get(key):  # a row of the same cell that was asked for other metrics
            merged = {"facts": older.facts | facts, "metrics": dict(older.metrics) | figures}
            entry = entry.model_copy(update=merged)
        entries[key] = entry
    for name in {name for entry in entries.values() for name in entry.metrics}:
        if reason := incomparable(frame, name):
            raise BaselineError(f"no baseline of a mixed store: {reason}")
    if not entries:
        raise BaselineError(f"{store.folder} holds no number with a standard error")
    return Baseline(
        created=datetime.now(UTC).isoformat(timespec="seconds"), fastsample=frame["versions.fastsample"].iloc[-1],
        cells=tuple(entries.values()),
    )  # fmt: skip
