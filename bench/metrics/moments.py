"""The moments of real images under an extractor: shipped, kept from before, or computed now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from fastsample.bench.metrics.extractors import moments_of
from fastsample.datasets.files import warn
from fastsample.datasets.home import data_home, keep
from fastsample.datasets.image_set import DatasetError, Images
from fastsample.datasets.images import dataset_named
from fastsample.datasets.moments import ReferenceError, ReferenceStats, shipped_reference

__all__ = ["Known", "MetricUnavailable", "Seen", "kept_moments", "moments_of_data", "no_images", "real_images"]


class MetricUnavailable(ValueError):  # noqa: N818 - it is a state of this machine, not a fault
    """Weights, statistics or real images that a metric needs are not on this machine, or there are none."""


class Seen(Protocol):
    """An extractor, as far as statistics depend on it."""

    name: str
    network: torch.nn.Module
    device: torch.device
    weights: str

    @property
    def sha256(self) -> str:
        """Hash of its weights."""


@dataclass(frozen=True)
class Known:
    """Moments of a reference set under one extractor, and how a row calls them."""

    mu: np.ndarray
    sigma: np.ndarray
    told: str


def no_images() -> Images:
    """For what has no real images."""
    raise MetricUnavailable("no reference set, or it has no other split")


def _known(stats: ReferenceStats) -> Known:
    return Known(stats.mu, stats.sigma, f"{stats.name} n={stats.n}")


def real_images(name: str, split: str) -> Images:
    """The images of a data set or of `folder:PATH`.

    Raises:
        MetricUnavailable: if they are not on this machine, or it has no such split.
    """
    try:
        return dataset_named(name, split)
    except DatasetError as error:
        raise MetricUnavailable(f"{error} Going on with the other metrics.") from None


def moments_of_data(name: str, seen: Seen) -> Known:
    """Shipped moments, else cached ones, else computed and cached; those of others, or damaged (said), do not count."""
    title, sha256 = f"{name}-train@{seen.name}", seen.sha256
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
            return _known(stats)
    try:
        images = real_images(name, "train")
    except MetricUnavailable as error:
        raise MetricUnavailable(f"{damaged}; to make it anew, {error}" if damaged else str(error)) from None
    if damaged:
        warn(f"{damaged}: it is made anew")
    return _made(cached, images, seen)


def _made(cached: Path, images: Images, seen: Seen) -> Known:
    stats = moments_of(images, seen.name, seen.network, seen.sha256, seen.device)
    stats = replace(stats, sigma=stats.sigma.astype(np.float32).astype(np.float64))  # as the file has it
    keep(cached, stats.save)
    return _known(stats)


def kept_moments(cached: Path, images: Callable[[], Images], seen: Seen) -> Known:
    """What was computed of these images before, or is computed now and kept."""
    try:
        return _known(ReferenceStats.load(cached))
    except ReferenceError:
        return _made(cached, images(), seen)
