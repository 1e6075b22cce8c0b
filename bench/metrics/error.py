"""Metrics: what is measured on samples, streamed, and named by what decides the value.

A name states the metric, its extractor and the number of samples: `fd[cifar10-resnet]@1000`. `fid` is
kept for Inception-v3 features against the data set's standard reference. `SOLVER_METRICS` measure the solver or
its trajectory, not the quality of images: `psnr` and `truncation` compare with the reference solution of the same
noise, `curvature` and `straightness` tell how far trajectories bend (`bench.metrics.trajectories`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from fastsample.datasets.names import nearest

__all__ = [
    "DISTRIBUTION_METRICS",
    "SOLVER_METRICS",
    "Metric",
    "features_distance",
    "finite",
    "frechet_distance",
    "parse_metric",
    "psnr_values",
    "square_errors",
    "summarise_psnr",
    "to_uint8",
]

SOLVER_METRICS = ("psnr", "truncation", "curvature", "straightness")
DISTRIBUTION_METRICS = ("fd", "fid", "fd-inf", "fid-inf", "kid", "is", "precision", "recall")
UINT8_RULE = "floor(clip(127.5 x + 128, 0, 255))"
FEWEST = {"precision": 4, "recall": 4, "is": 10}  # samples: a third neighbour, and one in each of ten parts
_INCEPTION = "inception-v3-compat"
_INCEPTIONS_OWN = ("fid", "fid-inf")  # the kinds that name no extractor


@dataclass(frozen=True)
class Metric:
    """A metric and the extractor whose features it needs ("" for `SOLVER_METRICS`).

    `weights` are the first digits of the hash of the extractor's, where they are not the published ones: no distance
    in their features is called `fid`.
    """

    kind: str
    extractor: str
    weights: str = ""

    def name(self, samples: int) -> str:
        """The full name under which the value is stored."""
        if self.kind in SOLVER_METRICS:
            return self.kind
        if self.weights:
            return f"{self.kind.replace('fid', 'fd')}[{self.extractor}:{self.weights}]@{samples}"
        if self.kind in _INCEPTIONS_OWN:
            return f"{self.kind}@{samples}"
        return f"{self.kind}[{self.extractor}]@{samples}"


def parse_metric(text: str, default_extractor: str) -> Metric:
    """Read `psnr`, `curvature`, `fid`, `fd-inf`, `kid[inception-v3-compat]`, ...

    Raises:
        ValueError: for an unknown metric.
    """
    match = re.fullmatch(r"([a-z-]+)(?:\[([\w.-]+)\])?", text)
    if match is None or match[1] not in (*SOLVER_METRICS, *DISTRIBUTION_METRICS):
        raise ValueError(nearest(text, [*SOLVER_METRICS, *DISTRIBUTION_METRICS], "metric"))
    kind, extractor = match[1], match[2]
    if kind in SOLVER_METRICS:
        return Metric(kind, "")
    if kind in _INCEPTIONS_OWN:
        return Metric(kind, _INCEPTION)
    return Metric(kind, extractor or default_extractor)


def finite(what: str, value: torch.Tensor | np.ndarray) -> None:
    """Raise FloatingPointError, which names what it is, unless every number is finite."""
    if not bool(torch.isfinite(torch.as_tensor(value)).all()):
        raise FloatingPointError(f"{what} NaN or infinity")


def to_uint8(x: torch.Tensor) -> torch.Tensor:
    """Images in [-1, 1] as uint8, by EDM's rule floor(clip(127.5 x + 128, 0, 255)): the nearest level, ties up."""
    return (x * 127.5 + 128).clamp(0, 255).to(torch.uint8)


def psnr_values(x: torch.Tensor, reference: torch.Tensor) -> np.ndarray:
    """Per-sample PSNR [n] in dB, float64: 10 log10(R^2 / MSE).

    Images [n, channels, height, width] are clamped to [-1, 1] and R = 2; points [n, d] of the plane
    mixtures are taken as they are and R = 4. An MSE below 1e-20 counts as 1e-20, so that equal samples
    give a number and not infinity.
    """
    x, reference, peak = x.double(), reference.double(), 4.0
    if x.ndim == 4:
        x, reference, peak = x.clamp(-1, 1), reference.clamp(-1, 1), 2.0
    mse = (x - reference).square().flatten(1).mean(1).clamp(min=1e-20)
    return np.asarray((10 * torch.log10(peak * peak / mse)).cpu().numpy())


