"""Public checkpoints converted once to safetensors, with a manifest of where they came from.

The converted file holds the weights under the network's own names, in the dtypes of the source, and those of a first
stage in the same file with the prefix "first_stage.". See `fastsample.models.public.manifest` for where it is and what
it says of itself, and its metadata string `sha256` the checksum of all that, compared at every reading (files of older
versions have none).
"""

from __future__ import annotations

import datetime
import hashlib
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from rich.console import Console
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from fastsample.datasets.files import write_atomically
from fastsample.models.checkpoints import CheckpointError, check_fit
from fastsample.models.networks.diffusers_unet import DiffusersUNet, current_names
from fastsample.models.networks.edm_arguments import with_defaults
from fastsample.models.public.card_tables import Network
from fastsample.models.public.cards import Card
from fastsample.models.public.entries import inside, preferred
from fastsample.models.public.file_kinds import wrong_file
from fastsample.models.public.manifest import Manifest, converted, made_for, own_first_stage
from fastsample.models.public.readers import Weights, read_weights

__all__ = ["Converted", "convert", "load_converted", "open_converted"]

_FIRST_STAGE = "first_stage."
_SCALE = "scale_factor"
# What a checkpoint says about its training and execution: it may differ from the card.
_NOT_COMPARED = {"use_fp16", "dropout", "label_dropout"}


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


def load_converted(path: str | Path) -> tuple[dict[str, Tensor], Manifest]:
    """(tensors as stored, manifest) of a converted file.

    Raises:
        CheckpointError: when it is missing, damaged, or not one of `fetch`.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata() or {}
            manifest = Manifest.model_validate_json(facts["fastsample-public"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except KeyError as error:
        raise CheckpointError(f"{path} has no manifest of a public model") from error
    except (SafetensorError, OSError, ValidationError) as error:
        raise CheckpointError(f"{path} cannot be read as a converted public model: {error}") from error
    if "sha256" in facts and facts["sha256"] != _sha256_of(facts["fastsample-public"], tensors):
        raise CheckpointError(f"{path} is damaged: remove it, and the published file is converted again")
    return tensors, manifest


def _sha256_of(manifest: str, tensors: Mapping[str, Tensor]) -> str:
    """Of the manifest and of the names, dtypes, shapes and bytes of the tensors."""
    digest = hashlib.sha256(manifest.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


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
    made = network.build()
    made.load_state_dict(dict(tensors))
    return made.eval().requires_grad_(False)


def convert(card: Card, home: Path, source: Path, sha256: str, console: Console | None) -> None:
    """Convert a file, if that has not been done; of several entries that it has, the one that is taken is shown.

    Raises:
        CheckpointError: when it cannot be read, or does not fit; the message says what it is, if that can be told.
    """
    target = converted(card, home, sha256)
    if made_for(card, target):
        return
    try:
        with _member(source, card.member, target.parent) as file:
            weights = read_weights(file, card.layout, card.entry)
            try:
                _save(target, card, sha256, weights)
            except CheckpointError as error:
                told = f"; its entries with tensors are {weights.entries}" if weights.entries else ""
                raise CheckpointError(f"{error}{told}") from error
        if console and weights.entry != card.entry:
            told = f"{source}: the entry {weights.entry!r} is taken, of {weights.entries}"
            console.print(told, markup=False, highlight=False, soft_wrap=True)
    except CheckpointError as error:
        kind = "" if card.member and zipfile.is_zipfile(source) else wrong_file(source)
        raise CheckpointError(f"{source} is {kind}, not the file of {card.id}" if kind else str(error)) from error


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
    first = own_first_stage(card)
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
        id=card.id, urls=card.urls or (card.page,), source_sha256=sha256, layout=card.layout, entry=card.entry,
        member=card.member, rename=card.rename, latent_scale=card.latent_scale, network=card.network, first_stage=first,
        licence=card.licence, notice=card.notice,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )  # fmt: skip
    # Tensors may share memory or lie in a mapped file; safetensors wants each in its own.
    own = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in stored.items()}
    text = manifest.model_dump_json()
    content = save(own, {"fastsample-public": text, "sha256": _sha256_of(text, own)})
    write_atomically(target, lambda stream: stream.write(content))


def _compare(card: Card, weights: Weights) -> None:
    """An EDM file says what its network is; the card must say the same, with the defaults of what either leaves out."""
    if weights.network != card.network.name:
        raise CheckpointError(f"{card.id}: the file has a {weights.network}, the card says {card.network.name}")
    try:
        ours, theirs = (
            with_defaults(weights.network, {k: v for k, v in config.items() if k not in _NOT_COMPARED})
            for config in (card.network.config, weights.config)
        )
    except ValueError as error:
        raise CheckpointError(f"{card.id}: {error}") from error
    keys = sorted(ours.keys() | theirs.keys())
    differ = [
        f"{key} is {theirs.get(key)!r} in the file and {ours.get(key)!r} on the card"
        for key in keys if key not in _NOT_COMPARED and theirs.get(key) != ours.get(key)
    ]  # fmt: skip
    if differ:
        raise CheckpointError(f"{card.id}: {'; '.join(differ)}")


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
            return network.build()
    except ValueError as error:
        raise CheckpointError(str(error)) from error


def _fitted(tensors: Mapping[str, Tensor], network: nn.Module, origin: str) -> dict[str, Tensor]:
    """The tensors under the names and in the shapes of the network.

    Where they all stand under one prefix, as `model.` or `denoiser.`, it is dropped, and so is what stands beside it;
    of two such prefixes the averaged weights' is taken, as of two entries. consistency_models stores the weights of
    its 1x1 convolutions with two dimensions of size 1 more.
    """
    if isinstance(network, DiffusersUNet):
        tensors = current_names(tensors)
    expected = {name: tensor.shape for name, tensor in network.state_dict().items()}
    tensors = _bare(tensors, expected)
    fitted = {}
    for name, tensor in tensors.items():
        shape = expected.get(name, tensor.shape)
        ones = tensor.ndim > len(shape) and tensor.shape == (*shape, *[1] * (tensor.ndim - len(shape)))
        fitted[name] = tensor.reshape(shape) if ones else tensor
    check_fit(network, fitted, origin)
    return fitted


def _bare(tensors: Mapping[str, Tensor], expected: Mapping[str, object]) -> Mapping[str, Tensor]:
    first = next(iter(expected), "")
    if first in tensors:
        return tensors
    prefixes = [name.removesuffix(first) for name in tensors if name.endswith(f".{first}")]
    fitting = preferred([prefix for prefix in prefixes if all(f"{prefix}{name}" in tensors for name in expected)])
    if len(fitting) > 1:
        raise CheckpointError(f"its weights stand under {' and '.join(fitting)}; an `entry` must say which")
    return inside(tensors, fitting[0]) if fitting else tensors
