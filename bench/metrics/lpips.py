"""LPIPS v0.1 (arXiv 1801.03924) on VGG-16 as torch-fidelity has it, and in its form on the embedded classifier.

torch-fidelity fetches the two files and opens them as pickles that may run anything; here they are read by
`models.public.readers`, from torch's hub cache or where `--extractor-weights` says, and nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch_fidelity.sample_similarity_base import SampleSimilarityBase
from torch_fidelity.sample_similarity_lpips import (
    NetLinLayer,
    SampleSimilarityLPIPS,
    VGG16features,
    normalize_tensor,
)

from fastsample.bench.metrics.extractor_weights import LPIPS, TRUNK, weights_file
from fastsample.bench.metrics.extractors import unpublished, weights_sha256
from fastsample.bench.metrics.features import Extractor, reading
from fastsample.models.training.perceptual import TAPS, FeatureDistance, lpips_heads, vgg16_features

__all__ = ["Perceptual", "lpips_of", "lpips_on_vgg16"]


@dataclass(frozen=True)
class Perceptual:
    """A perceptual distance.

    Attributes:
        identity: its network, with digits of other weights than the published ones.
        sha256: of its weights.
        distance: [n] of two batches of images [n, 3, H, W] in [-1, 1], float32.
        features: [n, m] of a batch of them; the square distance of two is `distance`.
    """

    identity: str
    sha256: str
    distance: Callable[[Tensor, Tensor], Tensor]
    features: Callable[[Tensor], Tensor]


class _Slices(VGG16features):  # type: ignore[misc]
    """torch-fidelity's cut of VGG-16 behind the activations that LPIPS looks at."""

    def __init__(self, layers: nn.Sequential) -> None:
        nn.Module.__init__(self)
        for number, (first, end) in enumerate(pairwise((0, *(tap + 1 for tap in TAPS))), 1):
            setattr(self, f"slice{number}", layers[first:end])


class _Lpips(SampleSimilarityLPIPS):  # type: ignore[misc]
    """torch-fidelity's LPIPS of images with levels from 0 to 255, at their own size."""

    def __init__(self, layers: nn.Sequential, heads: list[Tensor]) -> None:
        SampleSimilarityBase.__init__(self, LPIPS)
        self.sample_similarity_resize = self.sample_similarity_dtype = None
        self.net, self.L = _Slices(layers), len(heads)
        lins = [NetLinLayer(head.shape[1]) for head in heads]
        for lin, head in zip(lins, heads, strict=True):
            lin.model[0].weight.data = head
        self.lins = nn.ModuleList(lins)
        self.requires_grad_(False).eval()

    def features(self, images: Tensor) -> Tensor:
        """[n, m] of images [n, 3, H, W] with levels from 0 to 255: the square distance of two is LPIPS."""
        parts = []
        for maps, lin in zip(self.net(self.normalize(images)), self.lins, strict=True):
            (weight,) = lin.parameters()  # [1, channels, 1, 1]
            weight = weight[0].clamp(min=0) / maps[0, 0].numel()
            parts.append((normalize_tensor(maps) * weight.sqrt()).flatten(1))
        return torch.cat(parts, 1)


def lpips_on_vgg16(given: Mapping[str, Path], device: torch.device) -> Perceptual:
    """LPIPS itself.

    Args:
        given: files of weights by name, LPIPS's own and VGG-16's; of others they are looked for in torch's hub cache.

    Raises:
        MetricUnavailable: if a file is not on this machine.
        ValueError: for a given file that is not there, or holds something else.
    """
    (layers, other_trunk), (heads, other_heads) = (
        _read(name, given.get(name), read) for name, read in ((TRUNK, vgg16_features), (LPIPS, lpips_heads))
    )
    network = _Lpips(layers, heads).to(device)
    sha256 = weights_sha256(network)
    identity = f"{LPIPS}:{sha256[:8]}" if other_trunk or other_heads else LPIPS
    return Perceptual(
        identity,
        sha256,
        lambda a, b: network((a + 1) * 127.5, (b + 1) * 127.5),
        lambda images: network.features((images + 1) * 127.5),
    )


def _read(name: str, given: Path | None, read: Callable[[Path], Any]) -> tuple[Any, str]:
    """(what is in a file, the digits of one that is not the published one)."""
    with reading(name, given):
        file = weights_file(name, given)
        assert file
        return read(file), unpublished(name, file)


def lpips_of(extractor: Extractor) -> Perceptual:
    """The form of LPIPS, without its learned weights, in the maps of the embedded classifier."""
    classifier: nn.Module = extractor.network.network  # type: ignore[assignment]
    distance = FeatureDistance(classifier)
    return Perceptual(extractor.identity, extractor.sha256, distance, distance.features)
