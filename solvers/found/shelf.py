"""What was found for models, kept in the folder `found` of FASTSAMPLE_HOME and looked up by what it was found for.

A grid belongs to one model (its weights and guidance), one solver with its options, and one budget; statistics to one
model. Neither is taken for another one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fastsample.datasets.files import DamagedFileError, json_bytes, read_json, read_small, warn_once, write_atomically
from fastsample.datasets.home import data_home
from fastsample.datasets.names import number
from fastsample.models.catalogue import Model
from fastsample.results.training import TrainedOn
from fastsample.solvers.found.statistics import Statistics
from fastsample.solvers.grids import BudgetError, GridError

__all__ = [
    "FoundGrid",
    "add_grid",
    "add_statistics",
    "found_grid",
    "found_grids",
    "found_statistics",
    "of_model",
    "statistics_file",
    "statistics_told",
]

_FORMAT = "fastsample-statistics-1"


class FoundGrid(BaseModel):
    """A grid and what it was found for and with.

    Attributes:
        name: gits, oss or dmn; model: the facts of `of_model`; solver: its sentence with every option.
        nfe, times: the budget, and the times on the path that the solver integrates on.
        trained_on: what decided it; seed, samples: the noises of the search.
        evaluations: network evaluations (per sample) that the search cost, those of its solutions included.
        settings: of the search; psnr: mean over its samples in dB, of what was tried, by settings.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: Literal["fastsample-grid"] = "fastsample-grid"
    version: Literal[1] = 1
    name: str
    model: dict[str, str]
    solver: str
    nfe: int = Field(ge=1)
    times: tuple[float, ...] = Field(min_length=2)
    trained_on: TrainedOn
    seed: int
    samples: int
    evaluations: int
    settings: str
    psnr: dict[str, float] = {}

    @property
    def told(self) -> str:
        """What a row says of how it was found."""
        if not self.evaluations:
            return "from the path alone"
        return f"{self.settings}, {self.samples} noises of seed {self.seed}, {self.evaluations:,} evaluations"


def of_model(model: Model, guidance: float) -> dict[str, str]:
    """What decides the answers of a model, as text."""
    ends = [model.path.t_noise, model.path.t_data]
    facts = {
        "model": model.id, "sha256": model.sha256, "conditions": model.conditions, "classifier": model.classifier,
        "guidance": number(guidance), "guide": model.guide, "within": json.dumps(model.guided_within),
        "path": f"{model.path.name} {json.dumps(ends)}",
    }  # fmt: skip
    return {name: text for name, text in facts.items() if text}


def _file(kind: str, facts: Mapping[str, Any], ending: str) -> FilePath:
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    name = str(facts["model"]["model"]).replace("/", "_")
    return data_home() / "found" / f"{kind}-{name}-{digest}{ending}"


def _grid_file(name: str, model: Mapping[str, str], solver: str, nfe: int) -> FilePath:
    return _file(f"{name}-{nfe}", {"model": dict(model), "solver": solver}, ".json")


def add_grid(found: FoundGrid) -> FilePath:
    """Keep a grid; it replaces the one of the same name, model, solver and budget."""
    file = _grid_file(found.name, found.model, found.solver, found.nfe)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, lambda stream: stream.write(json_bytes(found.model_dump())))
    return file


def found_grid(name: str, model: Model, solver: str, nfe: int, guidance: float = 0.0) -> FoundGrid:
    """The grid of that name for a model, a solver's sentence with every option, and a budget.

    Raises:
        GridError: if there is none, with the command that finds it, or if its file is damaged.
        BudgetError: if there is one for another budget only.
    """
    facts = of_model(model, guidance)
    file = _grid_file(name, facts, solver, nfe)
    if not file.is_file():
        there = any(_grid_file(name, facts, solver, other).is_file() for other in range(1, 101))
        weight = f" --guidance {number(guidance)}" if guidance else ""
        command = f"fastsample find {name} --model {model.id} --solver {solver} --nfe {nfe}{weight}"
        raise (BudgetError if there else GridError)(
            f"grid {name} is not found yet for {solver} at NFE {nfe} on {model.id}: `{command}` finds it"
        )
    try:
        found = read_json(read_small(file), FoundGrid.model_validate)
    except (OSError, DamagedFileError, ValidationError) as error:
        raise GridError(f"{file} is no grid that was found ({str(error).splitlines()[0]}): find it again") from None
    if (found.name, found.model, found.solver, found.nfe) != (name, facts, solver, nfe):
        raise GridError(f"{file} is the grid of another model, solver or budget: find it again")
    return found


