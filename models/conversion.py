"""Public checkpoints converted once to safetensors, with a manifest of where they came from.

The converted file is HOME/checkpoints/ID-<first 12 digits of the source's sha256>.safetensors. It holds the weights
under the network's own names, in the dtypes of the source, and those of a first stage in the same file with the
prefix "first_stage."; its metadata string `fastsample-public` is the JSON of a `Manifest`.
"""

from __future__ import annotations

import datetime
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from rich.console import Console
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from fastsample.models.checkpoints import CheckpointError, check_fit
from fastsample.models.download import DownloadError, download, locked_sha256, target_of, verify_file
from fastsample.models.networks.ddpm_unet import DDPMUNet, from_diffusers
from fastsample.models.networks.registry import build_network
from fastsample.models.public import Card, Network
from fastsample.models.readers import Layout, Weights, read_weights

__all__ = ["Converted", "Manifest", "converted", "describe", "existing", "fetch", "load_converted", "open_converted"]

_FIRST_STAGE = "first_stage."
_SCALE = "scale_factor"
# What a checkpoint says about itself beyond the network: it may differ from the card.
_NOT_COMPARED = {"use_fp16", "dropout", "label_dropout"}


class Manifest(BaseModel):
    """Where a converted file came from and which network it fits."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    urls: tuple[str, ...]
    source_sha256: str
    layout: Layout
    network: Network
    first_stage: Network | None
    licence: str
    notice: str
    date: str


@dataclass(frozen=True)
class Converted:
    """What a converted file holds.

    Attributes:
        network: the network of the diffusion model, or the autoencoder itself.
        first_stage: the autoencoder of a latent model, if it is in the same file.
        latent_scale: the scale of the latents, if the file says it.
        manifest: where it all came from.
    """

    network: nn.Module
    first_stage: nn.Module | None
    latent_scale: float | None
    manifest: Manifest


def describe(card: Card, home: Path) -> list[tuple[str, str]]:
    """What there is to say about a public model, as (subject, text): what is fetched from where, and what it is.

    Nothing is fetched.
    """
    target, done = target_of(card, home), existing(card, home)
    said = [
        ("model", f"{card.id}: {card.title}"),
        ("source", card.source),
        ("from", "\n".join(card.urls) or f"{card.page} (in a browser)"),
        ("size", f"about {card.size_mb:,.0f} MB"),
        ("to", f"{target} ({'there' if target.is_file() else 'not there yet'})"),
        ("converted", str(done) if done else "not yet"),
        ("sha256", card.sha256 or locked_sha256(card, home) or "recorded at the first download"),
        ("md5", card.md5),
        ("licence", f"{card.licence}. {card.notice}"),
        ("network", card.network.name),
        ("path", card.path.name if card.path else "none: it is not sampled by itself"),
        ("output", card.output),
        ("images", f"{'x'.join(map(str, card.image_shape))}, {card.data}, prepared as {card.recipe}"),
        ("labels", f"{card.labels.kind}, {card.labels.classes} classes" if card.labels.classes else "none"),
        ("classifier", card.classifier),
        ("reference", card.reference or "none published by the authors"),
        ("FID", "\n".join(f"{fid.value} ({fid.sampler})" for fid in card.fid) or "none reported"),
        ("papers", ", ".join(card.papers)),
        ("used by", ", ".join(card.used_by) or "nothing known"),
        ("note", card.note),
    ]
    return [(subject, text) for subject, text in said if text]


def fetch(card: Card, home: Path, console: Console | None = None, checkpoint: Path | None = None) -> Path:
    """The converted file of a public model: found, or made from the file that was downloaded or is given.

    Args:
        card: the model.
        home: folder of all that is downloaded.
        console: where the licence and the progress are shown.
        checkpoint: the published file, where a person has put it; nothing is downloaded.

    Raises:
        DownloadError: when the file cannot be had, or is not the known one.
        CheckpointError: when it cannot be read, or does not fit its network.
    """
    if checkpoint is None and (done := existing(card, home)):
        return done
    if checkpoint is None:
        source = download(card, home, console)
        sha256 = locked_sha256(card, home)
    elif checkpoint.is_file():
        source, sha256 = checkpoint, verify_file(card, checkpoint, home)
    else:
        raise DownloadError(f"{checkpoint} is not a file")
    target = converted(card, home, sha256)
    if not target.is_file():
        with _member(source, card.member, target.parent) as file:
            weights = read_weights(file, card.layout, card.entry)
            _save(target, card, sha256, weights)
    return target


def converted(card: Card, home: Path, sha256: str) -> Path:
    """Where the conversion of the file with that sha256 is kept."""
    return home / "checkpoints" / f"{card.id}-{sha256[:12]}.safetensors"


def load_converted(path: str | Path) -> tuple[dict[str, Tensor], Manifest]:
    """(tensors as stored, manifest) of a converted file.

    Raises:
        CheckpointError: when it is missing, damaged, or not one of `fetch`.
    """
    try:
        with safe_open(path, framework="pt") as file:
            manifest = Manifest.model_validate_json((file.metadata() or {})["fastsample-public"])
            return {name: file.get_tensor(name) for name in file.keys()}, manifest  # noqa: SIM118
    except KeyError as error:
        raise CheckpointError(f"{path} has no manifest of a public model") from error
    except (SafetensorError, OSError, ValidationError) as error:
        raise CheckpointError(f"{path} cannot be read as a converted public model: {error}") from error


def open_converted(path: str | Path) -> Converted:
    """The networks of a converted file, in eval mode and float32 on the CPU, with the weights in place.

    Raises:
        CheckpointError: when the file is missing, damaged, or does not fit the networks of its manifest.
    """
    tensors, manifest = load_converted(path)
    parts = _split(tensors, manifest.first_stage is not None)
    scale = float(tensors[_SCALE]) if _SCALE in tensors else None
    first = _filled(manifest.first_stage, parts[_FIRST_STAGE], str(path)) if manifest.first_stage else None
    return Converted(_filled(manifest.network, parts[""], str(path)), first, scale, manifest)


def _filled(network: Network, tensors: Mapping[str, Tensor], origin: str) -> nn.Module:
    check_fit(_empty(network), tensors, origin)
    made = build_network(network.name, network.config)
    made.load_state_dict(dict(tensors))
    return made.eval().requires_grad_(False)


def existing(card: Card, home: Path) -> Path | None:
    """The conversion of a public model's known file, if it is here."""
    locked = locked_sha256(card, home)
    target = converted(card, home, locked)
    return target if locked and target.is_file() else None


