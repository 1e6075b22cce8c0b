"""Converted public checkpoints as they are found in the cache: what each was made from, and for which card.

The converted file is HOME/checkpoints/ID-<first 12 digits of the source's sha256>.safetensors; its metadata string
`fastsample-public` is the JSON of a `Manifest`.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open

from fastsample.datasets.home import sha256_of
from fastsample.models.checkpoints import CheckpointError
from fastsample.models.public.card_tables import Network
from fastsample.models.public.cards import Card
from fastsample.models.public.known import current_sha256, from_elsewhere, target_of
from fastsample.models.public.readers import Layout

__all__ = ["Manifest", "converted", "existing", "given_before", "made_for", "own_first_stage"]


class Manifest(BaseModel):
    """Where a converted file came from and which network it fits."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    urls: tuple[str, ...]
    source_sha256: str
    layout: Layout
    entry: str | None = Field(default=None, description="None in files of versions up to 0.1.0")
    member: str | None = None
    rename: dict[str, str] | None = None
    latent_scale: tuple[float, ...] | None = Field(default=None, description="() where the file has it")
    network: Network
    first_stage: Network | None
    licence: str
    notice: str
    date: str


def converted(card: Card, home: Path, sha256: str) -> Path:
    """Where the conversion of the file with that sha256 is kept."""
    return home / "checkpoints" / f"{card.id}-{sha256[:12]}.safetensors"


def existing(card: Card, home: Path) -> Path | None:
    """The converted file of the weights that the card names, if it is here and made as the card says by now.

    A published file that was put in place after the conversion, and is another one, counts as not converted.
    """
    sha256 = current_sha256(card, home)
    done, source = converted(card, home, sha256), target_of(card, home)
    if not sha256 or not made_for(card, done):
        return None
    if source.is_file() and source.stat().st_mtime_ns > done.stat().st_mtime_ns:
        there = sha256_of(source)
        return done if there == sha256 or from_elsewhere(card, there, home) else None
    return done


def given_before(card: Card, home: Path, digits: str) -> Path:
    """The converted file of other weights than the known ones, by the first eight digits of their hash.

    Raises:
        CheckpointError: if they were not converted here.
    """
    for file in sorted((home / "checkpoints").glob(f"{card.id}-{digits}????.safetensors")):
        if made_for(card, file):
            return file
    raise CheckpointError(
        f"{card.id}@{digits} is not here: give its file once, by `fastsample models fetch {card.id} --checkpoint FILE`"
    )


def made_for(card: Card, file: Path) -> bool:
    """Whether a converted file is there, and was made by what the card says of its source and its networks."""
    try:
        with safe_open(file, framework="pt") as opened:
            manifest = Manifest.model_validate_json((opened.metadata() or {})["fastsample-public"])
    except (KeyError, SafetensorError, OSError, ValidationError):
        return False
    told = {name: getattr(manifest, name) for name in ("entry", "member", "rename", "latent_scale")}
    same = {name for name, value in told.items() if value in (None, getattr(card, name))}
    networks = card.layout, card.network, own_first_stage(card)
    return len(same) == len(told) and (manifest.layout, manifest.network, manifest.first_stage) == networks


def own_first_stage(card: Card) -> Network | None:
    """The first stage of a latent model that is in the same file."""
    return card.first_stage if isinstance(card.first_stage, Network) else None
