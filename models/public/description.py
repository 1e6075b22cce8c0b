"""What there is to say about a public model before anything of it is fetched."""

from __future__ import annotations

from pathlib import Path

from fastsample.datasets.published_moments import published_references
from fastsample.models.public.cards import Card, cards
from fastsample.models.public.known import conflict, current_sha256, identity, target_of
from fastsample.models.public.manifest import existing

__all__ = ["describe"]


def describe(card: Card, home: Path) -> list[tuple[str, str]]:
    """What there is to say about a public model, as (subject, text): what is fetched from where, and what it is.

    Nothing is fetched.
    """
    target, done, sha256 = target_of(card, home), existing(card, home), current_sha256(card, home)
    said = [
        ("model", f"{card.id}: {card.title}"),
        ("source", card.source),
        ("from", "\n".join(card.urls) or f"{card.page} (in a browser)"),
        ("size", f"about {card.size_mb:,.0f} MB"),
        ("to", f"{target} ({'there' if target.is_file() else 'not there yet'})"),
        ("converted", str(done) if done else "not yet"),
        ("sha256", f"{sha256} ({identity(card, sha256, home)[1]})" if sha256 else "recorded at the first download"),
        ("conflict", conflict(card, sha256, home) if sha256 else ""),
        ("md5", card.md5),
        ("licence", f"{card.licence}. {card.notice}"),
        ("network", card.network.name),
        ("path", card.path.name if card.path else "none: it is not sampled by itself"),
        ("output", card.output),
        ("images", f"{'x'.join(map(str, card.image_shape))}, {card.data}, {_prepared(card.recipe)}"),
        ("labels", f"{card.labels.kind}, {card.labels.classes} classes" if card.labels.classes else "none"),
        ("guidance", _guidance(card)),
        ("classifier", f"{card.classifier}; --classifier-scale S" if card.classifier else ""),
        ("reference", _reference(card.reference)),
        ("FID", "\n".join(map(str, card.fid)) or "none reported"),
        ("papers", ", ".join(card.papers)),
        ("used by", ", ".join(card.used_by) or "nothing known"),
        ("note", card.note),
    ]
    return [(subject, text) for subject, text in said if text]


def _prepared(recipe: str) -> str:
    return "how they were prepared is not known" if recipe == "?" else f"prepared as {recipe}"


def _reference(name: str) -> str:
    if name == "none":
        return "none"
    entry = next(entry for entry in published_references() if entry.id == name)
    images = f"{f'{entry.count:,} ' if entry.count else ''}images of {entry.data}, {_prepared(entry.preprocessing)}"
    return f"{name}: {entry.place}\n{entry.extractor} features of {images}"


def _guidance(card: Card) -> str:
    told = []
    if card.labels.null:
        where = f", on the first {card.guided_channels} channels" if card.guided_channels else ""
        told.append(
            f"classifier-free: --guidance W is w of (1 + w) cond - w uncond, a published cfg-scale less 1{where}"
        )
    weight = "--guidance W is w of D + w (D - D_guide), a published scale less 1"
    told += [
        f"by another model: --guide {guide}; {weight}"
        for guide in dict.fromkeys(fid.guide for fid in card.fid)
        if guide
    ]
    guided = [other.id for other in cards().values() if card.id in (fid.guide for fid in other.fid)]
    told += [f"it guides {' and '.join(guided)}, as --guide {card.id} there"] if guided else []
    return "\n".join(told)
