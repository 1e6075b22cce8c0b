"""Weights out of the files in which they were published; nothing in a file is ever executed.

| layout | files | read by | weights taken |
|---|---|---|---|
| state-dict | OpenAI, pesser, DiT, SiT, torchcfm, rfpp, fast-ode | public.torch_files | an entry; see public.entries |
| state-dict | any in the safetensors format, told by the content | safetensors | the whole, or an entry |
| score-sde | score_sde_pytorch, RectifiedFlow | public.torch_files | ema.shadow_params, in the order of `model` |
| ddim | ermongroup/ddim | public.torch_files | entry 4 of a list |
| edm-pickle | NVlabs edm and edm2 | public.unpickling | the module `ema` |
| lightning | CompVis latent-diffusion | public.torch_files | state_dict, with model_ema in place of model |
| torchscript | OpenAI's CLIP | public.torch_files | the tensors of all modules, by their places |

Names are without what torch.compile, DataParallel and other wrappers add to them.

What a file can ask for is limited: to `_MOST_TENSORS` tensors of together at most twice the bytes of the file, since
some share their values, and of at most `_MOST_BYTES` each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from fastsample.models.checkpoints import CheckpointError
from fastsample.models.public.entries import find, inside, told_entries, without_wrappers
from fastsample.models.public.file_kinds import wrong_file
from fastsample.models.public.inert import Inert, StoredTensor
from fastsample.models.public.torch_files import load_torch, scripted_tensors
from fastsample.models.public.unpickling import PersistentModule, load_persistent

__all__ = ["LAYOUTS", "Layout", "Weights", "check_values", "read_weights"]

Layout = Literal["state-dict", "score-sde", "ddim", "edm-pickle", "lightning", "torchscript"]
LAYOUTS: tuple[str, ...] = get_args(Layout)

_MOST_TENSORS = 200_000
_MOST_BYTES = 8 * 2**30
_LONGEST_NAME = 500
_LONGEST_MESSAGE = 1000
_MOST_ARGUMENTS = 10_000  # of a network, with all their parts
_DTYPES = {
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool,
}  # fmt: skip

# The networks of EDM and EDM2, and what they are made of.
_EDM_NETWORKS = {"EDMPrecond", "VPPrecond", "VEPrecond", "iDDPMPrecond", "Precond"}
_EDM_PARTS = {
    "SongUNet", "DhariwalUNet", "UNet", "UNetBlock", "Block", "Linear", "Conv2d", "GroupNorm", "PositionalEmbedding",
    "FourierEmbedding", "MPConv", "MPFourier", "ModuleDict", "ModuleList",
}  # fmt: skip


@dataclass(frozen=True)
class Weights:
    """What a file holds.

    Attributes:
        tensors: the averaged weights and the buffers by name, in the order of the file, on the CPU, in the dtypes of
            the file; they may share memory, or be mapped from the file.
        network: class of the network where the file says it (EDM), else "".
        config: the arguments of that class; {} where the file does not say them.
        entry: of a state-dict, the entry that they are from; "" for the whole.
        entries: of a state-dict, those with tensors and their numbers, in words; "" where the whole is one.
    """

    tensors: dict[str, Tensor]
    network: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    entry: str = ""
    entries: str = ""


def read_weights(path: str | Path, layout: Layout, entry: str = "") -> Weights:
    """Read a published checkpoint.

    Args:
        path: of the file.
        layout: how it was published; see the table above.
        entry: for "state-dict", the entry that holds the weights, as "ema_model" or "model.ema"; "" where the file is
            the state dict, or for the entry that is taken unasked; see `fastsample.models.public.entries`.

    Raises:
        CheckpointError: when the file is missing, damaged, something else than a checkpoint (the message says what),
            another layout, has no such entry, or holds what no weights are: foreign objects, tensors larger than the
            file or than 8 GiB, values that are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path} is {wrong_file(path) or 'not a file'}")
    try:
        weights = _read(path, layout, entry)
        check_values(weights.tensors, path)
    except Exception as error:  # A hostile file can raise anything; all of it means the same.
        told = str(error) if isinstance(error, CheckpointError) else f"{type(error).__name__}: {error}"
        told = f"{path} is {kind}" if (kind := wrong_file(path)) else told
        told = " ".join(told.split()) if str(path) in told else f"{path} as {layout}: {' '.join(told.split())}"
        raise CheckpointError(f"{told[:_LONGEST_MESSAGE]}..." if len(told) > _LONGEST_MESSAGE else told) from error
    return weights


