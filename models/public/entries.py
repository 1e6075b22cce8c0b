"""Where the weights are in what a training script saves, and what wrappers add to their names.

Scripts save {model, ema, opt, args}, in any nesting. An entry is named by its keys with dots between, as `model.ema`;
where names are flat, it is their beginning. Of several entries that hold tensors an averaged one is taken (ema, swa,
average, shadow) before a trained one (model, state_dict, net), and that before any other; of two of one rank none is.
What belongs to an optimizer, scheduler, scaler, loss, discriminator or random generator is never taken unasked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fastsample.models.checkpoints import CheckpointError
from fastsample.models.public.inert import Inert, StoredTensor

__all__ = ["find", "inside", "preferred", "told_entries", "without_wrappers"]

_DEEPEST, _MOST = 4, 10_000  # of entries in one another, outermost first; scripts have tens
_AVERAGED = re.compile(r"ema|swa|average[ds]?|averaging|avg|shadow|polyak")
_TRAINED = re.compile(r"model|module|state|dict|params|parameters|weights|net|network|unet|denoiser|dit|sit|generator")
_NEVER = re.compile(
    r"opt|optim|optimizers?|lr|schedulers?|scaler|loss|loss_fn|discriminator|disc|rng|random|.*_extra_state"
)
# torch.compile, FSDP and checkpointing of activations put a component of their own anywhere into a name, DeepSpeed and
# DataParallel one before all names.
_INSIDE = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\.")


def _mapping(content: Any) -> Mapping[Any, Any] | None:
    """The items of a dictionary, a list, or an object of a foreign class that was filled like a dictionary."""
    if isinstance(content, Inert):
        return content.entries or None
    if isinstance(content, list):
        return dict(enumerate(content))
    return content if isinstance(content, dict) else None


def _state_dicts(content: Any) -> dict[str, dict[str, Any]]:
    """What of the content has names and tensors, by entry; "" is the whole."""
    found: dict[str, dict[str, Any]] = {}
    waiting: list[tuple[str, Any, tuple[int, ...]]] = [("", content, ())]  # with the objects that each is in
    for name, value, outer in waiting:
        items = _mapping(value) or {}
        tensors = any(isinstance(item, StoredTensor) for item in items.values())
        if tensors and all(isinstance(key, str) for key in items):
            found[name] = dict(items)
        outer = *outer, id(value)
        for key, item in items.items() if len(outer) <= _DEEPEST else ():
            inner = isinstance(item, dict | Inert) and id(item) not in outer and _may_hold_weights(key)
            if inner and len(waiting) < _MOST:
                waiting.append((f"{name}.{key}" if name else str(key), item, outer))
    return {name: items for name, items in found.items() if not _holds_more(name, items, found)}


def _may_hold_weights(key: Any) -> bool:
    """Decays of averages are numbers; so are the parameters of an optimizer."""
    return isinstance(key, float) or (isinstance(key, str) and not _NEVER.fullmatch(key.lower()))


def _holds_more(name: str, items: dict[str, Any], found: Mapping[str, dict[str, Any]]) -> bool:
    """Whether an entry holds one with more tensors: it has a step or the state of a random generator beside that."""
    inner = [other for key, other in found.items() if key != name and key.startswith(f"{name}." if name else "")]
    return any(len(other) > sum(isinstance(item, StoredTensor) for item in items.values()) for other in inner)


def find(content: Any, entry: str) -> tuple[str, dict[str, Any]]:
    """(entry that holds the weights, its content): the one asked for, or the one in it that is taken; see above.

    Raises:
        CheckpointError: where there is none, or there are several; the message has the entries with tensors.
    """
    place = _at(content, entry) if entry else content
    if place is None:
        told = told_entries(content)
        raise CheckpointError(f"there is no entry {entry!r}; {f'tensors are in {told}' if told else _kind(content)}")
    found = _state_dicts(place)
    if not found:
        raise CheckpointError(f"{entry or 'the file'} is not a state dict: {_kind(place)}")
    best = preferred(list(found))
    if len(best) > 1:
        raise CheckpointError(f"{entry or 'the file'} holds several: {told_entries(place)}; an `entry` must say which")
    return ".".join(filter(None, (entry, best[0]))), found[best[0]]


def preferred(entries: list[str]) -> list[str]:
    """Those of the best rank: averaged, trained, or neither."""
    ranks = [_rank(entry) for entry in entries]
    return [entry for entry, rank in zip(entries, ranks, strict=True) if rank == min(ranks)]


def _rank(entry: str) -> int:
    words = re.split(r"[._\d]+", entry.lower())
    return 0 if any(map(_AVERAGED.fullmatch, words)) else 1 if any(map(_TRAINED.fullmatch, words)) else 2


def _at(content: Any, entry: str) -> Any:
    """What is at an entry; None if nothing is. Keys may have dots themselves; the longest that is there counts."""
    items = _mapping(content)
    if items is None:
        return None
    named = {str(key): item for key, item in items.items()}
    parts = entry.split(".")
    for end in range(len(parts), 0, -1):
        if (head := ".".join(parts[:end])) in named:
            return _at(named[head], ".".join(parts[end:])) if end < len(parts) else named[head]
    return inside(named, f"{entry}.") or None


def inside(items: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The items whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): item for name, item in items.items() if name.startswith(prefix)}


def told_entries(content: Any) -> str:
    """The entries with tensors, and how many they have, for a message."""
    found = [f"{name} ({len(items)})" for name, items in _state_dicts(content).items() if name]
    return ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "")


def _kind(content: Any) -> str:
    if isinstance(content, Inert):
        return "it is an object of a class of its own, which is not made here; save its state_dict()"
    if isinstance(content, dict):
        return f"it has {', '.join(f'{key!s:.80}' for key in list(content)[:8]) or 'nothing'}, and no tensors by name"
    return f"it is a {type(content).__name__}"


def without_wrappers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under the names that they had before torch.compile, FSDP, DataParallel, DeepSpeed and AveragedModel.

    AveragedModel's count `n_averaged` is dropped.
    """
    bare = {_INSIDE.sub("", name): tensor for name, tensor in tensors.items()}
    if len(bare) < len(tensors):
        raise CheckpointError("two of its names are one without the wrappers of torch.compile and FSDP")
    while bare and all(name.startswith("module.") or name == "n_averaged" for name in bare):
        bare = inside(bare, "module.")
    return bare
