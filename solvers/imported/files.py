"""The files of published learned solvers, read without executing them.

| layout | file | numbers taken |
|---|---|---|
| DyWeight | .pkl | predictor: hybrid_weights x mask, t_scale |
| DyWeight on flows | .pt | theta x tril_mask x win_mask, and 0.5 + sigmoid(phi) |
| EPD, AdaSDE | .pkl | model: r_params, scale_dir_params, scale_time_params, weight_s (and gamma_params) |
| AMED | .pkl | model: weights and biases of its layers |
| GAS | .pt | ema.shadow_params: times, shifts, and the corrections of each order |
| LD3 | .pt | params1, params2 |

A .pkl holds objects of `torch_utils.persistence`, of which the class name and the state are taken as data and the
source text is dropped unread (`models.public.unpickling`); a .pt is one of torch.save with tensors alone.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from fastsample.datasets.files import read_small
from fastsample.models.checkpoints import CheckpointError
from fastsample.models.public.inert import StoredTensor, refused
from fastsample.models.public.readers import check_values
from fastsample.models.public.torch_files import load_torch
from fastsample.models.public.unpickling import PersistentModule, load_predictor
from fastsample.solvers.table_file import TableFileError

__all__ = ["Layout", "Published", "is_published", "read_published"]

Layout = Literal["DyWeight", "DyWeight on flows", "EPD", "AdaSDE", "AMED", "GAS", "LD3"]

_CLASSES: dict[str, Layout] = {
    "DyWeight_predictor": "DyWeight", "EPD_predictor": "EPD", "AMED_predictor": "AMED", "adasde_predictor": "AdaSDE",
    "AdaSDE_predictor": "AdaSDE",
}  # fmt: skip
_LAYERS = ("map_layer0", "enc_layer0", "enc_layer1", "fc_r", "fc_scale_dir", "fc_scale_time")
_MOST_TENSORS = 1000
_MOST_NUMBERS = 1_000_000
_TORCH = (b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")  # torch.save, of both formats
_LONGEST_TEXT = 200
_LONGEST_MESSAGE = 500


@dataclass(frozen=True)
class Published:
    """What a file holds.

    Attributes:
        layout: by which its numbers are read; file: its name.
        numbers: float64, by name.
        facts: plain attributes of the predictor; loss: those of how it was trained.
        sha256: of the file.
    """

    layout: Layout
    file: str
    numbers: Mapping[str, np.ndarray]
    facts: Mapping[str, Any]
    loss: Mapping[str, Any]
    sha256: str

    def fact(self, name: str, kind: type, default: Any = None) -> Any:
        """An attribute of that type (an int is a float too); the default where it is missing or None.

        Raises:
            TableFileError: if it is of another type.
        """
        value = self.facts.get(name, self.loss.get(name))
        if value is None:
            if default is None:
                raise TableFileError(f"{self.file} does not say its {name}")
            return default
        allowed = (int, float) if kind is float else (kind,)
        if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
            raise TableFileError(f"{self.file}: its {name} is {value!r:.40}, which is no {kind.__name__}")
        if isinstance(value, float) and not math.isfinite(value):
            raise TableFileError(f"{self.file}: its {name} is {value}, which is not finite")
        return kind(value)


def is_published(path: Path) -> bool:
    """Whether a file is a pickle or one of torch.save, and so none of our tables."""
    try:
        with path.open("rb") as file:
            begin = file.read(4)
    except OSError:
        return False
    return begin[:1] == b"\x80" or begin == _TORCH[0]


def read_published(path: Path) -> Published:
    """The numbers of a published learned solver.

    Raises:
        TableFileError: when the file cannot be read, is cut short or of another layout, asks for what no predictor
            holds, or has numbers that are not finite.
    """
    try:
        content = read_small(path)
        layout, tensors, facts, loss = _torch(path) if content.startswith(_TORCH) else _pickle(path, len(content))
        numbers = {name: _tensor(stored, name) for name, stored in tensors.items()}
        check_values(numbers, path)
        if sum(tensor.numel() for tensor in numbers.values()) > _MOST_NUMBERS:
            raise CheckpointError(f"it has more than {_MOST_NUMBERS:,} numbers")
    except OSError as error:
        raise TableFileError(f"cannot read {path}: {error.strerror}") from None
    except Exception as error:  # A hostile file can raise anything; all of it means the same.
        told = str(error) if isinstance(error, CheckpointError) else f"{type(error).__name__}: {error}"
        told = " ".join(told.split()).removeprefix(f"{path}: ")
        raise TableFileError(f"{path} is no published solver: {told[:_LONGEST_MESSAGE]}") from None
    arrays = {name: tensor.double().numpy().copy() for name, tensor in numbers.items()}
    return Published(layout, path.name, arrays, facts, loss, hashlib.sha256(content).hexdigest())


_Read = tuple[Layout, dict[str, Any], dict[str, Any], dict[str, Any]]


def _pickle(path: Path, size: int) -> _Read:
    with path.open("rb") as file:
        content = load_predictor(file, size)
    if not isinstance(content, dict):
        raise CheckpointError(f"it holds a {type(content).__name__}, not a predictor")
    model = content.get("predictor", content.get("model"))
    if not isinstance(model, PersistentModule) or model.class_name not in _CLASSES:
        found = model.class_name if isinstance(model, PersistentModule) else type(model).__name__
        raise CheckpointError(f"its predictor is a {found:.80}; known: {', '.join(_CLASSES)}")
    layout, loss = _CLASSES[model.class_name], content.get("loss_fn")
    tensors = dict(_layers(model) if layout == "AMED" else _own(model))
    told = dict(_plain(_state(loss))) if isinstance(loss, PersistentModule) else {}
    return layout, tensors, dict(_plain(_state(model))), told


def _torch(path: Path) -> _Read:
    content = load_torch(path, refused)
    if not isinstance(content, dict):
        raise CheckpointError(f"it holds a {type(content).__name__}, not the numbers of a solver")
    if "dyweight_params" in content:
        given, meta = _entry(content, "dyweight_params"), _entry(content, "dyweight_meta")
        return "DyWeight on flows", _taken(given, "theta", "phi", "tril_mask", "win_mask"), dict(_plain(meta)), {}
    if "ema" in content:
        numbers = _entry(content, "ema").get("shadow_params")
        if not isinstance(numbers, list) or not 4 <= len(numbers) <= _MOST_TENSORS or len(numbers) % 2:
            raise CheckpointError("ema.shadow_params is not a list of times, shifts, and two corrections of each order")
        names = ["mu_logit", "t_couple", *(f"{k}{m}" for m in range(1, len(numbers) // 2) for k in "ca")]
        return "GAS", dict(zip(names, numbers, strict=True)), {}, {}
    if "params1" in content:
        return "LD3", _taken(content, "params1", "params2"), {}, {}
    there = ", ".join(str(key)[:40] for key in list(content)[:8])
    raise CheckpointError(f"it is neither of LD3, of GAS nor of DyWeight: it holds {there or 'nothing'}")


def _entry(content: Mapping[Any, Any], name: str) -> dict[Any, Any]:
    value = content.get(name)
    if not isinstance(value, dict):
        raise CheckpointError(f"its {name} is a {type(value).__name__}, not a dictionary")
    return value


def _taken(content: Mapping[Any, Any], *names: str) -> dict[str, Any]:
    return {name: content.get(name) for name in names}


def _state(module: PersistentModule) -> dict[Any, Any]:
    if not isinstance(module.state, dict):
        raise CheckpointError(f"its {module.class_name:.80} has no state")
    return module.state


def _own(module: PersistentModule) -> Iterator[tuple[str, Any]]:
    """The parameters and buffers of a module itself."""
    for group in ("_parameters", "_buffers"):
        held = _entry(_state(module), group)
        if len(held) > _MOST_TENSORS:
            raise CheckpointError(f"its {group} are more than {_MOST_TENSORS:,}")
        yield from ((name, stored) for name, stored in held.items() if isinstance(stored, StoredTensor))


def _layers(module: PersistentModule) -> Iterator[tuple[str, Any]]:
    """Weights and biases of AMED's layers; what it has no head for is missing."""
    held = _entry(_state(module), "_modules")
    for layer in _LAYERS:
        if (one := held.get(layer)) is None:
            continue
        if not isinstance(one, PersistentModule):
            raise CheckpointError(f"its {layer} is a {type(one).__name__}, not a layer")
        yield from ((f"{layer}.{name}", stored) for name, stored in _own(one) if name in ("weight", "bias"))


def _plain(content: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if not isinstance(name, str) or name.startswith("_"):
            continue
        if value is None or isinstance(value, bool | int | float):
            yield name, value
        elif isinstance(value, str):
            yield name, value[:_LONGEST_TEXT]
        elif name == "backend_config" and isinstance(value, dict):
            yield from _plain(value)


def _tensor(stored: Any, name: str) -> torch.Tensor:
    if not isinstance(stored, StoredTensor):
        raise CheckpointError(f"its {name} is a {type(stored).__name__}, not a tensor")
    return stored.read(name)
