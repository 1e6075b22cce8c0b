"""What is asked for: a sweep as the command line or a TOML file states it."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from fastsample.bench.limits import MOST_BATCH, MOST_NFE, SEEDS
from fastsample.bench.lists import budgets, sentences, words
from fastsample.datasets.home import expanded
from fastsample.datasets.names import nearest
from fastsample.datasets.text import text_of
from fastsample.results.metrics import DEFAULT
from fastsample.results.papers.presets import presets
from fastsample.results.protocol import Protocol

__all__ = ["Request", "RequestError", "read_request"]

_LARGEST_FILE = 2**20  # bytes of a sweep


class RequestError(ValueError):
    """A request that cannot be carried out as it stands."""


class Request(Protocol):
    """A sweep: the product of models, solvers, grids and NFEs, under one protocol.

    Attributes:
        model: model ids or checkpoint files.
        solver: `name` or `name:option=value,...`.
        nfe: evaluations to spend, each from 1 to `MOST_NFE`.
        grid: grid names, or () for each solver's recommended one.
        samples: images per cell.
        psnr_samples: of them PSNR and truncation are measured on the first so many: a reference solution costs ten
            times what the sample of a cell does.
        batch_size: images per network call, None for 64 on a CPU and what fits on a GPU; changes nothing but speed, and
            the last bits.
        seed: of the noise.
        seeds: how often each cell is repeated, with seeds seed, seed + 1, ..., all of them below `SEEDS`.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, ...
        checkpoint: the published file of a public model, given by hand; for one model.
        transfer: a learned solver that has no table for a model may take another model's; its rows say so.
        metrics: kinds of `results.metrics`, or with an extractor as in `fd[cifar10-resnet]`; without one it is that
            which ships for the model's data.
        keep: what stays beside the rows, for other metrics and more samples: features, or images too.
        save_samples: write the images of each cell into the store, as png files or as one npz.
        out: folder of the store.
    """

    model: tuple[str, ...] = Field(("cifar10-tiny-vp",), min_length=1)
    solver: tuple[str, ...] = Field(("scire",), min_length=1)
    nfe: tuple[int, ...] = Field((10,), min_length=1)
    grid: tuple[str, ...] = ()
    samples: int = Field(256, ge=2, le=1_000_000)  # their features are in memory at once
    psnr_samples: int = Field(1024, ge=2, le=1_000_000)
    batch_size: int | None = Field(None, ge=1, le=MOST_BATCH)
    seed: int = Field(0, ge=0, lt=SEEDS)
    seeds: int = Field(1, ge=1, le=1000)
    device: str = "auto"
    checkpoint: Path | None = None
    transfer: bool = False
    metrics: tuple[str, ...] = Field(DEFAULT, min_length=1)
    keep: Literal["", "features", "images"] = ""
    save_samples: Literal["", "png", "npz"] = ""
    out: Path = Path("results-store")

    @model_validator(mode="after")
    def _below_those_of_distillation(self) -> Request:
        if self.seed + self.seeds > SEEDS:
            raise ValueError(f"the last of {self.seeds} seeds from {self.seed} on must be below {SEEDS}")
        return self

    @model_validator(mode="before")
    @classmethod
    def _as_papers_write(cls, values: dict[str, Any]) -> dict[str, Any]:
        """`cfg` S is guidance of weight S - 1; `threshold` may be QUANTILE,MAX; `guidance_interval` is LO,HI; `nfe` one
        number or several.

        `protocol` is the name of a preset.
        """
        values = dict(values)
        if (nfe := values.get("nfe")) is not None:
            many = words([nfe]) if isinstance(nfe, str) else nfe if isinstance(nfe, Iterable) else [nfe]
            values["nfe"] = budgets(many, MOST_NFE)
        if (name := values.pop("protocol", None)) is not None:
            values["preset"] = name
        if (name := values.get("preset")) and name not in presets():
            raise ValueError(nearest(str(name), list(presets()), "protocol"))
        if (scale := values.pop("cfg", None)) is not None:
            if values.get("guidance") is not None:
                raise ValueError("cfg S and guidance S - 1 are two names of one weight: give one")
            values["guidance"] = round(float(scale) - 1, 12)  # 1.4 is 0.4
        if isinstance(text := values.get("threshold"), str) and "," in text:
            values["threshold"], _, values["threshold_max"] = text.partition(",")
        if (interval := values.pop("guidance_interval", None)) is not None:
            ends = interval.split(",") if isinstance(interval, str) else interval
            if not isinstance(ends, list | tuple) or len(ends) != 2:
                raise ValueError(f"guidance_interval is LO,HI, two noise-to-signal ratios, not {str(interval)[:60]!r}")
            values["guidance_low"], values["guidance_high"] = (
                (end.strip() or None) if isinstance(end, str) else end for end in ends
            )
        return values

    @field_validator("model", "solver", "grid", "metrics", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any, field: ValidationInfo) -> Any:
        if isinstance(value, str):
            return (sentences if field.field_name in ("solver", "grid") else words)([value])
        if not isinstance(value, list | tuple):
            return value
        return tuple(one.strip() if isinstance(one, str) else one for one in value)

    @field_validator("model", "solver", "grid", "metrics")
    @classmethod
    def _each_once(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(dict.fromkeys(value))

    @field_validator("checkpoint", "out")
    @classmethod
    def _at_home(cls, value: Path | None) -> Path | None:
        return value and expanded(value)


def read_request(config: Path | None, **overrides: Any) -> Request:
    """A request from a TOML file, the command line's words (None where not given) winning.

    Raises:
        RequestError: for a file that cannot be read, an unknown key or a value out of range.
    """
    values: dict[str, Any] = {}
    if config is not None:
        try:
            if config.exists() and not config.is_file():
                raise RequestError(f"cannot read {config}: it is no file")
            with config.open("rb") as stream:
                text = stream.read(_LARGEST_FILE + 1)
            if len(text) > _LARGEST_FILE:
                raise RequestError(f"{config} is no sweep: it has more than {_LARGEST_FILE} bytes")
        except OSError as error:
            raise RequestError(f"cannot read {config}: {error.strerror}") from None
        try:
            values = tomllib.loads(text_of(text))
        except (ValueError, RecursionError) as error:
            raise RequestError(f"{config} is not TOML: {error}") from None
    values |= {key: value for key, value in overrides.items() if value is not None}
    try:
        return Request(**values)
    except ValidationError as error:
        first = error.errors()[0]
        key = first["loc"][0] if first["loc"] else ""
        if first["type"] == "extra_forbidden":
            raise RequestError(f"unknown key {key!r} in {config}; known: {', '.join(Request.model_fields)}") from None
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] != "value_error":  # whose message has it
            message += f", not {str(first['input'])[:60]}"
        raise RequestError(f"{key}: {message}" if key else message) from None
