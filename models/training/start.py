"""The weights that a run begins with: those of a model with the same convention."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from torch import Tensor

from fastsample.datasets.home import data_home
from fastsample.models.checkpoints import CheckpointError, DenoiserMetadata, load_checkpoint, model_file
from fastsample.models.convention import Convention
from fastsample.models.path import path_named
from fastsample.models.public.cards import card_named, cards
from fastsample.models.public.conversion import load_converted
from fastsample.models.public.fetch import fetch
from fastsample.models.training.recipe import Recipe

__all__ = ["starting_weights"]

_EDM = Convention(path_named("edm"), "edm-F")
# Of the network inside a preconditioned one, whose weights have the prefix `model.`.
_INSIDE: dict[str, Convention] = {
    "EDMPrecond": _EDM, "EDMPrecondVel": _EDM, "VPPrecond": Convention(path_named("vp-linear"), "eps", 999.0),
}  # fmt: skip


def starting_weights(recipe: Recipe, console: Console | None = None) -> Mapping[str, Tensor]:
    """The state dict of the model that a recipe starts from, for the recipe's network.

    Args:
        console: where the licence and the progress of a download are shown.

    Raises:
        CheckpointError: when that model predicts something else, or on another path or time, than the network is made
            for; shapes are compared when the run begins.
    """
    wrapped = recipe.network == "Velocity"
    prefix = "model." if wrapped else ""
    if recipe.start in cards() or recipe.start.partition("#")[0].endswith(".toml"):
        card = card_named(recipe.start)
        if card.path is None:
            raise CheckpointError(f"{recipe.start} returns {card.output}: {recipe.id} cannot start from it")
        _compare(recipe, (wrapped and _INSIDE.get(card.network.name)) or card.convention)
        tensors, _ = load_converted(fetch(card, data_home(), console))
    else:
        tensors, metadata = load_checkpoint(model_file(recipe.start))
        if not isinstance(metadata, DenoiserMetadata):
            raise CheckpointError(f"{recipe.start} holds a {metadata.kind}: {recipe.id} cannot start from it")
        inside = wrapped and metadata.network == "Velocity"
        _compare(recipe, Convention.read(metadata.network_args) if inside else metadata.convention)
    return {prefix + name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def _compare(recipe: Recipe, there: Convention) -> None:
    here = Convention.read(recipe.network_args) if recipe.network == "Velocity" else recipe.convention
    if here != there:
        differ = "; ".join(here.differences(there))
        raise CheckpointError(f"{recipe.id} cannot start from {recipe.start}: {differ}")
