"""A model under a protocol: on another interval than its own, guided by another model, with thresholded predictions."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from rich.console import Console

from fastsample.bench.metrics.extractors import known_extractors
from fastsample.bench.metrics.reference import data_set
from fastsample.bench.request import Request, RequestError
from fastsample.datasets.home import data_home
from fastsample.datasets.published_moments import published_references
from fastsample.models.altered import Thresholded
from fastsample.models.catalogue import Model, open_model
from fastsample.models.denoiser import Denoiser, Wrapped
from fastsample.models.guided import guided_by, guided_within
from fastsample.results.papers.presets import Preset, presets
from fastsample.results.protocol import Protocol

__all__ = ["asked_of", "check_guidance", "guide_of", "open_under", "under"]


def asked_of(request: Request, model: Model, solver: str, nfe: int) -> tuple[Request, list[str]]:
    """A request as its protocol has it for a cell, and what has to be said of that.

    What was given itself wins. Ends that the model's path has not, thresholding of latents and reference sets of an
    extractor that is not here are left out.

    Args:
        model: as its card has it.
    """
    if not request.preset:
        return request, []
    preset, size, told = presets()[request.preset], model.image_shape[-1], f"protocol {request.preset}"
    fields, notes = preset.fields(data_set(model.data), size, model.path.name, solver, nfe)
    given = {name: getattr(request, name) for name in request.model_fields_set}
    notes += [
        f"{name}: {given[name]} as given, where it has {value}"
        for name, value in fields.items()
        if given.get(name, value) != value
    ]
    unknown = [name for name in ("samples", "uint8", "reference") if name not in {*fields, *given}]
    if "reference" in unknown and (model.exact or model.reference in preset.references):
        unknown.remove("reference")  # the exact models have none
    if unknown:
        notes.append(f"{', '.join(unknown)}: not known for {model.id}; what holds without a protocol stands")
    taken = {*given, *(_TOGETHER[name] for name in given if name in _TOGETHER)}
    fields = {name: value for name, value in fields.items() if name not in taken}
    found = {name: _met(name, value, preset, model) for name, value in fields.items()}
    notes += [f"{name}: {why}; the model's own stands" for name, why in found.items() if why]
    met = {name: value for name, value in fields.items() if found[name] == ""}
    return Request(**given | met), [f"{told}: {note}" for note in notes]


_TOGETHER = {"t_end": "sigma_min", "sigma_min": "t_end"}  # two names of one end


def _met(name: str, value: Any, preset: Preset, model: Model) -> str | None:
    """Why a field of a protocol cannot be met with a model; "" if it can, None if it is the model's own already."""
    if name == "threshold" and model.shape != model.image_shape:
        return f"{model.id} is a latent model, and thresholding is of pixels"
    if name == "reference":
        if model.reference in preset.references:
            return None
        extractor = next(entry.extractor for entry in published_references() if entry.id == value)
        return "" if extractor in known_extractors() else f"{value} is by {extractor}, an extractor that is not here"
    if name in ("t_end", "sigma_min", "sigma_max"):
        try:
            ends = under(model, Protocol(**{name: value})).path
        except RequestError as error:
            return str(error)
        own = (model.path.t_noise, model.path.t_data)
        return None if all(map(math.isclose, (ends.t_noise, ends.t_data), own)) else ""
    return ""


def guide_of(protocol: Protocol, console: Console | None = None) -> Model | None:
    """The model that guides under a protocol, fetched if it is not here; see `open_model` for what it raises."""
    return open_model(protocol.guide, home=data_home(), console=console) if protocol.guide else None


def check_guidance(model: Model, protocol: Protocol) -> None:
    """Raise RequestError for guidance without a guide where the model has no classes."""
    if protocol.guidance and not protocol.guide and not model.num_classes:
        raise RequestError(f"{model.id} has no classes, which classifier-free guidance needs")


def open_under(name: str, protocol: Protocol, console: Console | None = None) -> Model:
    """The model of that name under a protocol; raises as `open_model` and `under` do."""
    model = open_model(name, home=data_home(), console=console)
    return under(model, protocol, guide_of(protocol, console))


def under(model: Model, protocol: Protocol, guide: Model | None = None) -> Model:
    """The model on the interval, and with the prompts, the guide and the thresholding, of a protocol.

    Args:
        guide: of `guide_of`.

    Raises:
        RequestError: for an end that the model's path has not, a guide that cannot be one, or thresholding of latents.
    """
    model = _told(model, protocol)
    if protocol.threshold and model.shape != model.image_shape:
        raise RequestError(f"{model.id} is a latent model, and thresholding is of pixels")
    asked = {
        name: value for name in ("t_end", "sigma_min", "sigma_max") if (value := getattr(protocol, name)) is not None
    }
    if asked:
        model = _between(model, protocol, ", ".join(f"{name}={value:g}" for name, value in asked.items()))
    if guide:
        try:
            model = guided_by(model, guide)
        except ValueError as error:
            raise RequestError(str(error)) from None
    if (within := (protocol.guidance_low, protocol.guidance_high)) != (None, None):
        model = guided_within(model, *within)
    return _thresholded(model, protocol.threshold, protocol.threshold_max) if protocol.threshold else model


def _told(model: Model, protocol: Protocol) -> Model:
    """The model with the prompts, and what else is said to pipelines, of a protocol."""
    said = {
        "prompts": protocol.prompts, "negative": protocol.negative, "embedded": protocol.embedded_guidance,
        "size": protocol.size, "tiled": protocol.tiling,
    }  # fmt: skip
    if model.told:
        try:
            return model.told(**said)
        except ValueError as error:
            raise RequestError(str(error)) from None
    if any(value not in (None, "") and value is not False for value in said.values()):
        options = "--prompts, --negative, --embedded-guidance, --size and --tiling"
        raise RequestError(f"{model.id} is no diffusers pipeline: leave {options} out")
    return model


def _between(model: Model, protocol: Protocol, ends: str) -> Model:
    """The model on another interval, whose ends are also given in words."""
    path, first, last = model.path, model.path.t_noise, model.path.t_data
    try:
        first = first if protocol.sigma_max is None else path.t_of_nsr(protocol.sigma_max)
        last = last if protocol.sigma_min is None else path.t_of_nsr(protocol.sigma_min)
        last = last if protocol.t_end is None else protocol.t_end
        trained = path.name == "edm" or path.lam(first) >= path.lam(path.t_noise)
        there = math.isclose(path.t_of_lam(path.lam(last)), last, rel_tol=1e-6, abs_tol=1e-9)
        sound = trained and there and path.lam(first) < path.lam(last)
    except (ValueError, OverflowError, ZeroDivisionError):
        sound = False
    if not sound:
        usual = f"{path.t_noise:g} to {path.t_data:g}"
        raise RequestError(f"{ends} is no end of the path of {model.id}, which goes from {usual}")
    changed = path.between(first, last)
    if path.name == "edm":
        changed = replace(changed, prior_std=first)

    def make(*given: Any) -> Denoiser:
        return Wrapped(model.make(*given), changed)

    return replace(model, path=changed, make=make)


def _thresholded(model: Model, quantile: float, most: float | None) -> Model:
    def make(*given: Any) -> Denoiser:
        return Thresholded(model.make(*given), quantile, most)

    return replace(model, make=make)
