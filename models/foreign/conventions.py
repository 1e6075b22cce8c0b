"""Which convention fits a network: the one whose noise no line in x and in the prediction itself tells better.

The prediction of the noise is its mean given x (arXiv 2011.13456): what it leaves is orthogonal to every function of x,
of which x and the prediction are two. So each reading of a network draws a few samples, these are noised, the reading
predicts the noise, and least squares in both lessen its error by nothing where it is the right one: another prediction,
sign, or scale of x is such a line. A time that says nothing would pass: error must grow more where the network is told
those of neighbouring levels. Readings differ from what is stated in one thing; in two, where none of these holds. No
data are needed. Readings under which a network is asked and heard alike at all levels are one. Where several hold, as
for data that leave little to tell, the stated one does, unless another is far better.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import torch
from torch import Tensor, nn

from fastsample.models.denoiser import Denoiser, NetworkDenoiser, Prediction, convert
from fastsample.models.foreign.own import OwnConvention, OwnDenoiser, Scale, Time
from fastsample.models.path import path_named

__all__ = ["Fit", "draw", "fitting", "same"]

_LEVELS = (0.07, 0.25, 0.8, 2.0, 6.0)  # sigma / alpha
_NOISY, _LIMITS = (5.0, 15.0), (0.3, 0.1)  # where data hardly matter, and how well the noise is known there
_STEPS, _FIRST, _LAST = 12, 80.0, 0.02  # of sampling
_VALUES, _FEWEST, _MOST, _WIDEST = 8192, 2, 1024, 1e3  # of samples
_FITTING = 24  # readings that are sampled
_LEAST = 0.02  # of an error, below which less is chance: of few samples
_TINY, _HOPELESS = 1e-6, 0.5
_WEIGHT, _HEEDED, _NEAR = 4.0, 0.05, 0.25  # of scores
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
        lessened: by which factor a line in x and the prediction lessens them at most, as a logarithm; infinite where
            it draws no samples.
        heeded: by which factor the times of neighbouring levels are worse, as a logarithm.
    """

    convention: OwnConvention
    errors: dict[float, float]
    lessened: float
    heeded: float

    @property
    def score(self) -> float:
        """How much better it is than what is like it; positive where it can be the right one."""
        return self.heeded - _HEEDED - _WEIGHT * self.lessened

    @property
    def holds(self) -> bool:
        """Whether it can be the right one."""
        return self.score > 0


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
    tried, found = [stated], [judge.fit(stated)]
    for ways in (_changed(stated), _elsewhere(stated), _twice(stated)):
        new = _different([*tried, *ways])[len(tried) :]
        tried, found = [*tried, *new], [*found, *judge.compare(new)]
        if any(fit.holds for fit in found):
            break
    own, best = found[0], max(found, key=lambda fit: fit.score)
    return own, own if own.holds and own.score > _NEAR * best.score else best


def stated_by(denoiser: NetworkDenoiser) -> OwnConvention:
    """The convention of a denoiser as one of one's own."""
    stated = denoiser.convention
    if isinstance(stated, OwnConvention):
        return stated
    return OwnConvention(
        path=stated.path, prediction=stated.prediction, time_scale=stated.time_scale, time_shift=stated.time_shift
    )


def _changed(stated: OwnConvention) -> Iterator[OwnConvention]:
    """What differs from it in one thing but the path."""
    yield replace(stated, sign=-stated.sign)
    for prediction in _PREDICTIONS:
        yield replace(stated, prediction=prediction)
    yield replace(stated, time_scale=-stated.time_scale, time_shift=stated.time_shift + stated.time_scale)
    for name in get_args(Time):
        yield replace(stated, time=name)
    for time, scale, shift in _TIMES:
        yield replace(stated, time=time, time_scale=scale, time_shift=shift)
    for divided_by in _SCALES:
        yield replace(stated, divided_by=divided_by)


def _elsewhere(stated: OwnConvention) -> Iterator[OwnConvention]:
    """The same on other paths; of data in far and narrow modes the best x0 is nearly the same there."""
    for name in _PATHS:
        if name != stated.path.name:
            yield replace(stated, path=path_named(name))


def _twice(stated: OwnConvention) -> Iterator[OwnConvention]:
    """What differs from it in two things."""
    for one in (*_changed(stated), *_elsewhere(stated)):
        yield from (*_changed(one), *_elsewhere(one))


def _called(one: OwnConvention) -> tuple[float, ...]:
    """What is the same of readings that are one: what the network gets of x / alpha, and what becomes of its answer."""
    called = []
    for level in (*_LEVELS, *_NOISY):
        t = one.path.t_of_nsr(level)
        alpha, (c_x, c_f) = one.path.alpha(t), convert(one.path, t, one.prediction, (0.0, 1.0))
        called += [one.label(t), alpha / one.scale(t), alpha * c_x, c_f * one.sign]
    return tuple(round(value, 6) for value in called)


