"""Feature extractors on a device, and the reference sets that samples are compared with in their features.

`cifar10-resnet` ships with the package. `efficientnet-lite0` needs its package, torch-fidelity's extractors their
weights (torch's hub cache, or a path); with other weights than the published ones they have another name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from fastsample.bench.metrics.extractor_weights import files_of, published, weights_file
from fastsample.bench.metrics.extractors import (
    EMBEDDED,
    INCEPTION,
    extractor_named,
    layer_for,
    unpublished,
    weights_sha256,
)
from fastsample.bench.metrics.frechet import features_distance, symmetric_root
from fastsample.bench.metrics.moments import Known, MetricUnavailable, no_images
from fastsample.bench.metrics.reference import ReferenceSet, of_data
from fastsample.datasets.image_set import Images
from fastsample.models.precision import matmul

__all__ = [
    "EMBEDDED",
    "INCEPTION",
    "Extractor",
    "MetricUnavailable",
    "data_of_exact",
    "open_extractor",
    "open_network",
    "reading",
]


_AT_ONCE = 500  # real images


def data_of_exact(extractor: str) -> str:
    """The data set that models without data of their own, the exact ones, are compared with."""
    return "cifar10" if INCEPTION in files_of(extractor) else "cifar10-jpeg"


@dataclass
class Extractor:
    """An extractor on a device, and what its features are compared with.

    Attributes:
        name: as registered with torch-fidelity.
        network: returns (features, logits) of uint8 images [n, 3, H, W], or what is both.
        device: where it is.
        weights: first digits of the sha256 of the file of its weights, where that is not the published one; else "".
        reference: moments of the reference set; None before `against`.
        opened: opens the real images of the reference set.
        others: opens real images of another split than that of the moments.
        classifies: it returns logits beside the features.
    """

    name: str
    network: torch.nn.Module
    device: torch.device
    weights: str = ""
    reference: Known | None = None
    opened: Callable[[], Images] = no_images
    others: Callable[[], Images] = no_images
    classifies: bool = True
    _last: tuple[np.ndarray, dict[str, float]] | None = field(default=None, init=False)
    _real: dict[int, str] = field(default_factory=dict, init=False)

    @property
    def identity(self) -> str:
        """The name, with `weights` where there are others than the published ones."""
        return f"{self.name}:{self.weights}" if self.weights else self.name

    @cached_property
    def sha256(self) -> str:
        """Hash of the weights."""
        return weights_sha256(self.network)

    def against(self, reference: ReferenceSet) -> Extractor:
        """The same with a reference set.

        Raises:
            MetricUnavailable: if its moments cannot be had here.
        """
        return replace(self, reference=reference.moments(self), opened=reference.images, others=reference.others)

    @property
    def arithmetic(self) -> torch.device | None:
        """The device where it has float64 and is faster than numpy; None for numpy."""
        return self.device if str(self.device).startswith("cuda") else None

    @cached_property
    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean [d] and symmetric root of the covariance [d, d] of the reference set, float64."""
        assert self.reference
        return self.reference.mu, symmetric_root(self.reference.sigma, self.arithmetic)

    @cached_property
    def real_images(self) -> Images:
        """The real images for KID and precision/recall.

        Raises:
            MetricUnavailable: if they are not on this machine.
        """
        return self.opened()

    @cached_property
    def real_features(self) -> np.ndarray:
        """Features [m, d] of the real images, computed at the first need."""
        return self._features(self.real_images, len(self.real_images))

    def real_distance(self, count: int) -> str:
        """The Frechet distance of so many real images of another split, the first of it, and what they are.

        "" where there are fewer, or none on this machine.
        """
        if count not in self._real:
            self._real[count] = ""
            with suppress(MetricUnavailable):
                images = self.others()
                if len(images) >= count:
                    features = self._features(images, count)
                    value = features_distance(features, self.moments, self.arithmetic)
                    self._real[count] = f"{value:.4g} (the first {count} images of {images.name} {images.split})"
        return self._real[count]

    def _features(self, images: Images, count: int) -> np.ndarray:
        """Features [count, d] of the first images."""
        starts = range(0, count, _AT_ONCE)
        pairs = zip(starts, images.batches(_AT_ONCE), strict=False)
        return np.concatenate([self(batch[: count - start])[0] for start, batch in pairs])

    @torch.inference_mode()
    @matmul("float32")
    def __call__(self, images: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """(features [n, d], logits [n, classes]) in float32 of uint8 images."""
        found = [part.float().cpu().numpy() for part in self.network(images.to(self.device))]
        return found[0], found[-1]

    def manifolds(self, features: np.ndarray) -> dict[str, float]:
        """torch-fidelity's precision and recall of features [n, d]; those of the last features are kept."""
        from torch_fidelity.metric_prc import prc_features_to_metric

        if self._last is None or self._last[0] is not features:
            pair = torch.from_numpy(features), torch.from_numpy(self.real_features)
            self._last = features, prc_features_to_metric(*pair, verbose=False)
        return self._last[1]


@contextmanager
def reading(name: str, given: Path | None) -> Iterator[None]:
    """The errors of reading a file of weights: a ValueError of one that is given, MetricUnavailable of another."""
    try:
        yield
    except (OSError, ValueError) as error:
        told = str(error)
        if isinstance(error, OSError) and error.strerror:
            told = f"{error.filename} cannot be read ({error.strerror})"
        if given:
            raise ValueError(told) from error
        there = name in published() and not isinstance(error, FileNotFoundError)
        again = f"; remove it and fetch it again, {published()[name].url}" if there else ""
        raise MetricUnavailable(f"{told}{again}. Going on with the other metrics.") from None


def open_network(name: str, device: torch.device, weights: Path | None = None) -> Extractor:
    """The extractor of that name, without a reference set.

    Args:
        weights: file of its weights; looked for where it belongs if None.

    Raises:
        MetricUnavailable: if its weights are not on this machine.
        ValueError: for an unknown extractor, or a file that holds no weights of it.
    """
    layers = list(dict.fromkeys(layer_for(name, metric) for metric in ("fid", "isc")))
    with reading(name, weights):
        file = weights_file(name, weights)
        network = extractor_named(name, layers, device, file)
    return Extractor(name, network, device, unpublished(name, file) if file else "", classifies=len(layers) > 1)


def open_extractor(
    name: str, device: torch.device, weights: Path | None = None, reference: ReferenceSet | None = None
) -> Extractor:
    """The extractor of that name with a reference set, by default that of the exact models; see `open_network`."""
    return open_network(name, device, weights).against(reference or of_data(data_of_exact(name)))
