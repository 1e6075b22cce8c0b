"""A small plain convolutional classifier: cheap features for perceptual losses and distances between tiny images."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ConvClassifier"]


class ConvClassifier(nn.Module):
    """3x3 convolutions with ReLU, 2x2 average pooling between them, a feature layer, a linear layer.

    Args:
        img_resolution: side of the square images in pixels.
        in_channels: colour channels.
        widths: of the convolutions.
        features: of the feature layer.
        num_classes: outputs of the linear layer.
    """

    def __init__(
        self,
        img_resolution: int = 32,
        in_channels: int = 3,
        widths: Sequence[int] = (32, 64, 128),
        features: int = 64,
        num_classes: int = 10,
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1) for a, b in zip((in_channels, *widths), widths, strict=False)
        )
        side = img_resolution >> (len(widths) - 1)
        self.feature = nn.Linear(widths[-1] * side * side, features)
        self.head = nn.Linear(features, num_classes)

    def maps(self, x: Tensor) -> list[Tensor]:
        """What each convolution sees in images in [-1, 1], [batch, in_channels, R, R]; differentiable."""
        found: list[Tensor] = []
        for index, conv in enumerate(self.convs):
            x = F.relu(conv(F.avg_pool2d(x, 2) if index else x))
            found.append(x)
        return found

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(features [batch, features], logits [batch, num_classes]) of images uint8 [batch, in_channels, R, R]."""
        last = self.maps(images.float() / 127.5 - 1)[-1]
        features = F.relu(self.feature(last.flatten(1)))
        return features, self.head(features)
