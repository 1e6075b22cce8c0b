"""Which convention fits a network: the one that is not beaten on its own samples.

The prediction of the noise has the least mean square error of all functions of x (arXiv 2011.13456), and less than 1,
that of predicting none. So each reading of a network draws a few samples, these are noised, and all readings predict
the noise: a reading that another one beats there at some level, or whose error is above 1, is not the right one, nor is
one that is as good with the times of other levels. Readings differ from what is stated in one thing; in two, where none
of these holds. No data are needed. What a network says outside of the times that it knows is anyone's guess: where
several readings hold the one that is stated does, or that which heeds the time most.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from fastsample.models.denoiser import Denoiser, NetworkDenoiser, Prediction
from fastsample.models.foreign.own import OwnConvention, OwnDenoiser, Scale, Time
from fastsample.models.path import path_named

__all__ = ["Fit", "draw", "fitting"]

_LEVELS = (0.07, 0.25, 0.8, 2.0, 6.0)  # sigma / alpha
_NOISY, _LIMITS = (5.0, 15.0), (0.3, 0.1)  # where data hardly matter, and how well the noise is known there
_STEPS, _FIRST, _LAST = 12, 80.0, 0.02  # of sampling
_VALUES, _FEWEST, _MOST, _WIDEST = 8192, 2, 1024, 1e3  # of samples
_FITTING = 10  # readings that are sampled
_BEATEN, _HEEDED, _ABOVE = 0.04, 0.01, 1.06
_TIMES: tuple[tuple[Time, float, float], ...] = (
    ("t", 1.0, 0.0), ("t", 1000.0, 0.0), ("t", -1.0, 1.0), ("t", -1000.0, 1000.0),
    ("sigma", 1.0, 0.0), ("nsr", 1.0, 0.0), ("log-nsr", 1.0, 0.0), ("log-nsr", 0.25, 0.0),
)  # fmt: skip
_SCALES: tuple[Scale, ...] = (1.0, "unit", "edm", 0.5, 2.0)
_PREDICTIONS: tuple[Prediction, ...] = ("velocity", "eps", "v", "x0")
_PATHS = ("flow", "vp-linear", "edm", "vp-cosine")


@dataclass(frozen=True)
class Fit:
    """How a convention fits a network.

    Attributes:
        errors: mean square errors of the noise that it predicts on its own samples, by sigma / alpha.
        beaten: by which factor another reading is better there, as a logarithm; infinite where it draws no samples.
        heeded: by which factor the times of neighbouring levels are worse, as a logarithm.
    """

    convention: OwnConvention
    errors: dict[float, float]
    beaten: float
    heeded: float

    @property
    def holds(self) -> bool:
        """Whether it can be the right one."""
        below = max(self.errors.values(), default=math.inf) < _ABOVE
        return self.beaten < _BEATEN and self.heeded > _HEEDED and below


@torch.inference_mode()
def fitting(denoiser: NetworkDenoiser, shape: Sequence[int]) -> tuple[Fit, Fit]:
    """(how the stated convention fits, how the best one does), which are one where the stated one holds.

    Args:
        denoiser: with the stated convention, without guidance, and the labels of one sample.
        shape: of one sample.
    """
    count = max(_FEWEST, min(_MOST, _VALUES // math.prod(shape)))
    judge = _Judge(denoiser, (count, *shape))
    stated = stated_by(denoiser)
    near = list(dict.fromkeys([stated, *_changed(stated)]))
    found = judge.compare(stated, near)
    if not any(fit.holds for fit in found):
        found = judge.compare(stated, list(dict.fromkeys(far for one in near for far in [one, *_changed(one)])))
    own = found[0]
    return own, own if own.holds else min(
        found, key=lambda fit: (not fit.holds, -fit.heeded if fit.holds else fit.beaten)
    )


def stated_by(denoiser: NetworkDenoiser) -> OwnConvention:
    """The convention of a denoiser as one of one's own."""
    stated = denoiser.convention
    if isinstance(stated, OwnConvention):
        return stated
    return OwnConvention(
        path=stated.path, prediction=stated.prediction, time_scale=stated.time_scale, time_shift=stated.time_shift
    )


def _changed(stated: OwnConvention) -> Iterator[OwnConvention]:
    """What differs from it in one thing."""
    yield replace(stated, sign=-stated.sign)
    for prediction in _PREDICTIONS:
        yield replace(stated, prediction=prediction)
    for time, scale, shift in _TIMES:
        yield replace(stated, time=time, time_scale=scale, time_shift=shift)
    for divided_by in _SCALES:
        yield replace(stated, divided_by=divided_by)
    for name in _PATHS:
        if name != stated.path.name:
            yield replace(stated, path=path_named(name))


