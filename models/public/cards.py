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

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from fastsample.datasets.files import read_small
from fastsample.datasets.home import expanded
from fastsample.datasets.names import guidance_words, nearest
from fastsample.datasets.text import text_of
from fastsample.models import path as paths
from fastsample.models.checkpoints import MOST_CLASSES, CheckpointError, check_shape, embedded_models, faults_of
from fastsample.models.convention import Convention
from fastsample.models.like import resolved
from fastsample.models.networks.registry import network_names
from fastsample.models.public.readers import Layout

__all__ = ["Card", "Fid", "Labels", "Network", "NoisePath", "Time", "card_named", "cards", "is_shipped"]

_SHIPPED = Path(__file__).parents[1] / "cards"
_MOST_BYTES = 2**20  # of a file of cards; the longest that ships has 13,000
_OWN = ("title", "urls", "page", "file", "member", "md5", "sha256", "size_mb", "fid", "note")


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Network(_Table):
    """A network by the name of its original class, with the arguments as published.

    TOML has no null: the text "null" stands for it.
    """

    name: str
    config: dict[str, Any]

    @field_validator("config")
    @classmethod
    def _with_nulls(cls, config: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = _nulls(config)
        return found

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.name not in network_names():
            raise ValueError(f"unknown network {self.name!r}; known: {', '.join(network_names())}")
        return self


def _nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _nulls(one) for key, one in value.items()}
    return [_nulls(one) for one in value] if isinstance(value, list) else None if value == "null" else value


class NoisePath(_Table):
    """The path that a network was trained on.

    `vp-linear` and `sub-vp` are the continuous VP-SDE and sub-VP-SDE, `vp-discrete` a table of betas, `edm` the VE path
    in sigma, `flow` the linear path with t = 0 for noise.
    """

    name: Literal["vp-linear", "sub-vp", "vp-discrete", "edm", "flow"]
    schedule: Literal["linear", "scaled-linear", "cosine"] = Field(default="linear", description="of vp-discrete")
    steps: int = Field(default=1000, ge=2, le=100_000, description="of vp-discrete")
    beta_first: float = Field(default=1e-4, gt=0, lt=1)
    beta_last: float = Field(default=0.02, gt=0, le=1)
    zero_terminal_snr: bool = Field(
        default=False, exclude_if=lambda said: not said, description="of vp-discrete: betas rescaled (arXiv 2305.08891)"
    )
    sigma_min: float = Field(default=0.002, gt=0, description="of edm")
    sigma_max: float = Field(default=80.0, gt=0, description="of edm")

    @model_validator(mode="after")
    def _applies(self) -> Self:
        if self.zero_terminal_snr and self.name != "vp-discrete":
            raise ValueError("zero_terminal_snr rescales the betas of vp-discrete")
        return self

    def betas(self) -> tuple[float, ...]:
        """The table of vp-discrete: DDPM's (2006.11239), LDM's (2112.10752) or iDDPM's cosine (2102.09672, eq. 17)."""
        betas = self._published_betas()
        return paths.zero_terminal_snr(betas) if self.zero_terminal_snr else betas

    def _published_betas(self) -> tuple[float, ...]:
        n = self.steps
        if self.schedule == "cosine":
            kept = [paths.VPCosine().alpha(i / n) ** 2 for i in range(n + 1)]
            return tuple(min(1 - kept[i + 1] / kept[i], 0.999) for i in range(n))
        power = 0.5 if self.schedule == "scaled-linear" else 1.0
        first, last = self.beta_first**power, self.beta_last**power
        return tuple((first + (last - first) * i / (n - 1)) ** (1 / power) for i in range(n))

    def build(self) -> paths.Path:
        """The path."""
        match self.name:
            case "vp-discrete":
                return paths.DiscreteVP(betas=self.betas())
            case "edm":
                return paths.Edm(t_noise=self.sigma_max, t_data=self.sigma_min, prior_std=self.sigma_max)
            case name:
                return paths.path_named(name)


class Time(_Table):
    """What the network is called with: scale * t + shift, or scale * ln(t) + shift, with t of the path."""

    map: Literal["linear", "log"] = "linear"
    scale: float = 1.0
    shift: float = 0.0


class Labels(_Table):
    """How a class is given to the network."""

    kind: Literal["none", "one-hot", "index"] = "none"
    classes: int = Field(default=0, ge=0, le=MOST_CLASSES)
    null: bool = Field(default=False, description="index `classes` stands for no class")


class Fid(_Table):
    """A reported value: a label, never a target.

    Attributes:
        value, sampler: what is reported, and how the samples were made.
        cfg_scale: the published scale s of classifier-free guidance u + s (c - u), c with the class and u without; the
            weight w that `--guidance` takes is s - 1.
        guide: id of the card of another network that u is of, as `--guide` takes it.
        classifier_scale: of classifier guidance, as `--classifier-scale` takes it.
    """

    value: float = Field(gt=0)
    sampler: str
    cfg_scale: float | None = Field(default=None, ge=0)
    guide: str = ""
    classifier_scale: float | None = Field(default=None, gt=0)

    def __str__(self) -> str:
        told = [self.sampler]
        if self.cfg_scale is not None and self.guide:
            told.append(f"{guidance_words(self.cfg_scale)} --guide {self.guide}")
        elif self.cfg_scale is not None:
            told.append(guidance_words(self.cfg_scale))
        if self.classifier_scale is not None:
            scale = f"{self.classifier_scale:g}"
            told.append(f"classifier scale {scale}, here --classifier-scale {scale}")
        return f"{self.value} ({'; '.join(told)})"


class Card(_Table):
    """One public checkpoint.

    Attributes:
        id: its name; the name of its folder in the cache.
        source: repository or hub id of the authors.
        urls: in order of preference: https://..., or hf://OWNER/REPO/FILE@REVISION.
        page: where a person finds the file, if no url can be fetched (a Drive folder).
        file: its name; `member` is the file inside, if it is a zip of files.
        layout, entry: for `fastsample.models.public.readers.read_weights`.
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
        data, recipe: data set and preprocessing of the training images; `reference` its published statistics.
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
    rename: dict[str, str] = {}
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
    recipe: str
    reference: str = ""
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
    return _card(wanted, {**_shipped(), **own}, file)
