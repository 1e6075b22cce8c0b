"""What docs/frontier.toml names: a second encoder and a reference set, both of the package, so that nothing is fetched.

The encoder is the plain classifier `cifar10-conv`, the reference the 10,000 test images of `cifar10-jpeg`.
"""

from __future__ import annotations

from pathlib import Path

from torch import nn

from fastsample.datasets.image_set import Images
from fastsample.datasets.images import dataset_named
from fastsample.models.checkpoints import load_model

__all__ = ["conv", "held_out"]


def conv() -> nn.Module:
    """Features and logits of uint8 images [n, 3, 32, 32]."""
    return load_model("cifar10-conv")[0]


def held_out(split: str, path: Path | None) -> Images:
    """The test split, which ships with the package, under either name."""
    return dataset_named("cifar10-jpeg", "test")
