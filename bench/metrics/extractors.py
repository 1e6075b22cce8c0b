"""Feature extractors by name, torch-fidelity's and ours, and statistics made with any of them.

`cifar10-resnet` comes with the package and needs no download; `efficientnet-lite0`, trained on ImageNet, has its
weights in a package of its own. A distance under one is `fd[cifar10-resnet]` or `fd[efficientnet-lite0]`.

torch-fidelity opens files of weights as pickles that may run anything, and fetches what it does not find: here those of
its extractors are read by `models.public.readers` first, and nothing is fetched.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import torch

from fastsample.bench.metrics.extractor_weights import (
    EFFICIENTNET,
    EFFICIENTNET_SHA256,
    EMBEDDED,
    INCEPTION,
    efficientnet_weights,
    published,
    refusal,
    weights_file,
)
from fastsample.datasets.home import sha256_of
from fastsample.datasets.image_set import Images
from fastsample.datasets.moments import FeatureMoments, ReferenceStats
from fastsample.models.precision import matmul
from fastsample.models.public.readers import read_weights

if TYPE_CHECKING:
    from torch_fidelity import FeatureExtractorBase

__all__ = [
    "EFFICIENTNET",
    "EMBEDDED",
    "INCEPTION",
    "compute_reference",
    "efficientnet_weights",
    "extractor_named",
    "known_extractors",
    "layer_for",
    "moments_of",
    "refusal",
    "unpublished",
    "weights_sha256",
]


def _registry() -> ModuleType:
    """The module of the extractors, which takes seconds to import: only a metric that needs one is to wait for it."""
    from fastsample.bench.metrics import registered_extractors

    return registered_extractors


def unpublished(name: str, file: Path) -> str:
    """The first eight digits of the sha256 of a file of an extractor's weights; "" for the published one.

    Only a distance in the features of the published weights is a FID.
    """
    known = {name: file.sha256 for name, file in published().items()} | {EFFICIENTNET: EFFICIENTNET_SHA256}
    sha256, whole = sha256_of(file), known.get(name)
    return "" if whole and sha256.startswith(whole) else sha256[:8]


def extractor_named(
    name: str, layers: list[str], device: str | torch.device = "cpu", weights: Path | None = None
) -> FeatureExtractorBase:
    """The extractor of that name, in eval mode, returning a tuple of `layers`.

    `weights` is the file of its weights, where it is not the default one.

    Raises:
        FileNotFoundError: if the weights are not on this machine.
        ValueError: for another extractor, or a file that is damaged, does what no weights do or does not fit.
    """
    layer_for(name, "fid")
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    from torch_fidelity.feature_extractor_vgg16 import FeatureExtractorVGG16

    kind, file = _registry().REGISTRY[name], weights_file(name, weights)
    source: str | io.BytesIO | None = None if file is None else str(file)
    if kind in (FeatureExtractorInceptionV3, _registry().SpatialInceptionExtractor, FeatureExtractorVGG16):
        # torch-fidelity loads what it is given with all its code, so it is given what was read and written here.
        source = io.BytesIO()
        torch.save(read_weights(str(file), "state-dict").tensors, source)
        source.seek(0)
    try:
        extractor = _registry().READ_HERE.get(kind, kind)(name, layers, feature_extractor_weights_path=source)
    except RuntimeError as error:  # of load_state_dict, with a line for each key
        raise ValueError(
            f"{file or 'the file of weights'} does not fit {name}: {' '.join(str(error).split())[:300]}"
        ) from error
    return extractor.requires_grad_(False).eval().to(device)


def weights_sha256(module: torch.nn.Module) -> str:
    """Hash of all parameters and buffers, names included: two extractors agree when theirs do."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def compute_reference(
    dataset: Images,
    extractor: str,
    *,
    device: str | torch.device = "cpu",
    batch: int = 500,
    weights: Path | None = None,
) -> ReferenceStats:
    """Mean and covariance of the extractor's Frechet-distance features over the whole data set."""
    network = extractor_named(extractor, [layer_for(extractor, "fid")], device, weights)
    return moments_of(dataset, extractor, network, weights_sha256(network), device, batch)


@torch.no_grad()
@matmul("float32")
def moments_of(
    dataset: Images,
    extractor: str,
    network: torch.nn.Module,
    sha256: str,
    device: str | torch.device = "cpu",
    batch: int = 500,
) -> ReferenceStats:
    """The same with a network, and the hash of its weights, whose first output are the features."""
    moments: FeatureMoments | None = None
    for images in dataset.batches(batch):
        features = network(images.to(device))[0].double().cpu().numpy()
        if moments is None:
            moments = FeatureMoments(features.shape[1], shift=features.mean(axis=0))
        moments.add(features)
    if moments is None or moments.n < 2:
        raise ValueError(f"{dataset.name} {dataset.split}: {len(dataset)} images have no covariance")
    mu, sigma = moments.moments()
    return ReferenceStats(mu, sigma, moments.n, extractor, sha256, dataset.name, dataset.split)


def known_extractors() -> list[str]:
    """Names of those that are registered with torch-fidelity, ours first."""
    return sorted(_registry().REGISTRY, key=(EMBEDDED, EFFICIENTNET).__contains__, reverse=True)


def layer_for(extractor: str, metric: str) -> str:
    """The layer that torch-fidelity takes for a metric (`fid`, `kid`, `isc`, `prc`).

    Raises:
        ValueError: for an unknown extractor.
    """
    if extractor not in known_extractors():
        raise ValueError(f"unknown feature extractor {extractor!r}; known: {', '.join(known_extractors())}")
    return str(_registry().REGISTRY[extractor].get_default_feature_layer_for_metric(metric))
