"""Feature extractors with the real images that samples are compared with.

`cifar10-resnet` ships with the package, its reference moments too. `efficientnet-lite0` needs its package and the
training split of cifar10-jpeg. torch-fidelity's `inception-v3-compat` needs its weights (torch's hub cache, or a path)
and the real CIFAR-10; with other weights than the published ones it has another name. Moments computed here are cached
under FASTSAMPLE_HOME.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from fastsample.bench.metrics.extractors import (
    EFFICIENTNET,
    EMBEDDED,
    INCEPTION,
    compute_reference,
    extractor_named,
    inception_weights,
    layer_for,
    unpublished,
    weights_sha256,
)
from fastsample.bench.metrics.frechet import symmetric_root
from fastsample.datasets.files import warn
from fastsample.datasets.home import data_home, keep
from fastsample.datasets.image_set import DatasetError, Images
from fastsample.datasets.images import dataset_named
from fastsample.datasets.moments import ReferenceError, ReferenceStats, shipped_reference

__all__ = ["EMBEDDED", "INCEPTION", "REFERENCES", "Extractor", "MetricUnavailable", "open_extractor"]

# Per extractor: the set whose moments are the reference, and the real images for KID and precision/recall.
REFERENCES = {
    EMBEDDED: (("cifar10-jpeg", "train"), ("cifar10-jpeg", "test")),
    EFFICIENTNET: (("cifar10-jpeg", "train"), ("cifar10-jpeg", "test")),
    INCEPTION: (("cifar10", "train"), ("cifar10", "test")),
}


class MetricUnavailable(ValueError):  # noqa: N818 - it is a state of this machine, not a fault
    """Weights or real images that a metric needs are not on this machine."""


@dataclass
class Extractor:
    """An extractor on a device with its reference set.

    Attributes:
        name: as registered with torch-fidelity.
        network: returns (features, logits) of uint8 images [n, 3, H, W].
        reference: moments of the reference set.
        weights: first digits of the sha256 of the file of its weights, where that is not the published one; else "".
    """

    name: str
    network: torch.nn.Module
    reference: ReferenceStats
    device: torch.device
    weights: str = ""
    _last: tuple[np.ndarray, dict[str, float]] | None = field(default=None, init=False)

    @property
    def identity(self) -> str:
        """The name, with `weights` where there are others than the published ones."""
        return f"{self.name}:{self.weights}" if self.weights else self.name

    @cached_property
    def sha256(self) -> str:
        """Hash of the weights."""
        return weights_sha256(self.network)

    @property
    def reference_id(self) -> str:
        """The reference set in words: name and number of images."""
        return f"{self.reference.name} n={self.reference.n}"

    @cached_property
    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean [d] and symmetric root of the covariance [d, d] of the reference set, float64."""
        return self.reference.mu, symmetric_root(self.reference.sigma)

    @cached_property
    def real_images(self) -> Images:
        """The real images for KID and precision/recall.

        Raises:
            MetricUnavailable: if they are not on this machine.
        """
        return _dataset(*REFERENCES[self.name][1])

    @cached_property
    def real_features(self) -> np.ndarray:
        """Features [m, d] of the real images, computed at the first need."""
        return np.concatenate([self(images)[0] for images in self.real_images.batches(500)])

    @torch.inference_mode()
    def __call__(self, images: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """(features [n, d], logits [n, classes]) in float32 of uint8 images."""
        features, logits = self.network(images.to(self.device))
        return features.float().cpu().numpy(), logits.float().cpu().numpy()

    def manifolds(self, features: np.ndarray) -> dict[str, float]:
        """torch-fidelity's precision and recall of features [n, d]; those of the last features are kept."""
        from torch_fidelity.metric_prc import prc_features_to_metric

        if self._last is None or self._last[0] is not features:
            pair = torch.from_numpy(features), torch.from_numpy(self.real_features)
            self._last = features, prc_features_to_metric(*pair, verbose=False)
        return self._last[1]


def open_extractor(name: str, device: torch.device, weights: Path | None = None) -> Extractor:
    """The extractor of that name with its reference moments.

    Args:
        weights: file of the Inception weights; looked for in torch's hub cache if None.

    Raises:
        MetricUnavailable: if its weights or its reference images are not on this machine.
        ValueError: for an extractor that no reference set is known for, or a file that holds no weights of it.
    """
    if name not in REFERENCES:
        raise ValueError(f"no reference set is known for extractor {name!r}; known: {', '.join(REFERENCES)}")
    file, layers = None, [layer_for(name, metric) for metric in ("fid", "isc")]
    try:
        file = inception_weights(weights) if name == INCEPTION else None
        network = extractor_named(name, layers, device, file)
    except (OSError, ValueError) as error:
        told = str(error)
        if isinstance(error, OSError) and error.strerror:
            told = f"{error.filename} cannot be read ({error.strerror})"
        if weights:
            raise ValueError(told) from error
        again = f"; remove it and fetch it again, torch-fidelity's {file.name}" if file else ""
        raise MetricUnavailable(f"{told}{again}. Going on with the other metrics.") from None
    other = unpublished(file) if file else ""
    return Extractor(name, network, _reference(name, network, device, file), device, other)


def _reference(name: str, network: torch.nn.Module, device: torch.device, weights: Path | None) -> ReferenceStats:
    """Shipped moments, else cached ones, else computed and cached; those of others, or damaged (said), do not count."""
    dataset, split = REFERENCES[name][0]
    title, sha256 = f"{dataset}-{split}@{name}", weights_sha256(network)
    cached = data_home() / "reference" / f"{title}-{sha256[:12]}.npz"
    damaged = ""
    for read in (lambda: shipped_reference(title), lambda: ReferenceStats.load(cached)):
        try:
            stats = read()
        except ReferenceError as error:
            if not isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
                damaged = str(error)
            continue
        if (stats.name, stats.extractor_sha256) == (title, sha256):
            return stats
    try:
        images = _dataset(dataset, split)
    except MetricUnavailable as error:
        raise MetricUnavailable(f"{damaged}; to make it anew, {error}" if damaged else str(error)) from None
    if damaged:
        warn(f"{damaged}: it is made anew")
    stats = compute_reference(images, name, device=device, weights=weights)
    keep(cached, stats.save)
    return stats


def _dataset(name: str, split: str) -> Images:
    try:
        return dataset_named(name, split)
    except DatasetError as error:
        raise MetricUnavailable(f"{error} Going on with the other metrics.") from None
