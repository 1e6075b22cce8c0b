"""Levels of pixels: from [-1, 1] to uint8 and back."""

from __future__ import annotations

import torch

__all__ = ["UINT8_RULE", "to_signal", "to_uint8"]

UINT8_RULE = "floor(clip(127.5 x + 128, 0, 255))"


def to_uint8(x: torch.Tensor) -> torch.Tensor:
    """Images in [-1, 1] as uint8, by EDM's rule floor(clip(127.5 x + 128, 0, 255)): the nearest level, ties up."""
    return (x * 127.5 + 128).clamp(0, 255).to(torch.uint8)


def to_signal(levels: torch.Tensor) -> torch.Tensor:
    """uint8 levels as float32 in [-1, 1]."""
    return levels.float() / 127.5 - 1
