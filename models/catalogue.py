"""Models by name: embedded checkpoints, checkpoint files, exact analytic models, and public checkpoints."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path as FilePath
from typing import Any

import torch
from rich.console import Console

from fastsample.datasets.home import data_home
from fastsample.datasets.names import nearest
from fastsample.datasets.own.code import Code, code_named, is_code, offered
from fastsample.models.analytic import image_mixture, ring_mixture
from fastsample.models.checkpoints import (
    CheckpointError,
    DenoiserMetadata,
    embedded_models,
    load_checkpoint,
    load_model,
    model_file,
)
from fastsample.models.denoiser import Denoiser, NetworkDenoiser
from fastsample.models.foreign.diffusers_files import PREFIX
from fastsample.models.foreign.diffusers_model import Pipeline, open_pipeline
from fastsample.models.foreign.own import OwnModelError, check, own_model
from fastsample.models.held import Held
from fastsample.models.model import Model
from fastsample.models.path import LinearFlow, Path, VPLinear
from fastsample.models.public.cards import Card, card_named, cards
from fastsample.models.public.model import public_model

__all__ = ["Model", "analytic_models", "check_name", "model_names", "open_model", "shipped_path"]


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
    installed = {name: f"offered by {point.value}" for name, point in offered("models").items()}
    return embedded | {name: title for name, (title, _, _) in _ANALYTIC.items()} | public | installed


def analytic_models() -> dict[str, tuple[Path, tuple[int, ...]]]:
    """Path and shape of the exact models, by name."""
    return {name: (make().path, shape) for name, (_, make, shape) in _ANALYTIC.items()}


def check_name(name: str) -> None:
    """Raise ValueError, which offers the nearest, for a word that names no model; nothing is opened."""
    base = re.sub(r"@[0-9a-f]{8}$", "", name)  # of weights that are not the published ones
    file = base.partition("#")[0].endswith((".toml", ".safetensors"))
    if not (file or base.startswith(PREFIX) or is_code(base) or base in model_names() or base in cards()):
        told = nearest(name, model_names(), "model", "`fastsample list models` shows all.")
        raise ValueError(
            f"{told} (A checkpoint file ends in .safetensors, a card in .toml; FILE.py:NAME is a function, "
            f"{PREFIX}FOLDER a pipeline.)"
        )


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
    """The model of that name, a checkpoint in a .safetensors file, a card in a .toml one, or a function in a .py one.

    Args:
        name: as in `model_names`; FILE.safetensors; FILE.toml or FILE.toml#ID, a public model's card of one's own; or
            FILE.py:NAME or package.module:NAME, a function that returns an `OwnModel`, which is called.
            diffusers:FOLDER or diffusers:OWNER/NAME[@REVISION], a pipeline of diffusers here or on the hub.
            ID@DIGITS is a public model with other weights than the published ones, given once before.
        home: folder of what is downloaded; by default `data_home()`.
        console: where the licence and the progress of a download are shown.
        checkpoint: a file with the weights of a public model; if it is not the published one, the model has an id with
            the first digits of its hash.
        classifier_scale: of guidance by the classifier that a public model's card names; 0 for none.

    Raises:
        ValueError: for an unknown name (the message offers the nearest), a damaged checkpoint, or a public one that
            cannot be had, sampled or guided, or a network of one's own that is not what it is said to be.
    """
    check_name(name)
    model = _opened(name, home, console, checkpoint, classifier_scale)
    if model.held and not (is_code(name) or name.startswith(PREFIX)):  # a user's function may return another network
        model.held.again = partial(_again, _facts(model), name, home, checkpoint, classifier_scale)
    if name == model.id or not (is_code(name) or name.partition("#")[0].endswith((".toml", ".safetensors"))):
        return model
    digits = re.search(r"@[0-9a-f]{8}$", model.id) if ".toml" in name and checkpoint else None
    return replace(model, given=name + (digits[0] if digits else ""))


def _again(facts: tuple[str, ...], name: str, home: FilePath | None, *given: Any) -> torch.nn.Module:
    """The network of a model that was opened before with these facts."""
    model = _opened(name, home, None, *given)
    if _facts(model) != facts:
        raise CheckpointError(f"the files of {model.id} have changed since it was opened first")
    assert model.network is not None
    return model.network


def _facts(model: Model) -> tuple[str, ...]:
    return model.sha256, model.conditions, model.classifier


def _opened(
    name: str, home: FilePath | None, console: Console | None, checkpoint: FilePath | None, classifier_scale: float
) -> Model:
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
    if code := code_named(name, "models"):
        return _own(code)
    known = model_names()
    network, facts, sha256 = load_model(name)
    if not isinstance(facts, DenoiserMetadata):
        raise CheckpointError(f"{name} holds a {facts.kind}, which cannot be sampled")
    convention = facts.convention

    def make_denoiser(
        module: torch.nn.Module | None, labels: torch.Tensor | None, guidance: float, precision: str | None
    ) -> Denoiser:
        assert module is not None
        one_hot = None if labels is None else torch.nn.functional.one_hot(labels, facts.num_classes).float()
        return NetworkDenoiser(
            module, convention, labels=one_hot, guidance=guidance,
            null_labels=None if one_hot is None else torch.zeros_like(one_hot), precision=precision,
        )  # fmt: skip

    # A checkpoint of one's own may carry the id of a model of the package, as one that was trained by its recipe.
    mine = facts.id not in known or sha256 == embedded_models().get(facts.id, {}).get("sha256")
    return Model(
        facts.id if mine else f"{facts.id}@{sha256[:8]}", facts.title, sha256, convention.path,
        facts.image_shape, facts.image_shape, facts.data, facts.num_classes, Held(network), make_denoiser,
    )  # fmt: skip


def _public(
    card: Card,
    home: FilePath,
    console: Console | None,
    checkpoint: FilePath | None,
    classifier_scale: float,
    digits: str,
) -> Model:
    found, network = public_model(card, home, console, checkpoint, classifier_scale, digits)
    held = Held(network)

    def decode(x: torch.Tensor) -> torch.Tensor:
        return held.network.decode(x)  # type: ignore[operator, no-any-return]

    scale = str(classifier_scale).removesuffix(".0")  # all digits: it is a part of a cell's identity
    guide = f"{card.classifier} ({found.classifier_sha256}), scale {scale}" if classifier_scale else ""
    return Model(
        found.id, card.title, found.sha256, found.path, card.latent_shape or card.image_shape, card.image_shape,
        card.data, found.num_classes, held, found.denoiser, decode, found.conditions, guide,
        found.weights, card.reference or "none",
    )  # fmt: skip


def _own(code: Code) -> Model:
    own, network = own_model(code)
    try:
        image_shape = check(own, network)
    except OwnModelError as error:
        raise OwnModelError(f"{code.name}: {error}") from error
    convention = own.convention
    facts = hashlib.sha256(f"{code.told} {convention!r} {own.labels} {own.null}".encode()).hexdigest()[:12]

    def make_denoiser(
        module: torch.nn.Module | None, labels: torch.Tensor | None, guidance: float, precision: str | None
    ) -> Denoiser:
        return network.denoiser(own, convention, module, labels, guidance, precision)

    return Model(
        own.name or code.name, own.title or f"returned by {code.name}", network.weights_sha256, convention.path,
        own.shape, image_shape, own.data, own.classes, Held(network), make_denoiser, network.decode, facts,
        weights=f"returned by {code.told}",
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
        pipeline.num_classes, Held(network), make, network.decode, pipeline.conditions, guide=pipeline.guide,
        prompts=pipeline.prompts, told=lambda **said: _piped(pipeline.told(**said)),
        convention=schedule.convention if plain else None,
    )  # fmt: skip
