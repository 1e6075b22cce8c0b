"""Denoisers: what every model is once it stands on a path.

From one evaluation at (x, t) the data prediction x0, the noise prediction eps, the velocity
dx_t/dt and the v-prediction are linear in one another and in x:

    x        = alpha x0  + sigma eps
    velocity = alpha' x0 + sigma' eps
    v        = alpha eps - sigma x0          (arXiv 2202.00512)

so a prediction is a pair (p, r) meaning p x0 + r eps, and any of them follows from any other
(`convert`). Solvers see only `Denoiser`; `denoiser.on(path)` shows the same denoiser on another
path, by matching lambda and rescaling x.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from fastsample.models.convention import Convention
from fastsample.models.path import Path
from fastsample.models.precision import computing

if TYPE_CHECKING:
    import torch  # a second of CPU time, which a list of solvers is not to take: so it stands in functions below

__all__ = ["Denoiser", "NetworkDenoiser", "Point", "Prediction", "Wrapped", "column", "convert",
           "data_prediction", "scale_between", "weights"]  # fmt: skip

Prediction = Literal["x0", "eps", "velocity", "v"]
Point = tuple[float, float, float]  # (t, p, r): p x0 + r eps at t


def weights(path: Path, t: float, prediction: str) -> tuple[float, float]:
    """(p, r) such that the prediction at t is p x0 + r eps.

    Raises:
        ValueError: for an unknown prediction.
    """
    match prediction:
        case "x0":
            return 1.0, 0.0
        case "eps":
            return 0.0, 1.0
        case "velocity":
            return path.d_alpha(t), path.d_sigma(t)
        case "v":
            return -path.sigma(t), path.alpha(t)
    raise ValueError(f"unknown prediction {prediction!r}; known: {', '.join(get_args(Prediction))}")


def convert(path: Path, t: float, have: str, want: tuple[float, float]) -> tuple[float, float]:
    """(c_x, c_f) with  p x0 + r eps = c_x x + c_f f,  where f is the prediction `have` at (x, t).

    Raises:
        ZeroDivisionError: where f does not determine x0 and eps (eps at alpha = 0, x0 at sigma = 0).
    """
    alpha, sigma = path.alpha(t), path.sigma(t)
    (p, r), (want_p, want_r) = weights(path, t, have), want
    if (p, r) == (want_p, want_r):
        return 0.0, 1.0
    det = alpha * r - sigma * p
    if det == 0:
        raise ZeroDivisionError(f"the {have} prediction says nothing more than x at t = {t} of the {path.name} path")
    return (want_p * r - want_r * p) / det, (want_r * alpha - want_p * sigma) / det


def data_prediction(path: Path, t: float, x: Any, answer: Any, p: float, r: float) -> Any:
    """x0 at (x, t) from answer = p x0 + r eps."""
    if r == 0:
        return answer / p
    share = r / path.sigma(t)
    return (answer - share * x) / (p - share * path.alpha(t))


class Denoiser(ABC):
    """A model on a path; counts its evaluations.

    x is any vector (a tensor of shape [batch, ...], or a symbol); t is a Python float on `path`.

    Attributes:
        path: where the model lives, with the interval it is sampled on.
        nfe: evaluations of the whole batch made so far. A guided evaluation is one.
        own: evaluations made beside them of single samples, by place in the batch.
        classifier_calls: gradients of a classifier that one evaluation costs.
    """

    classifier_calls: int = 0

    def __init__(self, path: Path) -> None:
        self.path = path
        self.nfe, self.own = 0, Counter[int]()
        self._calls, self._own_calls = 0, Counter[int]()

    def forwards(self, t: float) -> int:
        """Network calls that one evaluation at t costs: 2 with guidance by another prediction."""
        return 1

    def x0(self, x: Any, t: float) -> Any:
        """Data prediction E[x_0 | x_t = x]; one evaluation."""
        return self.predict(x, t, "x0")

    def eps(self, x: Any, t: float) -> Any:
        """Noise prediction E[eps | x_t = x] = -sigma times the score; one evaluation."""
        return self.predict(x, t, "eps")

    def velocity(self, x: Any, t: float) -> Any:
        """Velocity dx_t/dt of the probability-flow ODE in the path's own time; one evaluation."""
        return self.predict(x, t, "velocity")

    def predict(self, x: Any, t: float, prediction: Prediction) -> Any:
        """The prediction of that name; one evaluation."""
        return self.combine(x, t, *weights(self.path, t, prediction))

    def combine(self, x: Any, t: float, p: float, r: float) -> Any:
        """p x0 + r eps at (x, t); one evaluation."""
        self.nfe += 1
        self._calls += self.forwards(t)
        return self._combine(x, t, p, r)

    @abstractmethod
    def _combine(self, x: Any, t: float, p: float, r: float) -> Any: ...

    def each(self, x: torch.Tensor, points: Sequence[Point], rows: Sequence[int]) -> torch.Tensor:
        """Samples [n, ...] of the batch, each at a point of its own; one evaluation of each. rows: their places."""
        self.own.update(rows)
        for row, (t, _, _) in zip(rows, points, strict=True):
            self._own_calls[row] += self.forwards(t)
        return self._each(x, points, rows)

    def _each(self, x: torch.Tensor, points: Sequence[Point], rows: Sequence[int]) -> torch.Tensor:
        import torch

        return torch.cat([self._combine(x[i : i + 1], *point) for i, point in enumerate(points)])

    def evaluations(self, batch: int) -> list[int]:
        """Evaluations of each sample of the batch so far."""
        return [self.nfe + self.own[row] for row in range(batch)]

    def calls(self, batch: int) -> list[int]:
        """Network calls for each sample of the batch so far."""
        return [self._calls + self._own_calls[row] for row in range(batch)]

    def on(self, path: Path) -> Denoiser:
        """The same denoiser seen on another path, on the part of it where both have a lambda.

        Evaluations made through the view are counted here too. A view of the denoiser's own
        kind of path is the denoiser itself, on the interval asked for.
        """
        return self if path == self.path else _View(self, path)


