"""Checkpoints of our own: safetensors files with a validated description, and the models shipped with the package.

A file holds the network's state dict and one metadata string, `fastsample`: the JSON of a `Metadata` block
from which the network can be built and placed on its path. Matrices and convolution weights are stored in
half precision when the block says so; everything is float32 in memory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from fastsample.datasets.files import write_atomically
from fastsample.datasets.home import expanded, sha256_of
from fastsample.models.convention import Convention
from fastsample.models.denoiser import Prediction
from fastsample.models.networks import registry
from fastsample.models.public.file_kinds import wrong_file

__all__ = [
    "MOST_CLASSES",
    "CheckpointError",
    "ClassifierMetadata",
    "DenoiserMetadata",
    "Metadata",
    "check_fit",
    "check_shape",
    "embed_checkpoint",
    "embedded_models",
    "faults_of",
    "load_checkpoint",
    "load_model",
    "model_file",
    "save_checkpoint",
]

MOST_CLASSES = 100_000  # of labels; ImageNet-21k has 21,841
_MOST_VALUES = 2**24  # of a sample; 3 x 2048 x 2048 are fewer
_EMBEDDED = Path(__file__).parent / "embedded"


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged, or does not fit its own description."""


def faults_of(error: ValidationError) -> str:
    """What is wrong with the fields of a block, in one line."""
    return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:5])


def check_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a sample, or a ValueError where it is none or has more than `_MOST_VALUES` values."""
    if not all(0 < n <= _MOST_VALUES for n in shape) or math.prod(shape) > _MOST_VALUES or len(shape) > 4:
        raise ValueError(f"a sample has positive sizes, four at most, and at most {_MOST_VALUES:,} values")
    return shape


class _Common(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    id: str
    title: str
    network: str
    network_args: dict[str, Any]
    image_shape: Annotated[tuple[int, ...], AfterValidator(check_shape)]
    num_classes: int = Field(default=0, ge=0, le=MOST_CLASSES, description="that it is conditioned on, or tells apart")
    data: str = Field(description="data set and split")
    data_sha256: str = Field(description="of the training pixels, N x H x W x 3 uint8")
    images_seen: int = Field(ge=0)
    ema_halflife_images: float = Field(ge=0)
    optimizer: dict[str, Any]
    loss: str
    precision: str = Field(description="arithmetic of the training run")
    storage: Literal["float32", "float16"] = "float16"


class DenoiserMetadata(_Common):
    """What a diffusion or flow network predicts, and where it lives: the fields of its `Convention`."""

    kind: Literal["denoiser"] = "denoiser"
    path: str
    prediction: Prediction
    time_scale: float
    time_shift: float = 0.0
    times: str = Field(description="distribution of the training times")
    coupling: str = Field(default="independent", description="of data and noise in training")
    teacher_sha256: str = Field(default="", description="of the model whose pairs it was trained on")
    recipe: dict[str, Any] = Field(default={}, description="all fields of the recipe; models of 0.1.0 have none")

    @property
    def convention(self) -> Convention:
        """The network's."""
        return Convention.read(self.model_dump())


class ClassifierMetadata(_Common):
    """A classifier of uint8 images, used as a feature extractor."""

    kind: Literal["classifier"] = "classifier"
    test_accuracy: float = Field(ge=0, le=1)
    test_data: str


Metadata = Annotated[DenoiserMetadata | ClassifierMetadata, Field(discriminator="kind")]
_METADATA: TypeAdapter[Metadata] = TypeAdapter(Metadata)


def save_checkpoint(path: str | Path, tensors: Mapping[str, Tensor], metadata: Metadata) -> None:
    """Write a checkpoint; a file of that name is replaced only once the new one is complete.

    Raises:
        CheckpointError: when a value is not finite, also after rounding to half precision.
    """
    half = metadata.storage == "float16"
    stored = {}
    for name, tensor in tensors.items():
        dtype = torch.float16 if half and tensor.ndim >= 2 and name.endswith("weight") else tensor.dtype
        stored[name] = tensor.detach().to("cpu", dtype).contiguous()
    _check_finite(stored, str(path))
    content = save(stored, {"fastsample": metadata.model_dump_json()})
    write_atomically(Path(path), lambda stream: stream.write(content))