@contextmanager
def _member(source: Path, member: str, folder: Path) -> Iterator[Path]:
    """The file itself, or the one inside a zip of files, unpacked for as long as it is read."""
    if not member:
        yield source
        return
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unpacked-") as place:
        unpacked = Path(place) / "member"
        try:
            with zipfile.ZipFile(source) as archive, archive.open(member) as packed, unpacked.open("wb") as file:
                if archive.getinfo(member).file_size > 20 * source.stat().st_size:
                    raise CheckpointError(f"{member} in {source} would unpack to more than twenty times the archive")
                shutil.copyfileobj(packed, file)
        except (KeyError, zipfile.BadZipFile, OSError, EOFError, NotImplementedError) as error:
            raise CheckpointError(f"{source} is not a zip with {member}: {error}") from error
        yield unpacked


def _save(target: Path, card: Card, sha256: str, weights: Weights) -> None:
    if weights.network:
        _compare(card, weights)
    tensors = _renamed(weights.tensors, card.rename)
    first = card.first_stage if isinstance(card.first_stage, Network) else None
    parts = _split(tensors, first is not None)
    stored = _fitted(parts[""], _empty(card.network), f"{card.id}, {card.network.name}")
    if first:
        fitted = _fitted(parts[_FIRST_STAGE], _empty(first), f"{card.id}, {first.name}")
        stored |= {f"{_FIRST_STAGE}{name}": tensor for name, tensor in fitted.items()}
    if not card.latent_scale:
        if _SCALE not in tensors or tensors[_SCALE].numel() != 1:
            raise CheckpointError(f"{card.id}: the file has no {_SCALE}")
        stored[_SCALE] = tensors[_SCALE]
    manifest = Manifest(
        id=card.id, urls=card.urls or (card.page,), source_sha256=sha256, layout=card.layout, network=card.network,
        first_stage=first, licence=card.licence, notice=card.notice,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )  # fmt: skip
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        # Tensors may share memory or lie in a mapped file; safetensors wants each in its own.
        own = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in stored.items()}
        save_file(own, temporary, {"fastsample-public": manifest.model_dump_json()})
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _compare(card: Card, weights: Weights) -> None:
    """An EDM file says what its network is; the card must say the same."""
    ours = {"name": card.network.name, **card.network.config}
    theirs = {"name": weights.network, **weights.config}
    differ = [
        f"{key} is {theirs[key]!r} in the file and {ours[key]!r} on the card"
        for key in ours.keys() & theirs.keys() - _NOT_COMPARED
        if theirs[key] != ours[key]
    ]
    if differ:
        raise CheckpointError(f"{card.id}: {'; '.join(sorted(differ))}")


def _renamed(tensors: Mapping[str, Tensor], rename: Mapping[str, str]) -> dict[str, Tensor]:
    if not rename:
        return dict(tensors)
    return {
        f"{new}{name.removeprefix(old)}": tensor
        for name, tensor in tensors.items()
        for old, new in rename.items()
        if name.startswith(old)
    }


def _split(tensors: Mapping[str, Tensor], has_first_stage: bool) -> dict[str, dict[str, Tensor]]:
    parts: dict[str, dict[str, Tensor]] = {"": {}, _FIRST_STAGE: {}}
    for name, tensor in tensors.items():
        prefix = _FIRST_STAGE if has_first_stage and name.startswith(_FIRST_STAGE) else ""
        if name != _SCALE:
            parts[prefix][name.removeprefix(prefix)] = tensor
    return parts


def _empty(network: Network) -> nn.Module:
    try:
        with torch.device("meta"):
            return build_network(network.name, network.config)
    except ValueError as error:
        raise CheckpointError(str(error)) from error


def _fitted(tensors: Mapping[str, Tensor], network: nn.Module, origin: str) -> dict[str, Tensor]:
    """The tensors under the names and in the shapes of the network.

    consistency_models stores the weights of its 1x1 convolutions with two dimensions of size 1 more.
    """
    if isinstance(network, DDPMUNet):
        tensors = from_diffusers(network, tensors)
    expected = {name: tensor.shape for name, tensor in network.state_dict().items()}
    fitted = {}
    for name, tensor in tensors.items():
        shape = expected.get(name, tensor.shape)
        ones = tensor.ndim > len(shape) and tensor.shape == (*shape, *[1] * (tensor.ndim - len(shape)))
        fitted[name] = tensor.reshape(shape) if ones else tensor
    check_fit(network, fitted, origin)
    return fitted
