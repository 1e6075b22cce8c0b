"""Levels of pixels: from [-1, 1] to uint8 and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch  # half of the time that a table of a store takes

__all__ = ["UINT8_RULES", "to_signal", "to_uint8"]

# By the name of a rule: the nearest level, ties up (EDM, DiT, torchvision); the level below (guided diffusion,
# Score-SDE).
UINT8_RULES = {"round": "floor(clip(127.5 x + 128, 0, 255))", "floor": "floor(clip(127.5 x + 127.5, 0, 255))"}


def to_uint8(x: torch.Tensor, rule: Literal["round", "floor"] = "round") -> torch.Tensor:
    """Images in [-1, 1] as uint8, by one of `UINT8_RULES`."""
    return (x * 127.5 + (128 if rule == "round" else 127.5)).clamp(0, 255).byte()


def to_signal(levels: torch.Tensor) -> torch.Tensor:
    """uint8 levels as float32 in [-1, 1]."""
    return levels.float() / 127.5 - 1