@torch.inference_mode()
def draw(denoiser: Denoiser, noise: Tensor) -> Tensor:
    """Samples of standard normal noise, by a few DDIM steps and a data prediction."""
    path = denoiser.path
    first = min(path.nsr(path.t_finite), _FIRST)
    times = [path.t_of_nsr(first * (_LAST / first) ** (i / _STEPS)) for i in range(_STEPS + 1)]
    x = path.sigma(times[0]) * noise
    for s, t in zip(times, times[1:], strict=False):
        x = denoiser.combine(x, s, path.alpha(t), path.sigma(t))
    return denoiser.x0(x, times[-1])


class _Once(nn.Module):
    """A network that is asked the same once: readings of one time differ in what they make of the answer alone."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._known: dict[tuple[float, bytes], Tensor] = {}

    def forward(self, x: Tensor, times: Tensor, *labels: Tensor) -> Tensor:
        key = float(times[0]), hashlib.sha256(x.cpu().numpy().tobytes()).digest()
        if key not in self._known:
            self._known[key] = self.network(x, times, *labels)
        return self._known[key]


class _Judge:
    """Asks one network under many conventions.

    Args:
        denoiser: of the network, with labels of one sample.
        shape: of the samples, with their number.
    """

    def __init__(self, denoiser: NetworkDenoiser, shape: tuple[int, ...]) -> None:
        generator = torch.Generator().manual_seed(0)
        like = next(denoiser.network.parameters(), torch.zeros(()))
        self.start, self.eps = (torch.randn(shape, generator=generator).to(like) for _ in range(2))
        self.labels = (
            None if denoiser.labels is None else denoiser.labels[:1].expand(shape[0], *denoiser.labels.shape[1:])
        )
        self.network = _Once(denoiser.network)

    def compare(self, stated: OwnConvention, readings: list[OwnConvention]) -> list[Fit]:
        """How readings fit, the stated one first; of most it is seen on noise alone that they do not."""
        nothing = torch.zeros_like(self.eps)
        early = {one: self.errors(one, nothing, _NOISY) for one in readings}
        likely = [one for one in readings if all(e < most for e, most in zip(early[one], _LIMITS, strict=True))]
        # Times that are all beyond those that the network knows come to the same: one of them is enough.
        likely = list(
            {one if one == stated else round(math.log(math.prod(early[one])), 2): one for one in likely[::-1]}.values()
        )
        likely = sorted(likely, key=lambda one: (one != stated, math.prod(early[one])))[:_FITTING]
        samples = {one: x for one in dict.fromkeys([stated, *likely]) if (x := self.samples(one)) is not None}
        alone = {one: self.errors(one, x) for one, x in samples.items()}
        able = [one for one in samples if one == stated or max(alone[one]) < _ABOVE]
        fits = []
        for one in able:
            rivals = [self.errors(other, samples[one]) for other in able]
            ratios = [
                math.log((own + 1e-3) / (e + 1e-3))
                for other in rivals
                for own, e in zip(alone[one], other, strict=True)
            ]
            fits.append(
                Fit(one, dict(zip(_LEVELS, alone[one], strict=True)), max(ratios), self.heeded(one, samples[one]))
            )
        return fits if stated in able else [Fit(stated, {}, math.inf, 0.0), *fits]

    def samples(self, one: OwnConvention) -> Tensor | None:
        """What a reading draws; None where that is no number, or a large one."""
        try:
            x = draw(OwnDenoiser(self.network, one, labels=self.labels), self.start)
        except Exception:  # of a network at times that it does not know
            return None
        return x if bool(x.isfinite().all()) and float(x.abs().max()) < _WIDEST else None

    def errors(self, one: OwnConvention, data: Tensor, levels: Sequence[float] = _LEVELS) -> list[float]:
        """Mean square errors of the noise that a reading predicts."""
        return [self._error(one, one.path.t_of_nsr(level), data) for level in levels]

    def heeded(self, one: OwnConvention, data: Tensor) -> float:
        """The mean growth of the logarithm of its error where the network is told the time of a neighbouring level."""
        times = [one.path.t_of_nsr(level) for level in _LEVELS]
        pairs = [(t, told) for t, told in [*zip(times, times[1:], strict=False), *zip(times[1:], times, strict=False)]]
        grown = [
            math.log(self._error(one, t, data, told) + 1e-6) - math.log(self._error(one, t, data) + 1e-6)
            for t, told in pairs
        ]
        return sum(grown) / len(grown)

    def _error(self, one: OwnConvention, t: float, data: Tensor, told: float | None = None) -> float:
        x = one.path.alpha(t) * data + one.path.sigma(t) * self.eps
        try:
            told_at = one if told is None else _Told(**vars(one), told=told)
            error = (OwnDenoiser(self.network, told_at, labels=self.labels).eps(x, t) - self.eps).square().mean().item()
        except Exception:  # of a network at times that it does not know, or of a prediction that says nothing there
            return math.inf
        return error if math.isfinite(error) else math.inf


@dataclass(frozen=True, kw_only=True)
class _Told(OwnConvention):
    """A convention under which the network is told another time than that of x."""

    told: float

    def label(self, t: float) -> float:
        return super().label(self.told)
