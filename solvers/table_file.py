"""Table files: a coefficient table with what it belongs to, as JSON that is checked when it is read.

A file holds the numbers of one table, the path that its times are of, the model it was made for (with the hash of its
weights and the guidance, since a learned table is specific to them), and the record of its training. Python writes
and reads JSON numbers so that float64 comes back exactly.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from pathlib import Path as FilePath
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from fastsample.datasets.files import DamagedFileError, json_bytes, read_json, read_small
from fastsample.datasets.names import number
from fastsample.models.denoiser import Prediction
from fastsample.models.path import DiscreteVP, Path, path_named
from fastsample.results.training import TrainedOn
from fastsample.solvers.table import Table

__all__ = ["Imported", "TableFile", "TableFileError", "Training", "read_table"]


class TableFileError(ValueError):
    """A file that is no table of this version, or whose numbers cannot be a solver."""


class Training(BaseModel):
    """How a learned table came about.

    Attributes:
        initial: the solver it started from, as the command line names it; tried: validation PSNR in dB from each start.
        free_parameters, convention: numbers that were free, and how they are counted.
        reference: the solutions it was trained against; pairs_sha256: hash of the noises and solutions.
        train_pairs, train_seed, validation_pairs, validation_seed: noises that no benchmark draws.
        initial_psnr, train_psnr, validation_psnr: mean over pairs in dB, before and after.
        iterations, evaluations: Gauss-Newton steps, and network evaluations (per sample) they cost.
        seconds: wall time of the fit, without the pairs; pairs_seconds: of the pairs, 0 where they were there.
        history: (iteration, training PSNR, validation PSNR); the first training PSNR is not measured (None).
        found: how the grid or the statistics of `initial` were found for the model, if they were.
        loss: what it was trained on; of another than PSNR's, `tried` and `history` are -10 log10 of the mean loss.
        soft: radius of the ball of noises around each teacher's in which the student could start, in units of it.
        versions: of fastsample and torch.
        asked: a hash of all that was asked for, by which the same command finds the table; older files have none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    initial: str
    tried: dict[str, float]
    free_parameters: int
    convention: str
    reference: str
    pairs_sha256: str
    train_pairs: int
    train_seed: int
    validation_pairs: int
    validation_seed: int
    initial_psnr: float
    train_psnr: float
    validation_psnr: float
    iterations: int
    evaluations: int
    seconds: float
    pairs_seconds: float
    history: tuple[tuple[int, float | None, float], ...]
    versions: dict[str, str]
    found: str = Field(default="", exclude_if=lambda said: not said)
    loss: TrainedOn = Field(default="squared error", exclude_if=lambda said: said == "squared error")
    soft: float = Field(default=0.0, exclude_if=lambda said: not said)
    asked: str = Field(default="", exclude_if=lambda said: not said)


