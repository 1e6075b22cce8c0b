"""Feature extractors: ours, registered with torch-fidelity beside its own, and statistics made with any of them.

`cifar10-resnet` comes with the package and needs no download. Importing this module registers it, so it can be
named wherever torch-fidelity takes a `feature_extractor`; a distance under it is `fd[cifar10-resnet]`.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor
from torch_fidelity import FeatureExtractorBase, register_feature_extractor
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY
from torch_fidelity.utils import create_feature_extractor

from fastsample.datasets.images import ImageDataset
from fastsample.datasets.reference import FeatureMoments, ReferenceStats
from fastsample.models.checkpoints import load_model

__all__ = ["CifarResNetExtractor", "compute_reference", "extractor_named", "layer_for", "weights_sha256"]


class CifarResNetExtractor(FeatureExtractorBase):  # type: ignore[misc]
    """The embedded classifier `cifar10-resnet`.

    Features: "features" [batch, d], the pooled last layer, non-negative; "logits" [batch, 10]. Both float32.

    Args:
        name: as registered.
        features_list: which features `forward` returns, in this order.
        feature_extractor_weights_path: another checkpoint of the same class; None for the embedded one.
    """

    def __init__(
        self, name: str, features_list: list[str], feature_extractor_weights_path: str | None = None, **_: Any
    ) -> None:
        super().__init__(name, features_list)
        self.network = load_model(feature_extractor_weights_path or "cifar10-resnet")[0]

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return ("features", "logits")

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return "logits" if metric == "isc" else "features"

    @staticmethod
    def can_be_compiled() -> bool:
        return True

    @staticmethod
    def get_dummy_input_for_compile() -> Tensor:
        return torch.zeros(1, 3, 32, 32, dtype=torch.uint8)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The requested features of images uint8 [batch, 3, 32, 32]."""
        provided = dict(zip(self.get_provided_features_list(), self.network(images), strict=True))
        return tuple(provided[name] for name in self.features_list)


register_feature_extractor("cifar10-resnet", CifarResNetExtractor)


def extractor_named(
    name: str, layers: list[str], device: str | torch.device = "cpu", weights: str | None = None
) -> FeatureExtractorBase:
    """torch-fidelity's or our extractor of that name, in eval mode, returning a tuple of `layers`.

    `weights` is the file of its weights, where it is not the default one.
    """
    extractor = create_feature_extractor(
        name, layers, cuda=False, verbose=False, feature_extractor_weights_path=weights
    )
    return extractor.to(device)


def weights_sha256(module: torch.nn.Module) -> str:
    """Hash of all parameters and buffers, names included: two extractors agree when theirs do."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def compute_reference(
    dataset: ImageDataset,
    extractor: str,
    *,
    device: str | torch.device = "cpu",
    batch: int = 500,
    weights: str | None = None,
) -> ReferenceStats:
    """Mean and covariance of the extractor's Frechet-distance features over the whole data set."""
    layer = layer_for(extractor, "fid")
    network = extractor_named(extractor, [layer], device, weights)
    moments: FeatureMoments | None = None
    for images in dataset.images.split(batch):
        features = network(images.to(device))[0].double().cpu().numpy()
        if moments is None:
            moments = FeatureMoments(features.shape[1], shift=features.mean(axis=0))
        moments.add(features)
    if moments is None:
        raise ValueError(f"{dataset.name} {dataset.split} is empty")
    mu, sigma = moments.moments()
    return ReferenceStats(mu, sigma, moments.n, extractor, weights_sha256(network), dataset.name, dataset.split)


def layer_for(extractor: str, metric: str) -> str:
    """The layer that torch-fidelity takes for a metric (`fid`, `kid`, `isc`, `prc`).

    Raises:
        ValueError: for an unknown extractor.
    """
    if extractor not in FEATURE_EXTRACTORS_REGISTRY:
        known = ", ".join(sorted(FEATURE_EXTRACTORS_REGISTRY))
        raise ValueError(f"unknown feature extractor {extractor!r}; known: {known}")
    return str(FEATURE_EXTRACTORS_REGISTRY[extractor].get_default_feature_layer_for_metric(metric))
