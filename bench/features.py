"""Feature extractors with the real images that samples are compared with.

`cifar10-resnet` ships with the package, its reference moments too. `efficientnet-lite0` needs its package and the
training split of cifar10-jpeg. torch-fidelity's `inception-v3-compat` needs its weights (a download of torch-fidelity,
or a path) and the real CIFAR-10. Moments computed here are cached under FASTSAMPLE_HOME.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from fastsample.bench.extractors import (
    compute_reference,
    efficientnet_weights,
    extractor_named,
    layer_for,
    weights_sha256,
)
from fastsample.bench.metrics import feature_metrics, symmetric_root
from fastsample.datasets.home import data_home
from fastsample.datasets.images import DatasetError, Images, dataset_named
from fastsample.datasets.reference import ReferenceError, ReferenceStats, shipped_reference

__all__ = ["EMBEDDED", "Extractor", "MetricUnavailable", "open_extractor"]

EMBEDDED = "cifar10-resnet"
EFFICIENTNET = "efficientnet-lite0"
INCEPTION = "inception-v3-compat"
INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
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
        weights: file of its weights, or None for the default one.
    """

    name: str
    network: torch.nn.Module
    reference: ReferenceStats
    device: torch.device

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
    def _real_features(self) -> np.ndarray:
        """Features of the real images for KID and precision/recall, computed at the first need."""
        dataset = _dataset(*REFERENCES[self.name][1])
        return np.concatenate([self(images)[0] for images in dataset.batches(500)])

    @torch.inference_mode()
    def __call__(self, images: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """(features [n, d], logits [n, classes]) in float32 of uint8 images."""
        features, logits = self.network(images.to(self.device))
        return features.float().cpu().numpy(), logits.float().cpu().numpy()

    def metrics(self, kinds: list[str], features: np.ndarray, logits: np.ndarray) -> dict[str, float]:
        """Values by kind; see `bench.metrics.feature_metrics`."""
        needs_real = {"kid", "precision", "recall"} & set(kinds)
        return feature_metrics(kinds, features, logits, self.moments, self._real_features if needs_real else None)


def open_extractor(name: str, device: torch.device, weights: Path | None = None) -> Extractor:
    """The extractor of that name with its reference moments.

    Args:
        weights: file of the Inception weights; looked for in torch's hub cache if None.

    Raises:
        MetricUnavailable: if its weights or its reference images are not on this machine.
        ValueError: for an extractor that no reference set is known for.
    """
    if name not in REFERENCES:
        raise ValueError(f"no reference set is known for extractor {name!r}; known: {', '.join(REFERENCES)}")
    file = None
    if name == EFFICIENTNET:
        try:
            efficientnet_weights()
        except FileNotFoundError as error:
            raise MetricUnavailable(f"{error}. Going on with the other metrics.") from None
    if name == INCEPTION:
        file = weights or Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE
        if not file.is_file():
            raise MetricUnavailable(
                f"the Inception-v3 weights are not at {file}; put torch-fidelity's {INCEPTION_FILE} there or give "
                "--inception-weights FILE. Going on with the other metrics."
            )
    layers = [layer_for(name, metric) for metric in ("fid", "isc")]
    network = extractor_named(name, layers, device, None if file is None else str(file))
    return Extractor(name, network, _reference(name, network, device, file), device)


def _reference(name: str, network: torch.nn.Module, device: torch.device, weights: Path | None) -> ReferenceStats:
    """Shipped moments, else cached ones, else computed and cached."""
    dataset, split = REFERENCES[name][0]
    title, sha256 = f"{dataset}-{split}@{name}", weights_sha256(network)
    try:
        stats = shipped_reference(title)
        if stats.extractor_sha256 == sha256:
            return stats
    except ReferenceError:
        pass
    cached = data_home() / "reference" / f"{title}-{sha256[:12]}.npz"
    if cached.is_file():
        return ReferenceStats.load(cached)
    stats = compute_reference(
        _dataset(dataset, split), name, device=device, weights=None if weights is None else str(weights)
    )
    cached.parent.mkdir(parents=True, exist_ok=True)
    stats.save(cached)
    return stats


def _dataset(name: str, split: str) -> Images:
    try:
        return dataset_named(name, split)
    except DatasetError as error:
        raise MetricUnavailable(f"{error} Going on with the other metrics.") from None