def square_errors(x: torch.Tensor, reference: torch.Tensor) -> np.ndarray:
    """Per-sample mean square error per dimension [n], float64, of x [n, ...] as it is: nothing is clamped.

    The root of their mean over samples is `truncation`: how far a solver's result is from the reference solution of
    the same noise, 0 for an exact solver. Both are states of the ODE at its end (latents, where a model has them),
    or with `denoise` the data predictions there.
    """
    return np.asarray((x.double() - reference.double()).square().flatten(1).mean(1).cpu().numpy())


def summarise_psnr(values: np.ndarray) -> dict[str, float]:
    """Mean over samples (the headline), median, and the PSNR of the pooled MSE."""
    pooled = -10 * np.log10(np.mean(10 ** (-values / 10)))
    return {"psnr": float(values.mean()), "psnr_median": float(np.median(values)), "psnr_pooled": float(pooled)}


def frechet_distance(mu1: np.ndarray, sigma1: np.ndarray, mu2: np.ndarray, root2: np.ndarray) -> float:
    """|mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) in float64, given the symmetric root of S2.

    tr (S1 S2)^(1/2) is the sum of the square roots of the eigenvalues of the symmetric matrix
    S2^(1/2) S1 S2^(1/2): real, stable at rank deficiency, and ten times faster than a general root.

    Args:
        mu1, mu2: [d]; sigma1: [d, d]; root2: [d, d] with root2 @ root2 = S2.
    """
    spectrum = np.linalg.eigvalsh(root2 @ sigma1 @ root2)
    trace = np.trace(sigma1) + np.sum(root2 * root2) - 2 * np.sqrt(np.clip(spectrum, 0, None)).sum()
    return float(np.sum((mu1 - mu2) ** 2) + trace)


def symmetric_root(sigma: np.ndarray) -> np.ndarray:
    """The symmetric square root of a covariance [d, d]; eigenvalues below 0 by rounding count as 0."""
    values, vectors = np.linalg.eigh(sigma)
    return np.asarray((vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T)


def features_distance(features: np.ndarray, reference: tuple[np.ndarray, np.ndarray]) -> float:
    """Frechet distance of features [n, d] to (mu, symmetric root of sigma) of the reference set."""
    wide = features.astype(np.float64, copy=False)
    return frechet_distance(wide.mean(0), np.atleast_2d(np.cov(wide, rowvar=False)), *reference)


def feature_metrics(
    kinds: list[str],
    features: np.ndarray,
    logits: np.ndarray | None,
    reference: tuple[np.ndarray, np.ndarray],
    reference_features: np.ndarray | None,
) -> dict[str, float]:
    """Metrics of one extractor by kind; Inception Score, KID and precision/recall by torch-fidelity.

    Args:
        kinds: of `DISTRIBUTION_METRICS`, without the extrapolated ones (`bench.metrics.frechet.extrapolate`).
        features: [n, d] of the samples; logits: [n, classes], for `is`.
        reference: (mu, symmetric root of sigma) of the reference set, for `fd` and `fid`.
        reference_features: [m, d] of real images, for `kid`, `precision` and `recall`.
    """
    values: dict[str, float] = {}
    for kind in kinds:
        if kind in ("fd", "fid"):
            values[kind] = features_distance(features, reference)
        elif kind == "is":
            result = isc_features_to_metric(torch.from_numpy(_given(logits)))
            values[kind] = result["inception_score_mean"]
        elif kind == "kid":
            pair = torch.from_numpy(features), torch.from_numpy(_given(reference_features))
            size = min(1000, *(len(one) for one in pair))
            values[kind] = kid_features_to_metric(*pair, kid_subset_size=size, verbose=False)[
                "kernel_inception_distance_mean"
            ]
        elif kind not in values:
            pair = torch.from_numpy(features), torch.from_numpy(_given(reference_features))
            result = prc_features_to_metric(*pair, verbose=False)
            values |= {name: result[name] for name in ("precision", "recall") if name in kinds}
    return values


def _given(array: Any) -> np.ndarray:
    if array is None:
        raise ValueError("this metric needs features or logits that were not kept")
    return np.asarray(array)
