"""What a model is asked before hours are spent on it: `fastsample models test`."""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fastsample.models.catalogue import Model
from fastsample.models.denoiser import Denoiser, NetworkDenoiser
from fastsample.models.foreign.conventions import draw, fitting

__all__ = ["Check", "checks"]

_BATCH, _TIMED = 4, 8  # samples
_ALONE = 1e-3  # of the size of an answer: kernels for other batches round otherwise
_FAR = 5.0  # times sigma / alpha: how far the data prediction may be from x


@dataclass(frozen=True)
class Check:
    """What one question found; `fine` is None where it is a number without a verdict."""

    name: str
    told: str
    fine: bool | None = None


@torch.inference_mode()
def checks(model: Model, device: torch.device) -> Iterator[Check]:
    """Ask a model, which is moved to the device; shape and dtype of one of one's own were asked when it was opened."""
    shape, path = tuple(model.shape), model.path
    decoded = "" if model.shape == model.image_shape else f", decoded to {tuple(model.image_shape)}"
    yield Check("shape", f"{shape}{decoded}", True)
    network = None if model.network is None else model.network.to(device, torch.float32)
    classes = torch.arange(_BATCH, device=device) % model.num_classes if model.num_classes else None

    def asked(count: int = _BATCH) -> Denoiser:
        return model.make(network, None if classes is None else classes[:count], 0.0, None)

    noise = torch.randn(_BATCH, *shape, generator=torch.Generator().manual_seed(0)).to(device)
    first, last = path.t_finite, path.t_data
    ends = {t: asked().x0(path.prior_std * noise, t) for t in (first, last)}
    infinite = [f"{t:g}" for t, x0 in ends.items() if not x0.isfinite().all()]
    told = f"NaN or infinity at t = {' and '.join(infinite)}" if infinite else f"at t = {first:g} and {last:g}"
    yield Check("finite", told, not infinite)
    yield _near_data(asked(), draw(asked(), noise), last)
    together = asked().x0(path.prior_std * noise, first)
    alone = torch.cat([model.make(network, None if classes is None else classes[i : i + 1], 0.0, None).x0(
        path.prior_std * noise[i : i + 1], first) for i in range(_BATCH)])  # fmt: skip
    apart = float((together - alone).abs().max() / together.abs().max().clamp(min=1e-12))
    told = f"alone a sample is {apart:.1e} of its size from what it is in a batch of {_BATCH}"
    yield Check("batch", told, apart < _ALONE)
    yield from _cost(asked(), noise, first)
    if isinstance(denoiser := asked(1), NetworkDenoiser):
        yield _convention(denoiser, shape)


def _near_data(denoiser: Denoiser, data: Tensor, t: float) -> Check:
    """Whether the data prediction is near x where there is hardly any noise."""
    path = denoiser.path
    x = path.alpha(t) * data + path.sigma(t) * torch.randn_like(data)
    far = float((denoiser.x0(x, t) - x / path.alpha(t)).square().mean().sqrt())
    nsr, size = path.nsr(t), float(data.square().mean().sqrt())
    told = f"at sigma/alpha = {nsr:.2g} x0 is {far:.2g} from x, whose size is {size:.2g}"
    return Check("x0 near data", told, math.isfinite(far) and far < _FAR * nsr + 1e-3 * size)


def _cost(denoiser: Denoiser, noise: Tensor, t: float) -> Iterator[Check]:
    x, cuda = denoiser.path.prior_std * noise, noise.is_cuda
    begin = time.perf_counter()
    for _ in range(_TIMED // _BATCH):
        denoiser.x0(x, t)
    if cuda:
        torch.cuda.synchronize()
    each = (time.perf_counter() - begin) / _TIMED
    yield Check(
        "speed", f"{1e3 * each:.3g} ms for an evaluation of one sample, in batches of {_BATCH} on {noise.device}"
    )
    held = (
        torch.cuda.max_memory_allocated() / 2**20
        if cuda
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    )
    weights = (
        sum(p.nbytes for p in denoiser.network.parameters()) / 2**20 if isinstance(denoiser, NetworkDenoiser) else 0
    )
    of = "of the device" if cuda else "of the whole process"
    yield Check("memory", f"weights {weights:,.1f} MiB, at most {held:,.0f} MiB {of}")


def _convention(denoiser: NetworkDenoiser, shape: tuple[int, ...]) -> Check:
    stated, best = fitting(denoiser, shape)
    if stated.holds:
        low, high = min(stated.errors), max(stated.errors)
        errors = " and ".join(f"{stated.errors[level]:.2g} at sigma/alpha {level:g}" for level in (low, high))
        return Check("convention", f"{stated.convention} as stated; the error of the noise is {errors}", True)
    if best.holds:
        return Check("convention", f"not {stated.convention} as stated: {best.convention} fits", False)
    return Check("convention", f"not {stated.convention} as stated, nor another one that is tried", False)