class Wrapped(Denoiser):
    """Another denoiser, asked through this one: on its path or another, an evaluation costs what one of `base` does."""

    def __init__(self, base: Denoiser, path: Path | None = None) -> None:
        super().__init__(path or base.path)
        self.base, self.classifier_calls = base, base.classifier_calls

    def forwards(self, t: float) -> int:
        return self.base.forwards(t)

    def _combine(self, x: Any, t: float, p: float, r: float) -> Any:
        return self.base.combine(x, t, p, r)

    def _each(self, x: torch.Tensor, points: Sequence[Point], rows: Sequence[int]) -> torch.Tensor:
        return self.base.each(x, points, rows)


class _View(Wrapped):
    """x = scale x' and lam(t) = lam'(t'), hence x0 and eps are shared."""

    def forwards(self, t: float) -> int:
        return self.base.forwards(self._place(t)[0])

    def _combine(self, x: Any, t: float, p: float, r: float) -> Any:
        own, scale = self._place(t)
        return self.base.combine(x if scale == 1 else scale * x, own, p, r)

    def _each(self, x: torch.Tensor, points: Sequence[Point], rows: Sequence[int]) -> torch.Tensor:
        owns, scales = zip(*(self._place(t) for t, _, _ in points), strict=True)
        return self.base.each(
            column(scales, x) * x, [(own, p, r) for own, (_, p, r) in zip(owns, points, strict=True)], rows
        )

    def _place(self, t: float) -> tuple[float, float]:
        """The time on the denoiser's own path, and the scale of x there."""
        own = t if _same_kind(self.path, self.base.path) else self.base.path.t_of_lam(self.path.lam(t))
        return own, scale_between(self.path, t, self.base.path, own)


def column(values: Sequence[float] | np.ndarray, x: torch.Tensor) -> torch.Tensor:
    """One number for each sample of x, to multiply it with."""
    return x.new_tensor(values).reshape(-1, *[1] * (x.ndim - 1))


def _same_kind(a: Path, b: Path) -> bool:
    return a.between(0.0, 0.0) == b.between(0.0, 0.0)


def scale_between(path: Path, t: float, other: Path, other_t: float) -> float:
    """The factor that carries x at t of `path` to the point of equal lambda at `other_t` of `other`."""
    return math.hypot(other.alpha(other_t), other.sigma(other_t)) / math.hypot(path.alpha(t), path.sigma(t))


