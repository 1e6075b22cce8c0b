"""The spatial features of Inception-v3 that sFID (arXiv 2103.03841) compares, as guided diffusion has them.

Its evaluator reads `mixed_6/conv:0` of TensorFlow's graph and keeps seven channels. In that graph the node that bears
the name of a convolution is its last, behind batch norm: the ReLU. The weights of `mixed_6/conv` are those of
torch-fidelity's `Mixed_6d.branch1x1`.
"""

from __future__ import annotations

from torch import Tensor
from torch_fidelity import register_feature_extractor
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from fastsample.bench.metrics.extractor_weights import SPATIAL

__all__ = ["SpatialInceptionExtractor"]

_CHANNELS = 7


class SpatialInceptionExtractor(FeatureExtractorInceptionV3):  # type: ignore[misc]
    """torch-fidelity's Inception-v3 up to `mixed_6/conv`: 2023 features, 17x17 places of seven channels."""

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return ("spatial",)

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return "spatial"

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """([n, 2023],) float32 of images uint8 [n, 3, H, W]; the channels of a place lie together, as in TensorFlow."""
        side = (self.INPUT_IMAGE_SIZE,) * 2
        x = (interpolate_bilinear_2d_like_tensorflow1x(images.float(), side, align_corners=False) - 128) / 128
        for name, layer in self.named_children():
            if name == "Mixed_6d":
                return (layer.branch1x1(x)[:, :_CHANNELS].permute(0, 2, 3, 1).flatten(1),)
            x = layer(x)
        raise AssertionError("torch-fidelity's Inception-v3 has a Mixed_6d")


register_feature_extractor(SPATIAL, SpatialInceptionExtractor)
