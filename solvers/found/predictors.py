"""Predictors of AMED that were imported, kept in the folder `found` of FASTSAMPLE_HOME for a model and a budget."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fastsample.datasets.files import write_atomically
from fastsample.models.catalogue import Model
from fastsample.solvers.found.predictor import Predictor
from fastsample.solvers.found.shelf import of_model, shelf_file
from fastsample.solvers.grids import BudgetError

__all__ = ["FoundPredictor", "PredictorFacts", "add_predictor", "check_layers", "found_predictor"]

_HEADS = ("fc_r", "fc_scale_dir", "fc_scale_time")
_WAVES = 8  # sines and cosines of a level


class PredictorFacts(BaseModel):
    """What a predictor belongs to.

    Attributes:
        model: the facts of `of_model`; solver, nfe: the solver and the budget that it is for.
        options: of the solver, which its file decides; times: of the steps, in sigma.
        scale_dir, scale_time: as in `Predictor`; source: the name and hash of its file, and how it was trained.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: dict[str, str]
    solver: str
    nfe: int = Field(ge=1)
    options: dict[str, bool | int | str]
    times: tuple[float, ...] = Field(min_length=2)
    scale_dir: float
    scale_time: float
    source: str


@dataclass(frozen=True)
class FoundPredictor:
    """A predictor as it is kept."""

    predictor: Predictor
    options: Mapping[str, Any]
    times: tuple[float, ...]
    told: str


def check_layers(layers: Mapping[str, np.ndarray]) -> None:
    """Raise ValueError unless these are the layers of a predictor, with r and maybe c and a, that fit one another."""
    shapes = {name: array.shape for name, array in layers.items()}
    rows, pixels = shapes.get("enc_layer0.weight", (0, 0)) if len(shapes.get("enc_layer0.weight", ())) == 2 else (0, 0)
    inner = shapes.get("enc_layer1.bias", (0,))[0] if shapes.get("enc_layer1.bias") else 0
    wanted = {"map_layer0": (_WAVES, _WAVES), "enc_layer0": (rows, pixels), "enc_layer1": (inner, rows)}
    wanted |= {head: (1, inner + 2 * _WAVES) for head in _HEADS if head == "fc_r" or f"{head}.weight" in shapes}
    expected: dict[str, tuple[int, ...]] = {f"{name}.weight": size for name, size in wanted.items()}
    expected |= {f"{name}.bias": size[:1] for name, size in wanted.items()}
    if shapes != expected or not rows * pixels * inner:
        wrong = sorted(set(shapes.items()) ^ set(expected.items()))[0][0]
        raise ValueError(f"its layers do not fit one another, first {wrong}: no predictor of AMED")
    if not all(np.isfinite(array).all() for array in layers.values()):
        raise ValueError("its layers have values that are not finite")


def _file(solver: str, model: Mapping[str, str], nfe: int) -> FilePath:
    return shelf_file(f"{solver}-{nfe}", {"model": dict(model)}, ".safetensors")


def add_predictor(layers: Mapping[str, np.ndarray], facts: PredictorFacts) -> FilePath:
    """Keep a predictor; it replaces the one of the same solver, model and budget."""
    check_layers(layers)
    file = _file(facts.solver, facts.model, facts.nfe)
    file.parent.mkdir(parents=True, exist_ok=True)
    data = save(
        {name: np.ascontiguousarray(array) for name, array in layers.items()}, {"facts": facts.model_dump_json()}
    )
    write_atomically(file, lambda stream: stream.write(data))
    return file


def found_predictor(solver: str, model: Model, nfe: int, guidance: float = 0.0) -> FoundPredictor:
    """The predictor of a solver for a model and a budget.

    Raises:
        BudgetError: if there is one for another budget only.
        ValueError: if there is none, or if its file is damaged.
    """
    known = of_model(model, guidance)
    file = _file(solver, known, nfe)
    if not file.is_file():
        others = [other for other in range(1, 101) if _file(solver, known, other).is_file()]
        there = f"there are some for NFE {', '.join(map(str, others))}" if others else "there is none yet"
        raise (BudgetError if others else ValueError)(
            f"{solver} takes a predictor that was learned for {model.id} at NFE {nfe}, and {there}: `fastsample import "
            f"FILE --model {model.id}` reads a published one"
        )
    try:
        with safe_open(file, "numpy") as stream:
            facts = PredictorFacts.model_validate_json((stream.metadata() or {})["facts"])
            layers = {name: np.asarray(stream.get_tensor(name), float) for name in stream.keys()}  # noqa: SIM118
        check_layers(layers)
    except (OSError, SafetensorError, ValidationError, ValueError, KeyError) as error:
        raise ValueError(f"{file} holds no predictor ({str(error).splitlines()[0]}): import it again") from None
    if (facts.model, facts.solver, facts.nfe) != (known, solver, nfe):
        raise ValueError(f"{file} holds no predictor of {model.id} at NFE {nfe}: import it again")
    parts = [name.encode() + layers[name].tobytes() for name in sorted(layers)]
    digest = hashlib.sha256(b"".join([*parts, json.dumps(facts.model_dump(exclude={"source"})).encode()])).hexdigest()
    told = {"sha256": digest, "told": facts.source}
    predictor = Predictor(layers, facts.scale_dir, facts.scale_time, told)
    return FoundPredictor(predictor, facts.options, facts.times, facts.source)
