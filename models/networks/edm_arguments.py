"""The arguments of EDM's and EDM2's networks with their defaults, to compare what two places say of one network."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from fastsample.models.networks.dhariwal_unet import DhariwalUNet
from fastsample.models.networks.edm2_unet import EDM2_PARTS
from fastsample.models.networks.edm_precond import EDMPrecond, VEPrecond, VPPrecond, iDDPMPrecond
from fastsample.models.networks.song_unet import SongUNet

__all__ = ["with_defaults"]

_INSIDE: dict[str, type[nn.Module]] = {"SongUNet": SongUNet, "DhariwalUNet": DhariwalUNet}
_PRECONDITIONED = {one.__name__: one for one in (EDMPrecond, VPPrecond, VEPrecond, iDDPMPrecond)}


def with_defaults(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of a network of that class: those given, and the defaults of the others.

    Raises:
        ValueError: for an argument that the network does not have.
    """
    if name == "Precond":
        classes: list[type] = list(EDM2_PARTS)
    else:
        classes = [one for one in _PRECONDITIONED[name].__mro__ if issubclass(one, nn.Module) and one is not nn.Module]
        kind = config.get("model_type", _defaults(classes[0])["model_type"])
        if kind not in _INSIDE:
            raise ValueError(f"model_type = {kind!r} is not known; known: {', '.join(_INSIDE)}")
        classes.append(_INSIDE[kind])
    known = {key: value for one in reversed(classes) for key, value in _defaults(one).items()}
    if unknown := [key for key in config if key not in known]:
        raise ValueError(f"{name} has no argument {unknown[0]!r} ({config[unknown[0]]!r})")
    return {key: list(value) if isinstance(value, tuple) else value for key, value in {**known, **config}.items()}


def _defaults(one: type) -> dict[str, Any]:
    """Of the constructor of a class; a required argument has None."""
    found = inspect.signature(one).parameters.values()
    named = [each for each in found if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    return {each.name: None if each.default is each.empty else each.default for each in named}
