"""The public checkpoints, as cards: where a file is, how to read it, what its network predicts, and on which path.

A card is a table of a TOML file in models/cards, or of a user's own file of the same form. `like = "ID"` takes over
what is not said from another card; what belongs to one file alone (its title, place, hashes, size and FID) is never
taken over.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from fastsample.datasets.files import read_small
from fastsample.datasets.home import data_home, expanded
from fastsample.datasets.names import nearest
from fastsample.datasets.own.code import is_code
from fastsample.datasets.preprocessing import RECIPES
from fastsample.datasets.published_moments import published_references
from fastsample.datasets.text import text_of
from fastsample.models.checkpoints import CheckpointError, check_shape, embedded_models, faults_of
from fastsample.models.convention import Convention
from fastsample.models.like import resolved
from fastsample.models.public.card_tables import Fid, Labels, Network, NoisePath, Table, Time
from fastsample.models.public.readers import Layout

__all__ = ["Card", "card_named", "cards", "is_shipped"]

_SHIPPED = Path(__file__).parents[1] / "cards"
_MOST_BYTES = 2**20  # of a file of cards; the longest that ships has 13,000
_OWN = ("title", "urls", "page", "file", "member", "md5", "sha256", "size_mb", "fid", "note")


def _known_recipe(name: str) -> str:
    if name not in {*RECIPES, "?"}:
        raise ValueError(f'{nearest(name, RECIPES, "preprocessing")}; "?" says that it is not known')
    return name


def _known_reference(name: str) -> str:
    known = [entry.id for entry in published_references()]
    if name not in [*known, "none"]:
        raise ValueError(f'{nearest(name, known, "reference")}; "none" says that there is none')
    return name


class Card(Table):
    """One public checkpoint.

    Attributes:
        id: its name; the name of its folder in the cache.
        source: repository or hub id of the authors.
        urls: in order of preference: https://..., or hf://OWNER/REPO/FILE@REVISION.
        page: where a person finds the file, if no url can be fetched (a Drive folder).
        file: its name; `member` is the file inside, if it is a zip of files.
        layout, entry: for `fastsample.models.public.readers.read_weights`; an entry is "ema" or "model.ema", and where
            there is none the averaged weights are taken before others.
        rename: prefixes of names to keep, and what becomes of them; {} keeps all names.
        network: the network; `first_stage` the autoencoder of a latent model, in the same file with the prefix
            "first_stage.", or the id of its card.
        latent_shift, latent_scale: the network sees (latent - shift) * scale, one number or one per channel; an
            empty scale means that the file says it, as its tensor `scale_factor`.
        first_stage_range: what the first stage takes images to be.
        image_shape, latent_shape: of one sample, channels first.
        output: what the network returns, "v" being alpha eps - sigma x0 (arXiv 2202.00512) and "edm-F" EDM's raw
            network F; times `output_sign`. An autoencoder's is
            "image", a classifier's "logits": they have no path.
        extra_channels: output channels after the prediction (a learned variance), to be dropped.
        guided_channels: classifier-free guidance acts on the first so many channels; 0 for all.
        classifier: id of the card of a classifier of its noisy images, for classifier guidance.
        data_range: what the network takes images to be.
        data, recipe: data set and preprocessing of the training images, a name of
            `fastsample.datasets.preprocessing.RECIPES`, or "?" where it is not known.
        reference: id in datasets/references.toml of the statistics that samples are compared with, or "none".
    """

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    title: str
    source: str
    urls: tuple[str, ...] = ()
    page: str = ""
    file: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    member: str = ""
    md5: str = Field(default="", pattern=r"^([0-9a-f]{32})?$")
    sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    size_mb: float = Field(gt=0, description="about; 10^6 bytes")
    licence: str
    notice: str
    layout: Layout
    entry: str = ""
    rename: dict[str, str] = Field(default={})
    network: Network
    first_stage: Network | str | None = None
    first_stage_range: Literal["[-1,1]", "[0,1]"] = Field(default="[-1,1]", exclude_if=lambda said: said == "[-1,1]")
    latent_shift: tuple[float, ...] = (0.0,)
    latent_scale: tuple[float, ...] = (1.0,)
    image_shape: Annotated[tuple[int, int, int], AfterValidator(check_shape)]
    latent_shape: Annotated[tuple[int, int, int], AfterValidator(check_shape)] | None = None
    path: NoisePath | None = None
    time: Time = Time()
    output: Literal["x0", "eps", "velocity", "v", "score", "edm-F", "image", "logits"]
    output_sign: Literal[1, -1] = 1
    extra_channels: int = Field(default=0, ge=0)
    guided_channels: int = Field(default=0, ge=0)
    classifier: str = ""
    data_range: Literal["[-1,1]", "[0,1]", "latent"] = "[-1,1]"
    labels: Labels = Labels()
    data: str
    recipe: Annotated[str, AfterValidator(_known_recipe)]
    reference: Annotated[str, AfterValidator(_known_reference)] = "none"
    papers: tuple[str, ...] = Field(description="arXiv ids of the model")
    used_by: tuple[str, ...] = ()
    fid: tuple[Fid, ...] = ()
    note: str = ""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.urls and not self.page:
            raise ValueError("a card needs urls, or the page where the file is")
        bad = [url for url in self.urls if not url.startswith(("https://", "http://", "hf://"))]
        if bad:
            raise ValueError(f"{bad[0]} is neither https:// nor http:// nor hf://")
        if (self.path is None) != (self.output in ("image", "logits")):
            raise ValueError("a path and an output other than image and logits go together: nothing else is sampled")
        if self.classifier and (self.output != "eps" or self.labels.kind == "one-hot"):
            raise ValueError("classifier guidance needs an output eps, and labels that are indices if there are any")
        if (self.first_stage is None) != (self.data_range != "latent"):
            raise ValueError("a latent model needs a first stage, and only a latent model has one")
        return self

    @property
    def convention(self) -> Convention:
        """Of the network as it is in the file; of a card with a path."""
        assert self.path is not None
        log = self.time.map == "log"
        plain = self.output_sign == 1 and not self.extra_channels and self.labels.kind != "index"
        plain = plain and self.data_range == "[-1,1]" and (not log or self.output == "edm-F")
        scale = self.time.scale * (4 if log else 1)  # of c_noise = ln(sigma) / 4
        return Convention(self.path.build(), self.output, scale, self.time.shift, plain)


def _read(file: Path) -> dict[str, dict[str, Any]]:
    try:
        if (size := file.stat().st_size) > _MOST_BYTES:
            raise ValueError(f"{size:,} bytes, where at most {_MOST_BYTES:,} are read")
        found = tomllib.loads(text_of(read_small(file)))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is not a TOML file of cards: {error}") from error
    if not all(isinstance(table, dict) for table in found.values()):
        raise CheckpointError(f"{file}: every key at the top must be a table, the card of one model")
    return found


def _card(name: str, tables: Mapping[str, dict[str, Any]], origin: str) -> Card:
    try:
        return Card(id=name, **resolved(name, tables, "`like`: {} is not a card", own=_OWN))
    except (ValueError, TypeError, RecursionError) as error:
        told = faults_of(error) if isinstance(error, ValidationError) else str(error)
        raise CheckpointError(f"the card {name!r} of {origin} is not valid: {told}") from error


@cache
def _shipped() -> dict[str, dict[str, Any]]:
    return {name: table for file in sorted(_SHIPPED.glob("*.toml")) for name, table in _read(file).items()}


def is_shipped(name: str) -> bool:
    """Whether the card of that id comes with the package."""
    return name in _shipped()


def cards() -> dict[str, Card]:
    """Every card that comes with the package, by id."""
    return {name: _card(name, _shipped(), "the package") for name in _shipped()}


def card_named(name: str) -> Card:
    """The card of that id, or the one in a user's own file, given as FILE.toml or FILE.toml#ID.

    Raises:
        CheckpointError: for an unknown id (the message offers the nearest), a card that is not valid, or one in a file
            of one's own that has the id of a model of the package.
    """
    file, _, wanted = name.partition("#")
    if not file.endswith(".toml"):
        if name not in _shipped():
            raise CheckpointError(nearest(name, _shipped(), "public model"))
        return _card(name, _shipped(), "the package")
    own = _read(expanded(file))
    if taken := sorted(own.keys() & (_shipped().keys() | embedded_models())):
        raise CheckpointError(f"{file}: {taken[0]!r} is a model of the package; a card of one's own needs another id")
    if not wanted and len(own) != 1:
        raise CheckpointError(f"{file} has the cards {', '.join(own)}; choose one as {file}#{next(iter(own), 'ID')}")
    wanted = wanted or next(iter(own))
    if wanted not in own:
        raise CheckpointError(f"{file} has no card {wanted!r}, but {', '.join(own)}")
    card = _card(wanted, {**_shipped(), **own}, file)
    networks = [one for one in (card.network, card.first_stage) if isinstance(one, Network)]
    if any(is_code(one.name) for one in networks) and expanded(file).resolve().is_relative_to(data_home().resolve()):
        raise CheckpointError(f"{file} is in the folder of downloads, {data_home()}: no class that it names is run")
    return card
