"""A published file becomes a table, or a predictor, for one model; what it does not say is told by who imports it.

No such file names the weights that it was learned for: whether they are the model's nobody can check here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from fastsample.datasets.names import number
from fastsample.models.catalogue import Model
from fastsample.models.features import narrowest
from fastsample.results.training import TrainedOn
from fastsample.solvers.found.predictors import PredictorFacts, add_predictor
from fastsample.solvers.found.shelf import of_model
from fastsample.solvers.imported.files import Layout, Published
from fastsample.solvers.imported.layouts import Said, levels_of, published_table, teacher_of
from fastsample.solvers.imported.methods import PUBLISHED
from fastsample.solvers.learned.shelf import add_table
from fastsample.solvers.solver import get
from fastsample.solvers.table_file import Imported, TableFile, TableFileError

__all__ = ["Kept", "import_published"]

_PLUGINS = {"amed": "none", "euler": "euler", "dpm": "dpm2", "dpm2": "dpm2", "ipndm": "ipndm", "dpmpp": "dpmpp"}
_PIXEL_LOSSES = ("l2", "l1", "mse", "huber", "pseudo_huber")


@dataclass(frozen=True)
class Kept:
    """What a file became: a sampler's name, title, budget and guidance, the file that it is kept in, its training."""

    solver: str
    title: str
    nfe: int
    file: FilePath
    guidance: float
    trained_on: TrainedOn
    trained_with: str

    @classmethod
    def of(cls, table: TableFile, file: FilePath) -> Kept:
        """Of a table that is kept there."""
        return cls(table.solver, table.title, table.nfe, file, table.guidance, table.trained_on, table.trained_with)

    def __str__(self) -> str:
        trained = f", trained on {self.trained_on}{': ' if self.trained_with else ''}{self.trained_with}"
        return f"{self.title}, {self.nfe} evaluations{trained if self.trained_on != 'nothing' else ''}: {self.file}"


def import_published(file: Published, model: Model, said: Said) -> Kept:
    """Keep a published solver for a model, so that `bench` finds it by its name.

    Raises:
        ValueError: for what is missing (the message says which option tells it), what contradicts the file or is not
            for its layout, and for numbers that make no solver on the model's path.
    """
    _check_said(file, said)
    guidance = _guidance(file, model, said)
    if file.layout == "AMED":
        return _predictor(file, model, guidance, said)
    table, told = published_table(file, model.path, said)
    name = file.layout.partition(" ")[0].lower()
    if file.layout == "EPD" and file.fact("sampler_stu", str, name) == "ipndm":
        name = "epd-ipndm"
    method = PUBLISHED[name]
    facts = dict(
        solver=said.name or name, title=method.title, paper=method.paper, model=model.id, model_sha256=model.sha256,
        model_conditions=model.conditions, model_given=model.given, guidance=guidance, guide=model.guide,
        guided_within=model.guided_within,
        imported=Imported(source=_source(file), trained_on=_trained_on(file), told=told),
    )  # fmt: skip
    try:
        made = TableFile.of(table, model.path, **facts)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        why = first["msg"].removeprefix("Value error, ")
        if where == "solver":
            raise ValueError(f"{said.name!r} is no solver name: lower-case letters, digits, dots and hyphens") from None
        raise TableFileError(f"{file.file} makes no solver on the {model.path.name} path: {why}") from None
    return Kept.of(made, add_table(made))


_TAKEN: dict[Layout, tuple[str, ...]] = {
    "DyWeight": ("grid",),
    "DyWeight on flows": ("grid",),
    "EPD": ("grid",),
    "AdaSDE": ("grid",),
    "GAS": ("mode", "t_end"),
    "LD3": ("solver", "mode"),
}


def _check_said(file: Published, said: Said) -> None:
    taken = _TAKEN.get(file.layout, ())
    for name in ("grid", "solver", "mode", "t_end"):
        given = getattr(said, name)
        if given not in ("", None) and name not in taken:
            raise ValueError(f"{file.file} is of {file.layout}, which takes no --{name.replace('_', '-')}")


