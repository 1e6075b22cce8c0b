"""Perceptual distances for training, in the form of LPIPS (arXiv 1801.03924): differences of unit-length features."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fastsample.models.checkpoints import ClassifierMetadata, load_model

__all__ = ["FeatureDistance", "perceptual_named"]

_EPS = 1e-10


class FeatureDistance(nn.Module):
    """Sum over the layers of a classifier of |f(a) - f(b)|^2, f of unit length over its channels, averaged over pixels.

    LPIPS without its learned weights per channel, on other features than VGG's: a substitute that needs no download.

    Args:
        classifier: with a method `maps`.
    """

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier.eval().requires_grad_(False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """[n] of images [n, channels, R, R] in [-1, 1]; differentiable in both."""
        total = a.new_zeros(len(a))
        for f, g in zip(self.classifier.maps(a), self.classifier.maps(b), strict=True):  # type: ignore[operator]
            total = total + (_unit(f) - _unit(g)).square().sum(1).mean((1, 2))
        return total


class _Lpips(nn.Module):
    """LPIPS of torch-fidelity as rfpp uses it: VGG-16 at 224x224 with average pooling in place of max pooling."""

    def __init__(self) -> None:
        super().__init__()
        from torch_fidelity.sample_similarity_lpips import SampleSimilarityLPIPS

        with _only_weights():
            self.lpips = SampleSimilarityLPIPS("lpips-vgg16", sample_similarity_resize=224)
        for stage in self.lpips.net.children():
            for name, layer in stage.named_children():
                if isinstance(layer, nn.MaxPool2d):
                    setattr(stage, name, nn.AvgPool2d(2))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """[n] of images [n, 3, R, R] in [-1, 1], which are not clamped."""
        distance: Tensor = self.lpips(127.5 * (a + 1), 127.5 * (b + 1))
        return distance.reshape(-1)


def perceptual_named(name: str, device: str | torch.device = "cpu") -> nn.Module:
    """The distance of that name: "lpips", whose weights are downloaded once, or the id or file of a classifier.

    Raises:
        ValueError: for a model that is no classifier, or is not there.
    """
    if name == "lpips":
        return _Lpips().to(device)
    network, metadata, _ = load_model(name, device)
    if not isinstance(metadata, ClassifierMetadata):
        raise ValueError(f"perceptual {name}: it holds a {metadata.kind}, and features need a classifier")
    return FeatureDistance(network)


def _unit(f: Tensor) -> Tensor:
    return f / (f.square().sum(1, keepdim=True) + _EPS).sqrt()


@contextmanager
def _only_weights() -> Iterator[None]:
    """torch.load inside refuses everything but tensors, also where a library asks for pickles."""
    before = os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    try:
        yield
    finally:
        del os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"]
        if before is not None:
            os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = before