def load_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], Metadata]:
    """(state dict on the CPU with floating tensors in float32, metadata).

    Raises:
        CheckpointError: when the file is missing, truncated, not ours, or holds a value that is not finite.
    """
    try:
        with safe_open(path, framework="pt") as file:
            described = (file.metadata() or {}).get("fastsample")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        told = f"it is {kind}" if (kind := wrong_file(Path(path))) else error
        raise CheckpointError(f"{path} cannot be read as safetensors: {told}") from error
    if described is None:
        raise CheckpointError(f"{path} carries no fastsample metadata")
    try:
        metadata = _METADATA.validate_json(described)
    except ValidationError as error:
        raise CheckpointError(f"{path}: its metadata is not valid: {faults_of(error)}") from error
    _check_finite(tensors, str(path))
    return {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}, metadata


def embedded_models() -> dict[str, dict[str, str]]:
    """The models shipped with the package: id -> {file, sha256, title}."""
    index = _EMBEDDED / "index.json"
    entries: dict[str, dict[str, str]] = json.loads(index.read_text("utf-8")) if index.is_file() else {}
    return entries


def model_file(id_or_path: str | Path) -> Path:
    """The file of an embedded model, or the file of that name.

    Raises:
        CheckpointError: if it is neither.
    """
    entry = embedded_models().get(str(id_or_path))
    path = _EMBEDDED / entry["file"] if entry else expanded(id_or_path)
    if not path.is_file():
        known = ", ".join(embedded_models()) or "none"
        raise CheckpointError(f"{str(id_or_path)!r} is neither a file nor an embedded model; embedded: {known}")
    return path


def embed_checkpoint(source: str | Path) -> str:
    """Copy a checkpoint into the package's own models, index it, and return its id."""
    tensors, metadata = load_checkpoint(source)
    _EMBEDDED.mkdir(exist_ok=True)
    target = _EMBEDDED / f"{metadata.id}.safetensors"
    save_checkpoint(target, tensors, metadata)
    entry = {"file": target.name, "sha256": sha256_of(target), "title": metadata.title, "kind": metadata.kind}
    index = dict(sorted({**embedded_models(), metadata.id: entry}.items()))
    (_EMBEDDED / "index.json").write_text(json.dumps(index, indent=2) + "\n", "utf-8")
    return metadata.id


def load_model(id_or_path: str | Path, device: str | torch.device = "cpu") -> tuple[nn.Module, Metadata, str]:
    """(network in eval mode and float32 on `device`, metadata, sha256 of the file).

    Raises:
        CheckpointError: for an unknown id, a file other than the one indexed, or tensors that do not fit the network.
    """
    entry, path = embedded_models().get(str(id_or_path)), model_file(id_or_path)
    sha256 = sha256_of(path)
    if entry and sha256 != entry["sha256"]:
        raise CheckpointError(f"{path} has changed: its sha256 is {sha256}, the index says {entry['sha256']}")
    tensors, metadata = load_checkpoint(path)
    try:
        with torch.device("meta"):  # a network that the file does not fill costs nothing
            empty = build_network(metadata)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    check_fit(empty, tensors, str(path))
    network = build_network(metadata)
    network.load_state_dict(tensors)
    return network.eval().requires_grad_(False).to(device), metadata, sha256


def build_network(metadata: Metadata) -> nn.Module:
    """A freshly initialised network of the described class.

    Raises:
        CheckpointError: when the class is not known or does not accept its arguments.
    """
    try:
        return registry.build_network(metadata.network, metadata.network_args)
    except ValueError as error:
        raise CheckpointError(f"{metadata.id}: {error}") from error


def _check_finite(tensors: Mapping[str, Tensor], origin: str) -> None:
    bad = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if bad:
        raise CheckpointError(f"{origin}: values that are not finite in {_listed(bad)}")


def check_fit(network: nn.Module, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Compare names and shapes with those of the network.

    Raises:
        CheckpointError: when they differ; missing, unexpected and mis-shaped tensors are told at once.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    faults = {
        "missing": [name for name in expected if name not in tensors],
        "unexpected": [name for name in tensors if name not in expected],
        "mis-shaped": [
            f"{name} {tuple(tensor.shape)} for {expected[name]}"
            for name, tensor in tensors.items()
            if name in expected and tuple(tensor.shape) != expected[name]
        ],
    }
    if any(faults.values()):
        told = "; ".join(f"{fault}: {_listed(names)}" for fault, names in faults.items() if names)
        raise CheckpointError(f"{origin} does not fit its network: {told}")


def _listed(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
