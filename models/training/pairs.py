"""Pairs of noise and what a teacher makes of it, the data of a reflow (arXiv 2209.03003, section 2.2).

A folder holds `pairs.json`, which says how they were made, and shards of samples. Noise is not stored: pair i has the
noise `normal(seed, i)` that sampling uses. Images are stored as uint8, as rfpp does (arXiv 2405.20320); other samples
as float32. Real images that the teacher's inverse ODE carries to noise are stored with that noise, in float16.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastsample.datasets.files import (
    DamagedFileError,
    json_bytes,
    open_sealed,
    read_arrays,
    read_json,
    write_atomically,
)
from fastsample.datasets.levels import to_signal, to_uint8
from fastsample.models.noise import labels, normal
from fastsample.models.training.couplings import Coupling, TrainingData

__all__ = ["MANIFEST", "REAL_MANIFEST", "SHARD", "PairCoupling", "PairError", "PairStore", "agree", "encoded",
           "noise_quality", "opened", "shard_file"]  # fmt: skip

SHARD = 1024
MANIFEST, REAL_MANIFEST = "pairs.json", "real.json"


class PairError(ValueError):
    """A folder of pairs is incomplete, damaged, or was made in another way."""


@dataclass(frozen=True)
class PairStore:
    """Finished pairs in a folder.

    Raises:
        PairError: if a shard is missing or damaged.
    """

    folder: Path
    count: int

    def __post_init__(self) -> None:
        missing = [i for i in range(-(-self.count // SHARD)) if not shard_file(self.folder, i).is_file()]
        if missing:
            raise PairError(f"{self.folder} lacks {len(missing)} of the shards of {self.count} pairs: make them first")

    @cached_property
    def facts(self) -> dict[str, Any]:
        """How the pairs were made."""
        return _facts(self.folder / MANIFEST)

    @cached_property
    def _shards(self) -> list[np.ndarray]:
        return [opened(shard_file(self.folder, i)) for i in range(-(-self.count // SHARD))]

    @cached_property
    def _real(self) -> tuple[np.ndarray, np.ndarray]:
        if not (self.folder / REAL_MANIFEST).is_file():
            raise PairError(f"{self.folder} has no pairs of real images")
        return _real_pairs(self.folder)

    @property
    def name(self) -> str:
        return f"pairs of {self.facts['teacher']}"

    @property
    def split(self) -> str:
        return f"{self.facts['solver']} NFE {self.facts['nfe']}"

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.facts["shape"])

    @cached_property
    def sha256(self) -> str:
        digest = hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode())
        for shard in self._shards:
            digest.update(np.ascontiguousarray(shard).data)
        if (self.folder / REAL_MANIFEST).is_file():
            for array in self._real:
                digest.update(array.data)
        return digest.hexdigest()

    @cached_property
    def labels(self) -> Tensor:
        """The class each sample was drawn for, int64 [count]; all 0 where the teacher has none."""
        classes = self.facts["classes"]
        if not classes:
            return torch.zeros(self.count, dtype=torch.int64)
        return labels(self.facts["seed"], range(self.count), classes)

    def __len__(self) -> int:
        return self.count

    def signal(self, index: Tensor) -> Tensor:
        return _decoded(np.stack([self._shards[i // SHARD][i % SHARD] for i in index.tolist()]))

    def noise(self, index: Tensor) -> Tensor:
        """Their noise, float32 [n, *shape]."""
        return normal(self.facts["seed"], index.tolist(), self.shape)

    def real(
        self, count: int, which: Tensor | slice = slice(None), generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """(images, noise) of inverted real images: `count` are drawn, by PyTorch's generator if None, and some read."""
        images, noise = self._real
        index = torch.randint(len(images), (count,), generator=generator)[which].numpy()
        return _decoded(images[index]), torch.from_numpy(noise[index].astype(np.float32))


class PairCoupling(Coupling):
    """The pairs of a `PairStore`; each is replaced by one of a real image with probability `real`."""

    def __init__(self, real: float = 0.0) -> None:
        super().__init__()
        self.real = real

    def draw(
        self,
        data: TrainingData,
        index: Tensor,
        flip: bool,
        rows: slice = slice(None),
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        assert isinstance(data, PairStore)
        x0, noise = data.signal(index[rows]), data.noise(index[rows])
        if self.real:
            where = torch.rand(len(index), generator=generator) < self.real
            mine, which = where[rows], where.cumsum(0)[rows] - 1
            x0[mine], noise[mine] = data.real(int(where.sum()), which[mine], generator)
        return x0, noise


def noise_quality(folder: Path) -> tuple[float, float]:
    """(variance, correlation of horizontal neighbours) of inverted noise; Gaussian noise has 1 and 0."""
    noise = _real_pairs(folder)[1].astype(np.float32)
    return float(noise.var()), float((noise[..., 1:] * noise[..., :-1]).mean() / noise.var())


def _real_pairs(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """(images uint8, noise float16) of all shards."""
    files = sorted(folder.glob("real-*.npz"))
    parts = [part for file in files if (part := read_arrays(file, "the same command makes it again"))]
    if not parts or len(parts) < len(files):
        raise PairError(f"{folder} lacks pairs of real images: make them first")
    return np.concatenate([part["images"] for part in parts]), np.concatenate([part["noise"] for part in parts])


def agree(manifest: Path, facts: dict[str, Any]) -> None:
    """Write a manifest, or compare with the one that is there."""
    manifest.parent.mkdir(parents=True, exist_ok=True)
    if manifest.is_file():
        known = _facts(manifest)
        differ = [key for key, value in facts.items() if known.get(key) != value]
        if differ:
            raise PairError(f"{manifest.parent} holds pairs made in another way: {', '.join(differ)} differ")
    else:
        write_atomically(manifest, lambda stream: stream.write(json_bytes(facts)))


def shard_file(folder: Path, index: int) -> Path:
    return folder / f"pairs-{index:05d}.npy"


def opened(file: Path) -> np.ndarray:
    """The samples of a shard.

    Raises:
        PairError: if it is missing or damaged.
    """
    try:
        with open_sealed(file):
            return np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise PairError(f"{file} is damaged: {error}; remove it, or let the same command make it again") from error


def _facts(manifest: Path) -> dict[str, Any]:
    try:
        return read_json(manifest.read_bytes(), dict)
    except (OSError, DamagedFileError) as error:
        raise PairError(f"{manifest} cannot be read: {error}; make the pairs in another folder") from error


def encoded(x: Tensor) -> np.ndarray:
    """Images as uint8; other samples as they are."""
    return to_uint8(x).numpy() if x.ndim == 4 else x.numpy()


def _decoded(samples: np.ndarray) -> Tensor:
    values = torch.from_numpy(samples)
    return to_signal(values) if values.dtype == torch.uint8 else values
