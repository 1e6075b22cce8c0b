"""What there is to say about each model that has a name, for lists; nothing is fetched."""

from __future__ import annotations

from dataclasses import dataclass

from fastsample.models.catalogue import analytic_models, model_names
from fastsample.models.checkpoints import DenoiserMetadata, embedded_models, load_checkpoint, model_file
from fastsample.models.path import Path
from fastsample.models.public.cards import Card, cards

__all__ = ["ModelFacts", "model_facts"]


@dataclass(frozen=True)
class ModelFacts:
    """A model in words, "" for what is not known.

    Attributes:
        name, title: its id, and what it is.
        path: of noise, by the name that cards call it.
        shape: of an image, as 3x32x32.
        data: the data set that it was trained on.
        fid: the lowest that is reported, a label and no target.
        size: of its file, in MB.
        licence: of its weights.
    """

    name: str
    title: str
    path: str = ""
    shape: str = ""
    data: str = ""
    fid: str = ""
    size: str = ""
    licence: str = ""


def model_facts() -> list[ModelFacts]:
    """Every named model, in the order of `model_names`."""
    public, exact = cards(), analytic_models()
    return [_facts(name, title, public, exact) for name, title in model_names().items()]


def _facts(
    name: str, title: str, public: dict[str, Card], exact: dict[str, tuple[Path, tuple[int, ...]]]
) -> ModelFacts:
    if name in embedded_models():
        return _embedded(name, title)
    if name in public:
        return _public(public[name], title)
    if name in exact:
        path, shape = exact[name]
        return ModelFacts(name, title, path.name, _times(shape), "exact", size="0")
    return ModelFacts(name, title)


def _embedded(name: str, title: str) -> ModelFacts:
    _, facts = load_checkpoint(model_file(name))
    assert isinstance(facts, DenoiserMetadata)
    size = model_file(name).stat().st_size / 1e6
    return ModelFacts(
        name, title, facts.path, _times(facts.image_shape), _data(facts), "", f"{size:,.1f}", "Apache-2.0"
    )


def _data(facts: DenoiserMetadata) -> str:
    """The data set; of a reflow's pairs that of the teacher, as far as it is in the package."""
    pairs = facts.data.removeprefix("pairs of ")
    if pairs == facts.data or pairs.split()[0] not in embedded_models():
        return pairs.partition(" ")[0]
    _, teacher = load_checkpoint(model_file(pairs.split()[0]))
    return _data(teacher) if isinstance(teacher, DenoiserMetadata) else ""


def _public(card: Card, title: str) -> ModelFacts:
    fids = [fid.value for fid in card.fid if fid.metric == "fid"]
    return ModelFacts(
        card.id, title, card.path.name if card.path else "", _times(card.image_shape), card.data,
        f"{min(fids):g}" if fids else "", f"{card.size_mb:,.0f}", card.licence,
    )  # fmt: skip


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