def found_grids() -> Iterator[FoundGrid]:
    """Every grid that was found here; files that cannot be read are left out, and named once."""
    for file in sorted((data_home() / "found").glob("*.json")):
        try:
            yield read_json(read_small(file), FoundGrid.model_validate)
        except (OSError, DamagedFileError, ValidationError) as error:
            warn_once(f"{file} is no grid that was found ({str(error).splitlines()[0]}); it is left out")


def statistics_told() -> Iterator[tuple[str, str, str]]:
    """(model, guidance, how they were found) of the statistics that are here."""
    for file in sorted((data_home() / "found").glob("ems-*.safetensors")):
        try:
            with safe_open(file, "numpy") as stream:
                facts = json.loads((stream.metadata() or {})["facts"])
            yield facts["model"]["model"], facts["model"]["guidance"], facts["found"]["told"]
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            warn_once(f"{file} holds no statistics ({str(error).splitlines()[0]}); it is left out")


def statistics_file(model: Model, guidance: float) -> FilePath:
    """Where the statistics of a model lie."""
    return _file("ems", {"model": of_model(model, guidance)}, ".safetensors")


def add_statistics(found: Statistics, model: Model, guidance: float, facts: Mapping[str, str]) -> FilePath:
    """Keep the statistics of a model, with the facts of how they were found."""
    file = statistics_file(model, guidance)
    file.parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.ascontiguousarray(getattr(found, name)) for name in ("lam", "l", "s", "b")}
    text = json.dumps({"model": of_model(model, guidance), "found": dict(facts)}, sort_keys=True)
    data = save(arrays, {"format": _FORMAT, "facts": text})
    write_atomically(file, lambda stream: stream.write(data))
    return file


def found_statistics(model: Model, guidance: float = 0.0) -> Statistics:
    """The statistics of a model.

    Raises:
        ValueError: if there are none, with the command that finds them, or if their file is damaged.
    """
    file = statistics_file(model, guidance)
    if not file.is_file():
        weight = f" --guidance {number(guidance)}" if guidance else ""
        command = f"fastsample find ems --model {model.id}{weight}"
        raise ValueError(
            f"dpm-solver-v3 takes statistics of {model.id}, which are not found yet: `{command}` finds them"
        )
    try:
        with safe_open(file, "numpy") as stream:
            metadata = stream.metadata() or {}
            arrays = {name: np.asarray(stream.get_tensor(name), float) for name in ("lam", "l", "s", "b")}
        facts = json.loads(metadata["facts"]) if metadata.get("format") == _FORMAT else {}
        lam = arrays["lam"]
        shape = (len(lam), *model.shape)
        even = len(lam) > 2 and np.allclose(np.diff(lam), (lam[-1] - lam[0]) / (len(lam) - 1)) and lam[0] < lam[-1]
        sound = even and all(arrays[name].shape == shape for name in ("l", "s", "b"))
        sound = sound and all(np.isfinite(value).all() for value in arrays.values())
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} holds no statistics ({str(error).splitlines()[0]}): find them again") from None
    if not sound or facts.get("model") != of_model(model, guidance):
        raise ValueError(f"{file} holds no statistics of {model.id}: find them again")
    digest = hashlib.sha256(b"".join(arrays[name].tobytes() for name in ("lam", "l", "s", "b"))).hexdigest()
    return Statistics(**arrays, facts={**facts["found"], "sha256": digest})
