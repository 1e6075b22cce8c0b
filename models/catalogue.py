"""Models by name: embedded checkpoints, checkpoint files, and exact analytic models."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

import torch

from fastsample.models.analytic import image_mixture, ring_mixture
from fastsample.models.checkpoints import CheckpointError, DenoiserMetadata, embedded_models, load_model
from fastsample.models.denoiser import Denoiser, NetworkDenoiser
from fastsample.models.path import LinearFlow, Path, VPLinear, path_named

__all__ = ["Model", "model_names", "open_model"]


@dataclass(frozen=True)
class Model:
    """A model ready to be sampled.

    Attributes:
        id: its name.
        title: one line for people.
        sha256: of its weights; "" where it has none.
        path: the path it was trained on.
        shape: of one sample, such as (3, 32, 32).
        data: the data set it models, or "analytic".
        num_classes: class labels it is conditioned on; 0 if none.
        network: its network in float32, or None for analytic models.
        make: makes a denoiser from (network, labels, guidance, autocast).
    """

    id: str
    title: str
    sha256: str
    path: Path
    shape: tuple[int, ...]
    data: str
    num_classes: int
    network: torch.nn.Module | None
    make: Callable[[torch.nn.Module | None, torch.Tensor | None, float, torch.dtype | None], Denoiser]


_ANALYTIC: dict[str, tuple[str, Callable[[], Denoiser], tuple[int, ...]]] = {
    "gmm2d": ("exact mixture of 8 Gaussians in the plane, VP-linear", lambda: ring_mixture(VPLinear()), (2,)),
    "gmm2d-flow": ("exact mixture of 8 Gaussians in the plane, CondOT", lambda: ring_mixture(LinearFlow()), (2,)),
    "gmm-image": (
        "exact mixture of 8 smooth images 3x32x32, VP-linear",
        lambda: image_mixture(VPLinear()),
        (3, 32, 32),
    ),
}


def model_names() -> dict[str, str]:
    """Every named model with its title."""
    embedded = {name: entry["title"] for name, entry in embedded_models().items() if entry["kind"] == "denoiser"}
    return embedded | {name: title for name, (title, _, _) in _ANALYTIC.items()}


def open_model(name: str) -> Model:
    """The model of that name, or the checkpoint in that .safetensors file.

    Raises:
        ValueError: for an unknown name (the message offers the nearest), or a damaged checkpoint.
    """
    if name in _ANALYTIC:
        title, make, shape = _ANALYTIC[name]
        return Model(name, title, "", make().path, shape, "analytic", 0, None, lambda *_: make())
    known = model_names()
    if name not in known and not name.endswith(".safetensors"):
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known)}."
        raise ValueError(f"unknown model {name!r}; {hint} (A checkpoint file ends in .safetensors.)")
    network, facts, sha256 = load_model(name)
    if not isinstance(facts, DenoiserMetadata):
        raise CheckpointError(f"{name} holds a {facts.kind}, which cannot be sampled")
    path = path_named(facts.path)

    def make_denoiser(
        module: torch.nn.Module | None, labels: torch.Tensor | None, guidance: float, autocast: torch.dtype | None
    ) -> Denoiser:
        assert module is not None
        return NetworkDenoiser(
            module, path, facts.prediction, time_scale=facts.time_scale, labels=labels, guidance=guidance,
            null_labels=None if labels is None else torch.zeros_like(labels), autocast=autocast,
        )  # fmt: skip

    return Model(
        facts.id, facts.title, sha256, path, facts.image_shape, facts.data, facts.num_classes, network, make_denoiser
    )
