"""Rows: one finished cell each, with everything that its numbers depend on.

Rows of versions 1 (no `version`) and 2 told in sentences of their protocol what are fields since 3: how classes were
drawn, the scale of a classifier's guidance, the steps of reference solutions. They are read as rows of today.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import Field, JsonValue, ValidationError

from fastsample.datasets.files import DamagedFileError, read_json
from fastsample.results.metrics import remember
from fastsample.results.protocol import Protocol

__all__ = ["VERSION", "Row", "frame_of", "read_row"]

VERSION = 3


class _OtherVersionError(DamagedFileError):
    """A row that another version of fastsample has written."""


class Row(Protocol):
    """One cell's numbers and everything that they depend on.

    Attributes:
        cell: identity, a hash of all that determines the numbers.
        sampling: identity of the samples, a hash of what determines them, without their number and without metrics;
            rows of older versions have none.
        made: of each array of its samples, by name, a hash of what beside `sampling` decides it.
        model, checkpoint_sha256: the model and the hash of its weights ("" for analytic models).
        version: of this form; rows without it are of version 1.
        solver, title, options, grid: the sampler; options as given, grid as `Grid.parse` reads it; `sampler` is the
            sentence of solver and options, as `--solver` takes it.
        settings: options with defaults filled in; own_grid: the solver's recommended grid on the model. Rows of older
            versions have neither.
        times: outer times on the path that the solver integrates on.
        nfe_asked, nfe: budget, and network evaluations per sample in sequence that were made.
        nfe_mean, nfe_max: of adaptive solvers, where `nfe` is the rounded mean over samples; None of others.
        forwards: network calls per sample (guidance doubles them).
        classifier_calls: gradients of a guiding classifier per sample, which are no NFE.
        samples, seed, device: as asked, like the fields of `Protocol`.
        metrics: values by full name, such as `psnr` [dB], `curvature` or `fd[cifar10-resnet]@1000`.
        standard_errors: of those metrics that have one, by the same names.
        seconds: `network`, `solver` (arithmetic around the network), `metrics` and `total`, for all samples.
        protocol: the other facts that decide the numbers (reference hashes, rounding, algorithms, ...).
        versions: of fastsample, Python and the libraries.
        created: UTC, ISO 8601.
    """

    cell: str = Field(pattern=r"^[^/\\\x00]+$")  # names files of the store
    sampling: str = Field("", pattern=r"^([^/\\\x00.][^/\\\x00]*)?$")  # names folders of it
    made: dict[str, str] = Field({})
    version: int = 1
    model: str
    checkpoint_sha256: str
    solver: str
    title: str
    options: dict[str, JsonValue]
    settings: dict[str, JsonValue] = Field({})
    sampler: str
    grid: str
    own_grid: str = ""
    times: list[float]
    nfe_asked: int = Field(ge=1, le=10_000)
    nfe: int
    nfe_mean: float | None = None
    nfe_max: int | None = None
    forwards: int
    classifier_calls: int = 0  # rows of 0.1.0 have none
    samples: int = Field(ge=1, le=1_000_000)
    seed: int = Field(ge=0, lt=2**31)
    device: str
    metrics: dict[str, float]
    standard_errors: dict[str, float] = Field({})  # rows of 0.1.0 have none
    seconds: dict[str, float]
    protocol: dict[str, str]
    versions: dict[str, str]
    created: str

    @property
    def adaptive(self) -> bool:
        """Whether its steps depend on the sample."""
        return self.nfe_max is not None

    @property
    def learned(self) -> bool:
        """Whether its sampler is a table, which has no options and times of its own."""
        return "table" in self.protocol

    @property
    def statistics(self) -> str:
        """The hash of the statistics that its sampler runs on, with coefficients for each coordinate; "" for none."""
        return self.protocol.get("statistics", "")

    @property
    def tabled(self) -> bool:
        """Whether its sampler has a coefficient table, as `export` writes it."""
        return not (self.adaptive or self.statistics or "coefficients" in self.protocol)


def frame_of(rows: Sequence[Row]) -> pd.DataFrame:
    """Rows as a flat frame: nested fields become columns such as `metrics.psnr`, options `key=value,...`."""
    order = [*Row.__annotations__, *Protocol.model_fields]
    flat = [
        {
            name: value
            for name in order
            if name not in ("settings", "sampler", "made")
            for value in (getattr(row, name),)
        }
        | {"options": row.sampler.removeprefix(row.solver).removeprefix(":")}
        for row in rows
    ]
    return pd.json_normalize(flat, max_level=1)


def read_row(file: Path, cell: str = "") -> Row:
    """The row of a file, which is named by its cell unless that is given.

    Raises:
        OSError: if it cannot be read.
        DamagedFileError: if it is no row of this version, or another cell's; the message goes on after the file's name.
    """
    try:
        row = read_json(file.read_bytes(), _valid)
    except _OtherVersionError:
        raise
    except DamagedFileError as error:
        raise DamagedFileError(f"is damaged ({error})") from None
    remember(row.protocol)
    if row.cell != (cell or file.stem):
        raise DamagedFileError(f"is damaged (it is the row of {row.cell})")
    return row


def _valid(facts: dict[str, Any]) -> Row:
    try:
        return Row.model_validate(_upgraded(facts))
    except ValidationError as error:
        first, versions = error.errors()[0], facts.get("versions")
        written = str(versions.get("fastsample", "")) if isinstance(versions, dict) else ""
        theirs, ours = ([int(part) for part in re.findall(r"\d+", text)] for text in (written, version("fastsample")))
        newer = theirs > ours or all(one["type"] == "extra_forbidden" for one in error.errors())
        what = f"was written by a newer version of fastsample, {written}" if newer else "is no row of this version"
        raise _OtherVersionError(f"{what} ({'.'.join(map(str, first['loc']))}: {first['msg']})") from None


def _upgraded(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts of a row with the fields that its version did not have."""
    said = facts.get("protocol")
    if facts.get("version", 1) == VERSION or not isinstance(said, dict):
        return facts
    options = facts.get("options")
    given = ",".join(f"{key}={_text(value)}" for key, value in options.items()) if isinstance(options, dict) else ""
    fields = {
        "sampler": f"{facts.get('solver')}{':' if given else ''}{given}",
        "labels": "balanced" if str(said.get("labels", "")).startswith("i modulo") else "random",
        "classifier_scale": str(said.get("classifier guidance", "0")).rpartition(" ")[2],
        "reference_steps": said.get("reference steps"),
    }
    return fields | facts


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
