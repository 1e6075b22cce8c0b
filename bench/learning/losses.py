"""The losses that a solver is learned by, as `distill --loss` names them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from fastsample.bench.metrics.extractor_weights import LEAST_SIDE
from fastsample.bench.metrics.extractors import EMBEDDED, refusal
from fastsample.bench.metrics.features import open_network
from fastsample.datasets.names import nearest
from fastsample.models.catalogue import Model
from fastsample.results.training import TrainedOn
from fastsample.solvers.learned.pairs import MSE, PSNR, Loss

__all__ = ["LOSSES", "loss_named"]

_PERCEPTUAL = "lpips"
_LOSSES = {PSNR.name: PSNR, MSE.name: MSE}
LOSSES = (*_LOSSES, _PERCEPTUAL, f"{_PERCEPTUAL}[{EMBEDDED}]")


def loss_named(name: str, model: Model, device: torch.device, weights: Mapping[str, Path] | None = None) -> Loss:
    """The loss of that name; PSNR's for "".

    LPIPS is of images clamped to [-1, 1] at their own size, as the metric is; on VGG-16, or in its form in the maps of
    the embedded classifier.

    Args:
        weights: files of the weights of networks by name; of others they are looked for where they belong.

    Raises:
        ValueError: for an unknown loss, one that means nothing on the model's samples, or a damaged file.
        MetricUnavailable: for one whose weights are not on this machine.
    """
    if not name or name in _LOSSES:
        return _LOSSES.get(name, PSNR)
    if name not in LOSSES:
        raise ValueError(nearest(name, LOSSES, "loss"))
    from fastsample.bench.metrics.lpips import lpips_of, lpips_on_vgg16  # with torch-fidelity: seconds to import

    shape, embedded = model.image_shape, name != _PERCEPTUAL
    if len(shape) != 3 or shape[0] != 3:
        raise ValueError(f"{name} is of colour images, and a sample of {model.id} has the shape {shape}")
    if why := refusal(EMBEDDED, shape) if embedded else "":
        raise ValueError(why)
    if min(shape[1:]) < LEAST_SIDE:
        raise ValueError(f"LPIPS halves images four times, and these are of {shape[2]}x{shape[1]}")
    seen = lpips_of(open_network(EMBEDDED, device)) if embedded else lpips_on_vgg16(weights or {}, device)
    told: TrainedOn = "cifar10-resnet" if embedded else "LPIPS"
    return Loss(name, told, False, lambda x: seen.features(model.decode(x).float().clamp(-1, 1)))
