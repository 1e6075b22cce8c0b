"""Models by name: embedded checkpoints, checkpoint files, exact analytic models, and public checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path as FilePath

import torch
from rich.console import Console

from fastsample.datasets.home import data_home
from fastsample.datasets.names import nearest
from fastsample.models.analytic import image_mixture, ring_mixture
from fastsample.models.checkpoints import CheckpointError, DenoiserMetadata, embedded_models, load_model
from fastsample.models.denoiser import Denoiser, NetworkDenoiser
from fastsample.models.path import LinearFlow, Path, VPLinear
from fastsample.models.public import Card, card_named, cards
from fastsample.models.public_model import public_model

__all__ = ["Model", "model_names", "open_model"]


@dataclass(frozen=True)
class Model:
    """A model ready to be sampled.

    Attributes:
        id: its name.
        title: one line for people.
        sha256: of its weights, for public models of the published file; "" where it has none.
        path: the path it was trained on.
        shape: of one sample, such as (3, 32, 32); of the latent, for latent models.
        image_shape: of what `decode` makes of one sample.
        data: the data set it models, or "analytic".
        num_classes: class labels it is conditioned on; 0 if none.
        network: its network in float32, or None for analytic models.
        make: makes a denoiser from (network, class indices int64 [batch] or None, guidance, autocast).
        decode: makes images in [-1, 1] of samples; not clipped.
        conditions: a hash of what beside the weights decides the numbers; "" where nothing does.
        classifier: the classifier that guides it with each evaluation, its sha256 and the scale; "" where none does.
    """

    id: str
    title: str
    sha256: str
    path: Path
    shape: tuple[int, ...]
    image_shape: tuple[int, ...]
    data: str
    num_classes: int
    network: torch.nn.Module | None
    make: Callable[[torch.nn.Module | None, torch.Tensor | None, float, torch.dtype | None], Denoiser]
    decode: Callable[[torch.Tensor], torch.Tensor] = lambda x: x
    conditions: str = ""
    classifier: str = ""


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
    """Every named model with its title: those that ship with the package first, then those to be fetched."""
    embedded = {name: entry["title"] for name, entry in embedded_models().items() if entry["kind"] == "denoiser"}
    public = {card.id: f"{card.title} (public, {card.size_mb:,.0f} MB)" for card in cards().values() if card.path}
    return embedded | {name: title for name, (title, _, _) in _ANALYTIC.items()} | public


def open_model(
    name: str,
    *,
    home: FilePath | None = None,
    console: Console | None = None,
    checkpoint: FilePath | None = None,
    classifier_scale: float = 0.0,
) -> Model:
    """The model of that name, of the checkpoint in that .safetensors file, or of the card in that .toml file.

    Args:
        name: as in `model_names`; FILE.safetensors; or FILE.toml or FILE.toml#ID, a public model's card of one's own.
        home: folder of what is downloaded; by default `data_home()`.
        console: where the licence and the progress of a download are shown.
        checkpoint: the published file of a public model, where it is there already.
        classifier_scale: of guidance by the classifier that a public model's card names; 0 for none.

    Raises:
        ValueError: for an unknown name (the message offers the nearest), a damaged checkpoint, or a public one that
            cannot be had, sampled or guided.
    """
    if name in cards() or name.partition("#")[0].endswith(".toml"):
        return _public(card_named(name), home or data_home(), console, checkpoint, classifier_scale)
    if checkpoint:
        raise ValueError(f"a checkpoint file can be given for public models, and {name} is none")
    if classifier_scale:
        raise ValueError(f"{name} has no classifier, which classifier guidance needs")
    if name in _ANALYTIC:
        title, make, shape = _ANALYTIC[name]
        return Model(name, title, "", make().path, shape, shape, "analytic", 0, None, lambda *_: make())
    known = model_names()
    if name not in known and not name.endswith(".safetensors"):
        told = nearest(name, known, "model", "`fastsample list models` shows all.")
        raise ValueError(f"{told} (A checkpoint file ends in .safetensors, a card in .toml.)")
    network, facts, sha256 = load_model(name)
    if not isinstance(facts, DenoiserMetadata):
        raise CheckpointError(f"{name} holds a {facts.kind}, which cannot be sampled")
    convention = facts.convention

    def make_denoiser(
        module: torch.nn.Module | None, labels: torch.Tensor | None, guidance: float, autocast: torch.dtype | None
    ) -> Denoiser:
        assert module is not None
        one_hot = None if labels is None else torch.nn.functional.one_hot(labels, facts.num_classes).float()
        return NetworkDenoiser(
            module, convention, labels=one_hot, guidance=guidance,
            null_labels=None if one_hot is None else torch.zeros_like(one_hot), autocast=autocast,
        )  # fmt: skip

    return Model(
        facts.id, facts.title, sha256, convention.path, facts.image_shape, facts.image_shape, facts.data,
        facts.num_classes, network, make_denoiser,
    )  # fmt: skip


def _public(
    card: Card, home: FilePath, console: Console | None, checkpoint: FilePath | None, classifier_scale: float
) -> Model:
    found = public_model(card, home, console, checkpoint, classifier_scale)
    guide = f"{card.classifier} ({found.classifier_sha256}), scale {classifier_scale:g}" if classifier_scale else ""
    return Model(
        card.id, card.title, found.sha256, found.path, card.latent_shape or card.image_shape, card.image_shape,
        card.data,
        found.num_classes, found.network, found.denoiser, found.network.decode, found.conditions, guide,
    )  # fmt: skip
