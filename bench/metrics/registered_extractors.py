"""The extractors themselves: ours, registered with torch-fidelity beside its own.

Importing this module registers them, so they can be named wherever torch-fidelity takes a `feature_extractor`; it takes
seconds, and everything else asks for it through `bench.metrics.extractors`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_fidelity import FeatureExtractorBase, register_feature_extractor
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

from fastsample.bench.metrics.clip_and_dinov2 import READ_HERE
from fastsample.bench.metrics.extractor_weights import EFFICIENTNET, EMBEDDED, efficientnet_weights, refusal
from fastsample.bench.metrics.inception_spatial import SpatialInceptionExtractor
from fastsample.models.checkpoints import load_model
from fastsample.models.networks.efficientnet_lite import EfficientNetLite0
from fastsample.models.public.readers import read_weights

__all__ = ["READ_HERE", "REGISTRY", "CifarResNetExtractor", "ClassifierExtractor", "EfficientNetLite0Extractor",
           "SpatialInceptionExtractor"]  # fmt: skip


class ClassifierExtractor(FeatureExtractorBase):  # type: ignore[misc]
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


class CifarResNetExtractor(ClassifierExtractor):
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


class EfficientNetLite0Extractor(ClassifierExtractor):
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

REGISTRY: dict[str, type[FeatureExtractorBase]] = FEATURE_EXTRACTORS_REGISTRY
