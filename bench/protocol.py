"""A model under a protocol: on another interval than its own, with thresholded data predictions."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from fastsample.bench.request import RequestError
from fastsample.models.altered import Thresholded
from fastsample.models.catalogue import Model
from fastsample.models.denoiser import Denoiser, Wrapped
from fastsample.results.protocol import Protocol

__all__ = ["under"]


def under(model: Model, protocol: Protocol) -> Model:
    """The model on the interval, and with the thresholding, of a protocol.

    Raises:
        RequestError: for an end that the model's path has not, or thresholding of latents.
    """
    if not protocol.altered:
        return model
    path, first, last = model.path, model.path.t_noise, model.path.t_data
    if protocol.threshold and model.shape != model.image_shape:
        raise RequestError(f"{model.id} is a latent model, and thresholding is of pixels")
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
        ends = ", ".join(f"{name}={value:g}" for name, value in protocol.altered.items() if "threshold" not in name)
        usual = f"{path.t_noise:g} to {path.t_data:g}"
        raise RequestError(f"{ends} is no end of the path of {model.id}, which goes from {usual}")
    changed = path.between(first, last)
    if path.name == "edm":
        changed = replace(changed, prior_std=first)

    def make(*given: Any) -> Denoiser:
        denoiser = Wrapped(model.make(*given), changed)
        if protocol.threshold is None:
            return denoiser
        return Thresholded(denoiser, protocol.threshold, protocol.threshold_max)

    return replace(model, path=changed, make=make)
