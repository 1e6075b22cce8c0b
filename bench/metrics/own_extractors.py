"""Feature extractors of one's own: `fd[FILE.py:NAME]`, or the name under which an installed package offers one.

A function that returns a network, or any function, of images uint8 [n, 3, H, W]; that returns features [n, d], or
(features, logits).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch_fidelity import register_feature_extractor
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

from fastsample.bench.metrics.registered_extractors import ClassifierExtractor
from fastsample.datasets.own.code import Code, code_named, fault, is_code, offered

__all__ = ["OwnExtractorError", "add_own_extractors"]


class OwnExtractorError(ValueError):
    """A function that returns no feature extractor."""


class _Own(ClassifierExtractor):
    """Features of a user's network; its state holds the hash of the file, by which statistics of another one differ."""

    code: Code

    def __init__(self, name: str, features_list: list[str], **_: Any) -> None:
        try:
            network = self.code.value()
        except Exception as error:  # of a user's code
            raise OwnExtractorError(f"{name} fails: {fault(error)}") from error
        if not callable(network):
            raise OwnExtractorError(f"{name} returns {type(network).__name__}, not a network or a function of images")
        network = network.float().eval() if isinstance(network, nn.Module) else network
        super().__init__(name, features_list, network)
        self.register_buffer("told", torch.tensor(list(self.code.told.encode()), dtype=torch.uint8))

    @staticmethod
    def can_be_compiled() -> bool:
        return False

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        try:
            found = self.network(images)
        except Exception as error:  # of a user's code
            raise OwnExtractorError(f"{self.name} fails on images {tuple(images.shape)}: {fault(error)}") from error
        features, logits = found if isinstance(found, tuple) else (found, found)
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(images):
            shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise OwnExtractorError(f"{self.name} returns {shape} for {len(images)} images, not [n, d]")
        provided = {"features": features, "logits": logits}
        return tuple(provided[name] for name in self.features_list)


def add_own_extractors(metrics: Iterable[str]) -> None:
    """Register, with torch-fidelity, the extractors in brackets that are one's own.

    Raises:
        ValueError: for Python that cannot be had.
    """
    for name in re.findall(r"\[(.+?)\]", " ".join(metrics)):
        known = FEATURE_EXTRACTORS_REGISTRY.get(name)
        if is_code(name) or (name in offered("extractors") and known is None):
            code = code_named(name, "extractors")
            assert code
            if known is None:
                register_feature_extractor(name, type("Own", (_Own,), {"code": code}))
            else:
                known.code = code
