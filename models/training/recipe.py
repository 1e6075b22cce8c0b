"""Training recipes: everything that decides the numbers of a run, and nothing else.

A recipe is a TOML file. Those that ship with the package are known by their name; FILE.toml is one of one's own.
`like = "NAME"` takes over what is not said from another shipped recipe.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fastsample.datasets.files import read_small
from fastsample.datasets.home import expanded, sha256_of
from fastsample.datasets.names import nearest
from fastsample.datasets.text import text_of
from fastsample.models.convention import Convention
from fastsample.models.denoiser import Prediction
from fastsample.models.like import resolved
from fastsample.models.training.times import AtNoise, Times, Uniform

__all__ = ["Independent", "Learned", "MinibatchOT", "Pairs", "Recipe", "RecipeError", "changed", "command_of",
           "read_recipe", "recipes"]  # fmt: skip

_SHIPPED = FilePath(__file__).parents[1] / "recipes"


class RecipeError(ValueError):
    """A recipe that is not there, or that says what cannot be."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Independent(_Table):
    """Data and noise drawn independently."""

    kind: Literal["independent"] = "independent"


class MinibatchOT(_Table):
    """Each batch of data and noise matched to the least total squared distance (arXiv 2302.00482)."""

    kind: Literal["minibatch-ot"] = "minibatch-ot"


class Learned(_Table):
    """z ~ q(z | x_0), a Gaussian whose encoder is trained with the flow (arXiv 2301.12003).

    Attributes:
        beta: weight of KL(q | prior) per dimension. The curvature falls as beta falls; the prior is missed below
            about the regression loss in the plane, and already at six times that loss on 32x32 images.
        network, network_args: of the encoder, with twice the channels out: means and log variances.
    """

    kind: Literal["learned"] = "learned"
    beta: float = Field(gt=0)
    network: str
    network_args: dict[str, Any]


class Pairs(_Table):
    """Noise with what a teacher makes of it, the coupling of a reflow (arXiv 2209.03003).

    Attributes:
        teacher: model id or file.
        solver, nfe, grid: how the teacher samples.
        count: pairs.
        seed: of their noise.
        real: share of the batches' pairs that are real images with their noise by the teacher's inverse ODE
            (configuration G of arXiv 2405.20320, section 4.4).
        real_count: real images that are inverted.
    """

    kind: Literal["pairs"] = "pairs"
    teacher: str
    solver: str = "heun"
    nfe: int = Field(default=23, gt=0)
    grid: str | None = None
    count: int = Field(gt=0)
    seed: int = Field(default=1000, ge=0, lt=2**31)
    real: float = Field(default=0.0, ge=0, le=1)
    real_count: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _real_ones(self) -> Self:
        if (self.real > 0) != (self.real_count > 0):
            raise ValueError("real and real_count go together")
        return self


Coupling = Annotated[Independent | MinibatchOT | Learned | Pairs, Field(discriminator="kind")]
LossName = Literal["squared", "huber", "lpips-huber", "lpips-huber-1/t"]