def _read(path: Path, layout: Layout, entry: str) -> Weights:
    match layout:
        case "edm-pickle":
            return _edm(path)
        case "score-sde":
            return Weights(_score_sde(load_torch(path)))
        case "ddim":
            return Weights(without_wrappers(_ddim(load_torch(path))))
        case "lightning":
            return Weights(without_wrappers(_lightning(path)))
        case "torchscript":
            return Weights(_tensors(dict(scripted_tensors(load_torch(path))), "the archive"))
        case _:
            return _safetensors(path, entry) if _is_safetensors(path) else _state_dict(load_torch(path), entry)


def _state_dict(content: Any, entry: str) -> Weights:
    taken, found = find(content, entry)
    found = {name: item for name, item in found.items() if not str(name).endswith("_extra_state")}
    tensors = without_wrappers(_tensors(found, taken or "the file"))
    return Weights(tensors, entry=taken, entries=told_entries(content))


def _score_sde(content: Any) -> dict[str, Tensor]:
    model = without_wrappers(_tensors(_item(content, "model"), "model"))
    shadow = _item(_item(content, "ema"), "shadow_params")
    if not isinstance(shadow, list):
        raise CheckpointError("ema.shadow_params is not a list")
    # The averaged parameters are a list without names, in the order of the trained parameters; the noise levels
    # and the Fourier frequencies have no gradient and so no average.
    trained = [name for name, t in model.items() if name != "sigmas" and not (name.endswith(".W") and t.ndim == 1)]
    if len(shadow) != len(trained):
        raise CheckpointError(f"ema.shadow_params has {len(shadow)} entries for {len(trained)} trained parameters")
    averaged = _tensors(dict(zip(trained, shadow, strict=True)), "ema.shadow_params")
    wrong = [name for name, t in averaged.items() if t.shape != model[name].shape]
    if wrong:
        raise CheckpointError(f"ema.shadow_params does not follow the order of model, first at {wrong[0]}")
    return model | averaged


def _ddim(content: Any) -> dict[str, Tensor]:
    if not isinstance(content, list) or len(content) != 5:
        raise CheckpointError("not a list of model, optimizer, epoch, step and average")
    return _tensors(content[4], "entry 4")


def _lightning(path: Path) -> dict[str, Tensor]:
    found = _tensors(_item(load_torch(path), "state_dict"), "state_dict")
    # LDM's average carries the U-Net's names without their dots.
    owners = {name.removeprefix("model.").replace(".", ""): name for name in found if name.startswith("model.")}
    averaged = {name.removeprefix("model_ema."): t for name, t in found.items() if name.startswith("model_ema.")}
    kept = {name: t for name, t in found.items() if not name.startswith("model_ema.")}
    if averaged:
        if {*averaged} - {"decay", "num_updates"} != {*owners}:
            raise CheckpointError(f"model_ema has {len(averaged) - 2} averages for {len(owners)} parameters of model")
        kept |= {name: averaged[short] for short, name in owners.items()}
    return kept


def _is_safetensors(path: Path) -> bool:
    """Eight bytes with the length of a JSON header, and the header."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _safetensors(path: Path, entry: str) -> Weights:
    """All tensors, or those whose names begin with the entry, if there are any: such files are mostly of one entry."""
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {error}") from error
    return Weights(without_wrappers(inside(tensors, f"{entry}.") or tensors))


def _edm(path: Path) -> Weights:
    with path.open("rb") as file:
        module = _item(load_persistent(file, path.stat().st_size, str(path)), "ema")
    if not isinstance(module, PersistentModule) or module.class_name not in _EDM_NETWORKS:
        raise CheckpointError(f"`ema` is not one of {', '.join(sorted(_EDM_NETWORKS))}")
    state = _state(module, "ema")
    if state.get("_init_args"):
        raise CheckpointError(f"{module.class_name} was made with arguments without names, which says too little")
    arguments = _plain(state.get("_init_kwargs", {}), module.class_name, [_MOST_ARGUMENTS])
    return Weights(dict(_walk(module)), module.class_name, arguments)


def _walk(root: PersistentModule) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors in the order of torch's state_dict.

    Each module has one place: one that is part of itself would never end, and one in many places ends too late.
    """
    waiting, seen, entries = [("", root)], {id(root)}, 0
    while waiting:
        prefix, module = waiting.pop()
        if module.class_name not in _EDM_NETWORKS | _EDM_PARTS:
            raise CheckpointError(f"{prefix or 'ema'} is a {module.class_name}, which no network of EDM contains")
        state = _state(module, prefix)
        groups = [_group(state, key, prefix) for key in ("_parameters", "_buffers", "_modules")]
        entries += sum(map(len, groups))
        if entries > _MOST_TENSORS:
            raise CheckpointError(f"the network has more than {_MOST_TENSORS:,} entries")
        parameters, buffers, modules = groups
        unsaved = state.get("_non_persistent_buffers_set", set())
        if not isinstance(unsaved, set):
            raise CheckpointError(f"the unsaved buffers of {prefix or 'ema'} are a {type(unsaved).__name__}")
        for name, stored in (parameters | {k: v for k, v in buffers.items() if k not in unsaved}).items():
            if stored is not None:
                yield f"{prefix}{name}", _tensor(stored, f"{prefix}{name}")
        children = [(f"{prefix}{name}.", child) for name, child in modules.items() if child is not None]
        for name, child in children:
            if not isinstance(child, PersistentModule):
                raise CheckpointError(f"{name} is a {type(child).__name__}, not a module")
            if id(child) in seen:
                raise CheckpointError(f"{name} is a module that stands in two places")
            seen.add(id(child))
        waiting += reversed(children)