def _guidance(file: Published, model: Model, said: Said) -> float:
    """The weight that the file says, or that is told of it."""
    kind, rate = file.facts.get("guidance_type"), file.facts.get("guidance_rate")
    if kind in ("cg", "classifier"):
        raise ValueError(f"{file.file} was learned under a classifier's guidance, for which no table is kept")
    if kind == "cfg" and isinstance(rate, int | float) and math.isfinite(rate):
        weight = max(float(rate) - 1, 0.0)  # a cfg scale
        if weight and not (model.num_classes or model.guide):
            raise ValueError(
                f"{file.file} was learned at cfg scale {rate:g}, and {model.id} has no classes to guide by"
            )
        if said.guidance is not None and not math.isclose(said.guidance, weight, abs_tol=1e-9):
            raise ValueError(
                f"{file.file} was learned at cfg scale {rate:g}, which is --guidance {number(weight)}, not "
                f"{number(said.guidance)}"
            )
        return weight
    if (
        said.guidance is None
        and (model.num_classes or model.guide)
        and file.layout in ("GAS", "LD3", "DyWeight on flows")
    ):
        raise ValueError(f"{file.file} does not say its guidance: give --guidance W, 0 for none")
    return said.guidance or 0.0


def _source(file: Published) -> str:
    return f"{file.file} ({file.sha256[:16]})"


def _trained_on(file: Published) -> TrainedOn:
    match file.layout:
        case "DyWeight":
            pixels = str(file.loss.get("loss_type")) in _PIXEL_LOSSES or file.loss.get("dataset_name") == "ms_coco"
            return "squared error" if pixels else "Inception"
        case "EPD":
            return "reward" if _has_backend(file) else "Inception"
        case "AdaSDE":
            return "Inception"
        case "GAS":
            return "GAN"
        case "LD3":
            return "LPIPS"
    return "squared error"


def _has_backend(file: Published) -> bool:
    """Whether it is a file of EPD++, tuned by human preference; those say what runs their model."""
    return isinstance(file.facts.get("backend"), str)


def _predictor(file: Published, model: Model, guidance: float, said: Said) -> Kept:
    """Keep the predictor of AMED, which no table can hold."""
    student, afs = file.fact("sampler_stu", str, "amed"), file.fact("afs", bool, False)
    if student not in _PLUGINS:
        raise TableFileError(f"{file.file} is of the solver {student!r}; known: {', '.join(_PLUGINS)}")
    if said.name:
        raise ValueError(
            f"{file.file} holds a predictor, whose solver is named {file.layout.lower()}: leave --name out"
        )
    if model.path.is_singular(model.path.t_noise):
        raise ValueError(f"{file.file} is of a diffusion model, and the {model.path.name} path begins with noise alone")
    if model.network is None or not narrowest(model.network):
        raise ValueError(
            f"{file.file} reads a network's 8 x 8 encoder block or middle block, and {model.id} has none of these"
        )
    levels, plugin = levels_of(file, model.path, said), _PLUGINS[student]
    options: dict[str, Any] = {"plugin": plugin} if plugin != "none" else {}
    options |= {"afs": afs} if afs else {}
    if plugin in ("ipndm", "dpmpp"):
        options["order"] = order = min(file.fact("max_order", int, 3), 4 if plugin == "ipndm" else 3)
        if order < 1:
            raise TableFileError(f"{file.file} has max_order {order}, where orders begin at 1")
    if plugin == "dpmpp":
        options["prediction"] = "data" if file.fact("predict_x0", bool, True) else "noise"
        options["lower_order_final"] = file.fact("lower_order_final", bool, True)
    source = Imported(source=_source(file), trained_on=_trained_on(file), told=teacher_of(file))
    facts = PredictorFacts(
        model=of_model(model, guidance), solver=file.layout.lower(), nfe=2 * (len(levels) - 1) - afs, options=options,
        times=levels, scale_dir=file.fact("scale_dir", float, 0.0), scale_time=file.fact("scale_time", float, 0.0),
        source=str(source),
    )  # fmt: skip
    kept, title = add_predictor(file.numbers, facts), get(facts.solver).title
    return Kept(facts.solver, title, facts.nfe, kept, guidance, source.trained_on, str(source))