class Recipe(_Table):
    """A regression run for one network on one path.

    Sizes are counted in images, not steps, so that a recipe says the same at every batch size. The learning rate
    rises over `warmup_images`; then it stays, and falls linearly to zero over the last `decay` share of the run; or
    follows a cosine to zero; or stays.

    Attributes:
        network_args: of the network; what it predicts at t of the path is `prediction`, and it is called with
            time_scale * t + time_shift.
        start: model id or file whose weights the network begins with; "" for random ones. A diffusion model's enter a
            network `Velocity`.
        span: training times are between these two shares of the path's time, 0 being its data end.
        loss: see `fastsample.models.training.losses`.
        perceptual: features of the LPIPS losses: the id of an embedded classifier, or "lpips", VGG-16 with the
            published weights, which are looked for in torch's hub cache.
        accumulate: micro-batches that a batch is split into.
        ema_halflife_images: one average of the weights each; the first is the model.
        ema_ramp: half-lives are at most this share of the images seen; 0 for no such bound.
        precision: of the network; "auto" is bfloat16 where the device computes in it natively, else float32.
    """

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    title: str
    source: str = Field(default="", description="paper and table of a published setting")
    parameters: int = Field(default=0, ge=0, description="of the network, as published; checked; 0 if not known")
    dataset: str
    classes: int = Field(default=0, ge=0, description="that the network is conditioned on, as one-hot rows")
    network: str = "SongUNet"
    network_args: dict[str, Any]
    start: str = ""
    path: str = "flow"
    prediction: Prediction = "velocity"
    time_scale: float = 1000.0
    time_shift: float = 0.0
    times: Times = Uniform()
    span: tuple[float, float] = (0.0, 1.0)
    coupling: Coupling = Independent()
    loss: LossName = "squared"
    perceptual: str = "cifar10-conv"
    images: int = Field(gt=0, description="length of the run")
    batch: int = Field(default=64, gt=0)
    accumulate: int = Field(default=1, gt=0)
    lr: float = Field(default=2e-3, gt=0)
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = Field(default=0.0, ge=0)
    warmup_images: int = Field(default=20_000, ge=0)
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    decay: float = Field(default=0.3, gt=0, le=1)
    grad_clip: float = Field(default=1.0, gt=0, description="largest norm of the gradient")
    ema_halflife_images: tuple[float, ...] = Field(default=(30_000,), min_length=1)
    ema_ramp: float = Field(default=0.05, ge=0)
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    flip: bool = True
    seed: int = Field(default=0, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.batch % self.accumulate:
            raise ValueError(f"a batch of {self.batch} cannot be split into {self.accumulate} equal parts")
        if isinstance(self.times, AtNoise) and not isinstance(self.coupling, Pairs):
            raise ValueError("one-step distillation (times at-noise) needs the coupling pairs")
        if self.flip and isinstance(self.coupling, Pairs):
            raise ValueError("pairs cannot be flipped: the teacher is no mirror of itself; flip = false")
        if self.classes and isinstance(self.coupling, Pairs) and self.coupling.real:
            raise ValueError("pairs of real images are for models without classes: they are kept without their class")
        return self

    @property
    def convention(self) -> Convention:
        """Of the network, with the path it is trained on."""
        return Convention.read({key: getattr(self, key) for key in ("path", "prediction", "time_scale", "time_shift")})

    def published(self) -> dict[str, Any]:
        """All fields, as a checkpoint tells them: files and folders by their names, files with their hashes too."""
        fields = self.model_dump(mode="json")
        for table, key in ((fields, "start"), (fields, "dataset"), (fields["coupling"], "teacher"),
                           (fields["coupling"], "grid")):  # fmt: skip
            if table.get(key):
                table[key] = _without_folder(table[key])
        return fields

    def draw_times(self, count: int, generator: torch.Generator | None = None) -> list[float]:
        """`count` times of the path; randomness is from that generator of the host, PyTorch's default one if None."""
        path, (low, high) = self.convention.path, self.span
        drawn = self.times.sample(count, generator)
        if self.times.of_noise_share:
            ends = sorted((path.t_data, path.t_noise))
            return [min(max(path.t_of_nsr(u / (1 - u)), ends[0]), ends[1]) for u in drawn.tolist()]
        times: list[float] = (path.t_data + (path.t_noise - path.t_data) * (low + (high - low) * drawn)).tolist()
        return times

    def lr_at(self, seen: int) -> float:
        """Learning rate after `seen` images."""
        warm = min(1.0, (seen + self.batch) / self.warmup_images) if self.warmup_images else 1.0
        match self.schedule:
            case "linear":
                left = (self.images - seen) / (self.decay * self.images)
            case "cosine":
                gone = max(0, seen - self.warmup_images) / max(1, self.images - self.warmup_images)
                left = 0.5 * (1 + math.cos(math.pi * min(1.0, gone)))
            case "constant":
                left = 1.0
        return self.lr * max(0.0, min(1.0, warm, left))

    def ema_decay_at(self, seen: int, halflife: float) -> float:
        """Weight of the old average in the step after `seen` images."""
        bounded = min(halflife, self.ema_ramp * seen) if self.ema_ramp else halflife
        return 0.5 ** (self.batch / bounded) if bounded else 0.0


def _without_folder(word: str) -> str:
    """`NAME@HASH` of a file, with the `file:` before it and the `#ID` behind it; an id stays as it is."""
    kind = next((kind for kind in ("file:", "folder:") if word.startswith(kind)), "")
    path, _, part = word.removeprefix(kind).partition("#")
    file = expanded(path)
    digest = f"@{sha256_of(file)[:16]}" if file.is_file() else ""
    return f"{kind}{file.name}{digest}{'#' if part else ''}{part}"


def command_of(recipe: Recipe) -> str:
    """The command of `fastsample train` that a recipe is for."""
    return {Learned: "curvature", Pairs: "reflow"}.get(type(recipe.coupling), "flow")


def changed(recipe: Recipe, changes: Mapping[str, object]) -> Recipe:
    """The recipe with the fields that are not None, checked anew; `coupling.teacher` is a field of a field.

    Raises:
        RecipeError: for a value that a field cannot have.
    """
    fields = recipe.model_dump()
    for name, value in changes.items():
        group, _, key = name.rpartition(".")
        if value is not None:
            (fields[group] if group else fields)[key] = value
    return _checked(recipe.id, fields)


@cache
def recipes() -> dict[str, Recipe]:
    """Every recipe that ships with the package, by its id."""
    return {name: _checked(name, _resolved(name, _tables())) for name in _tables() if name[0] != "_"}


def read_recipe(name: str) -> Recipe:
    """The shipped recipe of that name, or the one in FILE.toml.

    Raises:
        RecipeError: for a name that is not known, or a file that is no recipe.
    """
    if name.endswith(".toml"):
        return _checked(FilePath(name).stem, _resolved(name, {**_tables(), name: _read(expanded(name))}))
    if name not in recipes():
        raise RecipeError(nearest(name, list(recipes()), "recipe"))
    return recipes()[name]


@cache
def _tables() -> dict[str, dict[str, Any]]:
    return {file.stem: _read(file) for file in sorted(_SHIPPED.glob("*.toml"))}


def _read(file: FilePath) -> dict[str, Any]:
    try:
        return tomllib.loads(text_of(read_small(file)))
    except (OSError, ValueError, RecursionError) as error:
        raise RecipeError(f"{file} is not a TOML file: {error}") from error


def _checked(name: str, fields: Mapping[str, Any]) -> Recipe:
    try:
        return Recipe(**{"id": name, **fields})
    except ValidationError as error:
        what = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise RecipeError(f"recipe {name}: {what}") from None


def _resolved(name: str, tables: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    try:
        return resolved(name, tables, missing="`like` names {}, which is no shipped recipe", depth=1)
    except ValueError as error:
        raise RecipeError(f"recipe {name}: {error}") from None
