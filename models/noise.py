"""Noise that depends on (seed, i) alone: not on batch size, device, shard or solver.

Sample i of a seed draws from the counter-based generator Philox with key (seed, i): its starting
noise from counter block 0, its class label from block 1, the noise of step k of a stochastic solver
from block k + 2. All draws are made on the host.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

__all__ = ["label_list", "labels", "normal", "step_noise"]


def _generator(seed: int, index: int, block: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, index], counter=[0, 0, 0, block]))


def normal(seed: int, indices: Sequence[int], shape: Sequence[int], block: int = 0) -> torch.Tensor:
    """Standard normal noise [len(indices), *shape], float32, on the host."""
    draws = [_generator(seed, i, block).standard_normal(tuple(shape), dtype=np.float32) for i in indices]
    return torch.from_numpy(np.stack(draws))


def step_noise(seed: int, indices: Sequence[int], shape: Sequence[int], step: int) -> torch.Tensor:
    """The noise of step `step` (0, 1, ...) of a stochastic solver, like `normal`."""
    return normal(seed, indices, shape, block=step + 2)


def label_list(text: str, classes: int) -> tuple[int, ...]:
    """The classes that samples take in turn, of `balanced` or a list such as `3,7`; none of `random`, which draws them.

    Raises:
        ValueError: for a class that a model of so many does not have.
    """
    if text == "random":
        return ()
    listed = tuple(range(classes)) if text == "balanced" else tuple(map(int, text.split(",")))
    if listed and max(listed) >= classes:
        raise ValueError(f"its classes are 0 to {classes - 1}, and {max(listed)} is none of them")
    return listed


def labels(seed: int, indices: Sequence[int], classes: int, listed: Sequence[int] = ()) -> torch.Tensor:
    """Class labels [len(indices)], int64: uniformly random, or those listed in turn, the first that of sample 0."""
    if listed:
        return torch.tensor([listed[i % len(listed)] for i in indices])
    return torch.tensor([int(_generator(seed, i, 1).integers(classes)) for i in indices])