def _group(state: dict[str, Any], key: str, prefix: str) -> dict[str, Any]:
    group = _item(state, key)
    if not isinstance(group, dict):
        raise CheckpointError(f"{key} of {prefix or 'ema'} is a {type(group).__name__}")
    for name in group:
        if not isinstance(name, str) or len(prefix) + len(name) > _LONGEST_NAME:
            raise CheckpointError(f"{key} of {prefix or 'ema'} has a name that is no text, or too long")
    return group


def _state(module: PersistentModule, name: str) -> dict[str, Any]:
    if not isinstance(module.state, dict):
        raise CheckpointError(f"{name} has no state")
    return module.state


def _item(content: Any, key: str) -> Any:
    if not isinstance(content, dict) or key not in content:
        there = ", ".join(map(str, list(content)[:8])) if isinstance(content, dict) else f"a {type(content).__name__}"
        raise CheckpointError(f"there is no entry {key!r}; there is {there}")
    return content[key]


def _tensors(content: Any, origin: str) -> dict[str, Tensor]:
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{origin} is not a state dict, but a {type(content).__name__}")
    if len(content) > _MOST_TENSORS:
        raise CheckpointError(f"{origin} has {len(content)} entries")
    bad = [name for name in content if not isinstance(name, str) or len(name) > _LONGEST_NAME]
    if bad:
        raise CheckpointError(f"{origin} has names that are no text, or too long, as {bad[0]!r:.80}")
    return {name: _tensor(stored, name) for name, stored in content.items()}


def _tensor(stored: Any, name: str) -> Tensor:
    if not isinstance(stored, StoredTensor):
        kind = "an object of a class of its own" if isinstance(stored, Inert) else f"a {type(stored).__name__}"
        raise CheckpointError(f"{name} is {kind}, not a tensor")
    return stored.read(name)


def _plain(value: Any, name: str, left: list[int]) -> Any:
    """Data that JSON can hold, of at most `left[0]` parts, or an error."""
    left[0] -= 1
    if left[0] < 0 or len(name) > _LONGEST_NAME:
        raise CheckpointError(f"the arguments of the network have more than {_MOST_ARGUMENTS:,} parts")
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(item, f"{name}.{key}", left) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, name, left) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise CheckpointError(f"the argument {name} is a {type(value).__name__}")


def check_values(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise CheckpointError for tensors that no weights are; sizes first, so that nothing huge is touched."""
    whole, total = path.stat().st_size, sum(tensor.nbytes for tensor in tensors.values())
    if len(tensors) > _MOST_TENSORS or total > 2 * whole:
        raise CheckpointError(f"{len(tensors):,} tensors claim {total:,} bytes in a file of {whole:,}")
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.dtype not in _DTYPES:
            raise CheckpointError(f"{name} is a {tensor.dtype} tensor, {tensor.layout}, on {tensor.device}")
        stored = tensor.untyped_storage().nbytes()
        if tensor.nbytes > stored or stored > whole or tensor.nbytes > _MOST_BYTES:
            raise CheckpointError(f"{name} claims {tensor.nbytes} bytes in a file of {whole}")
    infinite = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if infinite:
        raise CheckpointError(f"values that are not finite in {', '.join(infinite[:5])}")