class Imported(BaseModel):
    """Where the numbers of a solver come from that others have published; no such source names the hash of a model.

    Attributes:
        source: the paper's tables, or the name and hash of a file.
        trained_on: what decided the numbers; told: what is known of their training and use, in words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    trained_on: TrainedOn
    told: str = ""

    def __str__(self) -> str:
        return ", ".join(filter(None, (f"imported, unverified model: {self.source}", self.told)))


class TableFile(BaseModel):
    """A table and what it belongs to.

    Attributes:
        format, version: say that this is a table file, and of which form.
        solver: its name in tables and on the command line, such as `bns`; title: in words; paper: arXiv id.
        nfe: evaluations.
        coordinate, times, a, b, w, end: as in `Table`; b holds the rows' first entries only (row i has i of them).
        apart: its evaluations are at times apart from those of its steps: in any order, and also a little before or
            after the path's interval, where the path has alpha >= 0 and sigma > 0.
        path: `name` and the constants of the model's path.
        model, model_sha256: what it was made for; "" where it fits every model on its path.
        model_conditions, model_given: as `conditions` and `given` of that `Model`; older files of public models have
            none.
        guidance: weight w of (1 + w) cond - w uncond that is part of the model it was made for.
        guide, guided_within: as of that `Model`: what stands for uncond, and where guidance acts.
        options: of the solver it was traced from.
        training: of a learned table; imported: of one that others have published.
        found_on, found_with: of one whose grid or statistics were found for the model: what decided them, and how.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: Literal["fastsample-table"] = "fastsample-table"
    version: Literal[1] = 1
    solver: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    title: str
    paper: str
    nfe: int = Field(ge=1)
    coordinate: Prediction
    times: list[float]
    end: float
    a: list[float]
    b: list[list[float]]
    w: list[list[float]] = []
    apart: bool = Field(default=False, exclude_if=lambda said: not said)
    path: dict[str, JsonValue]
    model: str = ""
    model_sha256: str = ""
    model_conditions: str = Field(default="", exclude_if=lambda said: not said)
    model_given: str = Field(default="", exclude_if=lambda said: not said)
    guidance: float = 0.0
    guide: str = Field(default="", exclude_if=lambda said: not said)
    guided_within: tuple[float | None, float | None] = Field(
        default=(None, None), exclude_if=lambda said: said == (None, None)
    )
    options: dict[str, JsonValue] = {}
    training: Training | None = None
    found_on: TrainedOn = Field(default="nothing", exclude_if=lambda said: said == "nothing")
    found_with: str = Field(default="", exclude_if=lambda said: not said)
    imported: Imported | None = Field(default=None, exclude_if=lambda said: not said)

    @model_validator(mode="after")
    def _is_a_solver(self) -> TableFile:
        n = self.nfe
        if len(self.times) != n or len(self.a) != n + 1 or [len(row) for row in self.b] != [*range(n + 1)]:
            raise ValueError(f"a table of {n} evaluations has {n} times, {n + 1} rows, and i numbers in row i of b")
        if self.w and (len(self.w) != n + 1 or len({len(row) for row in self.w}) != 1):
            raise ValueError(f"the noise coefficients w are {n + 1} rows of one length")
        path = self.noise_path
        sign = 1 if path.t_data > path.t_noise else -1
        ends = [path.t_noise, *self.times, path.t_data]
        # Stochastic solvers may step back to a noisier time.
        if not (self.w or self.apart or self.imported) and any(
            sign * (t - s) < -1e-12 for s, t in zip(ends[1:-1], ends[2:], strict=True)
        ):
            raise ValueError("the times do not run from noise to data")
        beyond = math.inf if self.imported else 0.1 * abs(path.t_data - path.t_noise) if self.apart else 1e-9
        if any(sign * (t - path.t_noise) < -beyond or sign * (path.t_data - t) < -beyond for t in self.times):
            raise ValueError(f"a time lies outside the path's interval from {path.t_noise:g} to {path.t_data:g}")
        least = -math.inf if self.imported else 0.0  # of alpha: a flow's time scale may ask before its start
        if (self.apart or self.imported) and not all(_has_level(path, t, least) for t in self.times):
            raise ValueError(f"a time lies where the {path.name} path has no noise level")
        return self

    @classmethod
    def of(cls, table: Table, path: Path, **facts: Any) -> TableFile:
        """The file of a table whose times are of `path`; `facts` are the other attributes."""
        constants = {"name": path.name} | json.loads(json.dumps(dataclasses.asdict(path)))
        return cls(
            nfe=table.nfe, coordinate=table.coordinate, times=table.times.tolist(), end=table.end, a=table.a.tolist(),
            b=[table.b[i, :i].tolist() for i in range(table.nfe + 1)],
            w=table.w.tolist() if table.w.size else [], path=constants, **facts,
        )  # fmt: skip

    @property
    def table(self) -> Table:
        """The table, in float64."""
        n = self.nfe
        b = np.zeros((n + 1, n))
        for i, row in enumerate(self.b):
            b[i, :i] = row
        w = np.array(self.w) if self.w else np.zeros((n + 1, 0))
        return Table(self.coordinate, np.array(self.times), np.array(self.a), b, w, self.end)

    @property
    def noise_path(self) -> Path:
        """The path of the times.

        Raises:
            ValueError: for an unknown path or constant.
        """
        constants: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in self.path.items()}
        name = constants.pop("name", None)
        try:
            if name == "vp-discrete":
                return DiscreteVP(**constants)
            return dataclasses.replace(path_named(str(name)), **constants)
        except TypeError as error:
            raise ValueError(f"path {name!r}: {error}") from None

    @property
    def guidance_words(self) -> str:
        """Its guidance: the weight, the model that guides, and where guidance acts."""
        low, high = ("" if end is None else number(end) for end in self.guided_within)
        where = f" where {low or 0} < sigma/alpha" + (f" <= {high}" if high else "") if low or high else ""
        return f"{self.guidance:g}" + (f" by {self.guide}" if self.guide else "") + where

    @property
    def trained_on(self) -> TrainedOn:
        """What its numbers were trained on."""
        if self.imported:
            return self.imported.trained_on
        return self.training.loss if self.training else self.found_on

    @property
    def trained_with(self) -> str:
        """The pairs, seeds and evaluations of its training, or its source, in words."""
        if self.imported:
            return str(self.imported)
        one = self.training
        if one is None:
            return self.found_with
        pairs = f"{one.train_pairs} and {one.validation_pairs} pairs"
        soft = f", noises moved by up to {one.soft:.3g} sigma (soft)" if one.soft else ""
        told = f"{pairs} of seeds {one.train_seed} and {one.validation_seed}, {one.evaluations:,} evaluations{soft}"
        return told + (f"; its start with {one.found}" if one.found else "")

    @property
    def sha256(self) -> str:
        """Hash of all that decides the samples: the numbers, the path and the coordinate."""
        facts = self.model_dump(include={"coordinate", "times", "end", "a", "b", "w", "path"})
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> str:
        """The file's text, with its checksum."""
        return json_bytes(self.model_dump()).decode()


def _has_level(path: Path, t: float, least: float) -> bool:
    try:
        return path.alpha(t) >= least and path.sigma(t) > 0
    except (ArithmeticError, ValueError):  # the root of a negative number
        return False


def read_table(file: FilePath) -> TableFile:
    """The table file of that name.

    Raises:
        TableFileError: if it cannot be read, is cut short, of another form, or its numbers cannot be a solver.
    """
    try:
        return read_json(read_small(file), TableFile.model_validate)
    except OSError as error:
        raise TableFileError(f"cannot read {file}: {error.strerror}") from None
    except DamagedFileError as error:
        raise TableFileError(f"{file} is no table: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        reason = first["msg"].removeprefix("Value error, ")
        reason = "a number is NaN or infinite" if first["type"] == "finite_number" else reason
        raise TableFileError(f"{file} is no table: {where + ': ' if where else ''}{reason}") from None
