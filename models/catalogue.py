"""Models by name: embedded checkpoints, checkpoint files, exact analytic models, and public checkpoints."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

import torch
from rich.console import Console

from fastsample.datasets.home import data_home
from fastsample.datasets.names import nearest
from fastsample.models.analytic import image_mixture, ring_mixture
from fastsample.models.checkpoints import (
    CheckpointError,
    DenoiserMetadata,
    embedded_models,
    load_checkpoint,
    load_model,
    model_file,
)
from fastsample.models.convention import Convention
from fastsample.models.denoiser import Denoiser, NetworkDenoiser
from fastsample.models.foreign.diffusers_files import PREFIX
from fastsample.models.foreign.diffusers_model import Pipeline, open_pipeline
from fastsample.models.path import LinearFlow, Path, VPLinear
from fastsample.models.public.cards import Card, card_named, cards
from fastsample.models.public.model import public_model

__all__ = ["Model", "model_names", "open_model", "shipped_path"]


@dataclass(frozen=True)
class Model:
    """A model ready to be sampled.

    Attributes:
        id: its name.
        title: one line for people.
        sha256: of its weights, for public models of the file they were in; "" where it has none.
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
        weights: of public models, whether they are the published ones, in words.
        reference: of public models, what their card names as the reference set of their data; "none" for none.
        guide: the model that guides it, with its hashes; its negative prompt, or embedded guidance; "" for none.
        guided_within: (low, high) noise-to-signal ratios between which guidance acts; None for no limit.
        prompts: of text-to-image models, which their labels stand for in turn.
        told: of diffusers pipelines, the same model with the prompts, negative prompt, embedded guidance, size and
            tiling of a protocol; see `Pipeline.told`.
        convention: of diffusers pipelines whose network any scheduler can call, what it takes and returns.
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
    weights: str = ""
    reference: str = ""
    guide: str = ""
    guided_within: tuple[float | None, float | None] = (None, None)
    prompts: tuple[str, ...] = ()
    told: Callable[..., Model] | None = None
    convention: Convention | None = None


_ANALYTIC: dict[str, tuple[str, Callable[[], Denoiser], tuple[int, ...]]] = {
    "gmm2d": ("exact mixture of 8 Gaussians in the plane, VP-linear", lambda: ring_mixture(VPLinear()), (2,)),
    "gmm2d-flow": ("exact mixture of 8 Gaussians in the plane, CondOT", lambda: ring_mixture(LinearFlow()), (2,)),
    "gmm2d-flow-mean": (
        "exact mixture of 8 Gaussians around (2, -1) in the plane, CondOT",
        lambda: ring_mixture(LinearFlow(), (2.0, -1.0)),
        (2,),
    ),
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


def shipped_path(name: str) -> Path | None:
    """The path of the model that ships with the package under that id; None for any other word.

    Of a public model nothing is needed but its card. No word makes this open a file outside of the package.
    """
    if card := cards().get(name.partition("@")[0]):  # with other weights than the published ones it has the same
        return card.path.build() if card.path else None
    if name in _ANALYTIC:
        return _ANALYTIC[name][1]().path
    if name not in embedded_models():
        return None
    _, facts = load_checkpoint(model_file(name))
    return facts.convention.path if isinstance(facts, DenoiserMetadata) else None


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
        name: as in `model_names`; FILE.safetensors; FILE.toml or FILE.toml#ID, a public model's card of one's own; or
            diffusers:FOLDER or diffusers:OWNER/NAME[@REVISION], a pipeline of diffusers here or on the hub.
            ID@DIGITS is a public model with other weights than the published ones, given once before.
        home: folder of what is downloaded; by default `data_home()`.
        console: where the licence and the progress of a download are shown.
        checkpoint: a file with the weights of a public model; if it is not the published one, the model has an id with
            the first digits of its hash.
        classifier_scale: of guidance by the classifier that a public model's card names; 0 for none.

    Raises:
        ValueError: for an unknown name (the message offers the nearest), a damaged checkpoint, or a public one that
            cannot be had, sampled or guided.
    """
    given = re.fullmatch(r"(.+)@([0-9a-f]{8})", name)
    card_name, digits = given.groups() if given else (name, "")
    if card_name in cards() or card_name.partition("#")[0].endswith(".toml"):
        card = card_named(card_name)
        if checkpoint and digits:
            raise ValueError(f"{name} names its weights already, which excludes a checkpoint file")
        if card.id in _ANALYTIC:
            raise CheckpointError(f"{card_name}: {card.id!r} is a model of the package; the card needs another id")
        return _public(card, home or data_home(), console, checkpoint, classifier_scale, digits)
    if name.startswith(PREFIX) and not (checkpoint or classifier_scale):
        return _piped(open_pipeline(name))
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

    # A checkpoint of one's own may carry the id of a model of the package, as one that was trained by its recipe.
    mine = facts.id not in known or sha256 == embedded_models().get(facts.id, {}).get("sha256")
    return Model(
        facts.id if mine else f"{facts.id}@{sha256[:8]}", facts.title, sha256, convention.path,
        facts.image_shape, facts.image_shape, facts.data, facts.num_classes, network, make_denoiser,
    )  # fmt: skip


def _public(
    card: Card,
    home: FilePath,
    console: Console | None,
    checkpoint: FilePath | None,
    classifier_scale: float,
    digits: str,
) -> Model:
    found = public_model(card, home, console, checkpoint, classifier_scale, digits)
    scale = str(classifier_scale).removesuffix(".0")  # all digits: it is a part of a cell's identity
    guide = f"{card.classifier} ({found.classifier_sha256}), scale {scale}" if classifier_scale else ""
    return Model(
        found.id, card.title, found.sha256, found.path, card.latent_shape or card.image_shape, card.image_shape,
        card.data, found.num_classes, found.network, found.denoiser, found.network.decode, found.conditions, guide,
        found.weights, card.reference or "none",
    )  # fmt: skip


def _piped(pipeline: Pipeline) -> Model:
    network, schedule, folder = pipeline.module(), pipeline.schedule, pipeline.folder

    def make(module: torch.nn.Module | None, labels: torch.Tensor | None, *rest: Any) -> Denoiser:
        if pipeline.prompts and network.texts:
            network.texts.prepare(guided=bool(rest[0]))
        return pipeline.denoiser(module or network, labels, *rest)

    plain = not schedule.score and not schedule.sigma_data
    return Model(
        folder.id, pipeline.title, folder.sha256, schedule.convention.path, pipeline.shape, pipeline.image_shape, "",
        pipeline.num_classes, network, make, network.decode, pipeline.conditions, guide=pipeline.guide,
        prompts=pipeline.prompts, told=lambda **said: _piped(pipeline.told(**said)),
        convention=schedule.convention if plain else None,
    )  # fmt: skip