def _different(readings: list[OwnConvention]) -> list[OwnConvention]:
    """The first of those that are one."""
    kept: dict[tuple[float, ...], OwnConvention] = {}
    for one in readings:
        kept.setdefault(_called(one), one)
    return list(kept.values())


def same(one: OwnConvention) -> list[OwnConvention]:
    """Other ways to state it, with one thing changed, or else with two."""
    called = _called(one)
    for ways in (_changed(one), _twice(one)):
        if found := [other for other in dict.fromkeys(ways) if other != one and _called(other) == called]:
            return found
    return []


@torch.inference_mode()
def draw(denoiser: Denoiser, noise: Tensor) -> Tensor:
    """Samples of standard normal noise, by a few steps of DPM-Solver++(2M) in equal steps of lambda and one to data."""
    path = denoiser.path
    first = min(path.nsr(path.t_finite), _FIRST)
    times = [path.t_of_nsr(first * (_LAST / first) ** (i / _STEPS)) for i in range(_STEPS + 1)]
    x, before = path.sigma(times[0]) * noise, None
    for s, t in itertools.pairwise(times):
        x0 = denoiser.x0(x, s)
        ahead = x0 if before is None else 1.5 * x0 - 0.5 * before
        left = path.sigma(t) / path.sigma(s)
        x, before = left * x + (path.alpha(t) - left * path.alpha(s)) * ahead, x0
    return denoiser.x0(x, times[-1])


class _Once(nn.Module):
    """A network that is asked the same once: readings of one time differ in what they make of the answer alone."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.known: dict[tuple[float, bytes], Tensor] = {}

    def forward(self, x: Tensor, times: Tensor, *labels: Tensor) -> Tensor:
        key = float(times[0]), hashlib.sha256(x.cpu().numpy().tobytes()).digest()
        if key not in self.known:
            self.known[key] = self.network(x, times, *labels)
        return self.known[key]


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
        self.network = denoiser.network

    def compare(self, readings: list[OwnConvention]) -> list[Fit]:
        """How those fit that noise alone does not rule out."""
        nothing, once = torch.zeros_like(self.eps), _Once(self.network)
        early = {one: [self._asked(one, level, nothing, network=once)[0] for level in _NOISY] for one in readings}
        likely = [one for one in readings if all(e < most for e, most in zip(early[one], _LIMITS, strict=True))]
        return [self.fit(one) for one in sorted(likely, key=lambda one: math.prod(early[one]))[:_FITTING]]

    def fit(self, one: OwnConvention) -> Fit:
        """How one fits, on samples that it draws."""
        none = Fit(one, {}, math.inf, 0.0)
        try:
            data = draw(OwnDenoiser(self.network, one, labels=self.labels), self.start)
        except Exception:  # of a network at times that it does not know
            return none
        if not data.isfinite().all() or float(data.abs().max()) > _WIDEST:
            return none
        found = {level: self._asked(one, level, data) for level in _LEVELS}
        errors = {level: error for level, (error, _) in found.items()}
        if math.inf in errors.values():
            return none
        lessened = max(math.log((error + _LEAST) / (least + _LEAST)) for error, least in found.values())
        if lessened > _HOPELESS:
            return Fit(one, errors, math.inf, 0.0)
        grown = [
            math.log((self._asked(one, level, data, told)[0] + _TINY) / (errors[level] + _TINY))
            for pair in itertools.pairwise(_LEVELS)
            for level, told in (pair, pair[::-1])
        ]
        return Fit(one, errors, lessened, sum(grown) / len(grown))

    def _asked(
        self,
        one: OwnConvention,
        level: float,
        data: Tensor,
        told: float | None = None,
        network: nn.Module | None = None,
    ) -> tuple[float, float]:
        """(mean square error of the noise predicted, what least squares leave of it), maybe told another level."""
        t = one.path.t_of_nsr(level)
        x = one.path.alpha(t) * data + one.path.sigma(t) * self.eps
        asked = one if told is None else _Told(**vars(one), told=one.path.t_of_nsr(told))
        try:
            eps = OwnDenoiser(network or self.network, asked, labels=self.labels).eps(x, t)
        except Exception:  # of a network at times that it does not know, or of a prediction that says nothing there
            return math.inf, math.inf
        left = (eps - self.eps).flatten().double().cpu()
        error = left.square().mean().item()
        if not math.isfinite(error):
            return math.inf, math.inf
        line = torch.stack([x.flatten(), eps.flatten()], 1).double().cpu()
        least = (left - line @ torch.linalg.lstsq(line, left, driver="gelsd").solution).square().mean().item()
        return error, least


@dataclass(frozen=True, kw_only=True)
class _Told(OwnConvention):
    """A convention under which the network is told another time than that of x."""

    told: float

    def label(self, t: float) -> float:
        return super().label(self.told)