class NetworkDenoiser(Denoiser):
    """A network on its path.

    Args:
        network: called as network(x, times) or network(x, times, labels), x [batch, channels, height,
            width], times float32 [batch]; returns its prediction in the shape of x.
        convention: its path, its `Prediction`, and the times it is called with.
        labels: one-hot or integer labels [batch, ...] for the whole batch, or None.
        guidance: classifier-free guidance weight w: (1 + w) conditional - w unconditional
            (arXiv 2207.12598, eq. 6); 0 is plain conditional sampling.
        null_labels: what the network takes for "no class"; needed with guidance.
        guided_channels: guidance acts on the first so many channels alone, as in DiT (arXiv 2212.09748); 0 for all.
        classifier_scale: classifier guidance scale s, for networks that return eps and have a classifier: called as
            network(x, times, labels, s sigma), they return eps - s sigma grad log p(labels | x, t) (arXiv 2105.05233,
            algorithm 2); 0 for none.
        precision: of `models.precision`, with a network that is prepared for it; None for that of its weights.

    The state keeps its dtype: x is cast to float32 for the call, float64 for a network in float64, and the result back.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        convention: Convention,
        *,
        labels: torch.Tensor | None = None,
        guidance: float = 0.0,
        null_labels: torch.Tensor | None = None,
        guided_channels: int = 0,
        classifier_scale: float = 0.0,
        precision: str | None = None,
    ) -> None:
        import torch

        super().__init__(convention.path)
        if guidance and (labels is None or null_labels is None):
            raise ValueError("classifier-free guidance needs labels and null_labels")
        if classifier_scale and (labels is None or guidance or convention.prediction != "eps"):
            raise ValueError("classifier guidance needs labels and a network of eps, without classifier-free guidance")
        self.network, self.convention, self.guided_channels = network, convention, guided_channels
        self.labels, self.null_labels, self.guidance, self.precision = labels, null_labels, guidance, precision
        self.classifier_scale, self.classifier_calls = classifier_scale, 1 if classifier_scale else 0
        # Half-precision weights are of products alone, which autocast feeds; what goes in and comes out is wider.
        self._dtype = torch.promote_types(next((p.dtype for p in network.parameters()), torch.float32), torch.float32)

    def forwards(self, t: float) -> int:
        return 2 if self.guidance else 1

    def _call(self, x: torch.Tensor, times: torch.Tensor, given: list[Any]) -> torch.Tensor:
        with computing(self.precision, x.device):
            out = self.network(x.to(self._dtype), times, *given)
        return out.to(x.dtype)

    def _guided(self, x: torch.Tensor, times: Sequence[float], rows: list[int] | None = None) -> torch.Tensor:
        """The network's prediction with its guidance; for all at one time, or for some rows each at its own."""
        own, null = (one if one is None or rows is None else one[rows] for one in (self.labels, self.null_labels))
        labels = x.new_tensor([self.convention.label(t) for t in times], dtype=self._dtype).expand(len(x)).contiguous()
        given: list[Any] = [] if own is None else [own]
        if self.classifier_scale:
            scales = [self.classifier_scale * self.path.sigma(t) for t in times]
            given.append(scales[0] if len(scales) == 1 else column(scales, x).to(self._dtype))
        f = self._call(x, labels, given)
        if self.guidance:
            change = self.guidance * (f - self._call(x, labels, [null]))
            if self.guided_channels:
                change[:, self.guided_channels :] = 0
            f = f + change
        return f

    def _combine(self, x: torch.Tensor, t: float, p: float, r: float) -> torch.Tensor:
        c_x, c_f = convert(self.path, t, self.convention.prediction, (p, r))
        f = self._guided(x, [t])
        if c_x == 0:
            return f if c_f == 1 else c_f * f
        return (c_x * x).add(f, alpha=c_f)

    def _each(self, x: torch.Tensor, points: Sequence[Point], rows: Sequence[int]) -> torch.Tensor:
        have = self.convention.prediction
        c_x, c_f = zip(*(convert(self.path, t, have, (p, r)) for t, p, r in points), strict=True)
        return column(c_x, x) * x + column(c_f, x) * self._guided(x, [t for t, _, _ in points], list(rows))
