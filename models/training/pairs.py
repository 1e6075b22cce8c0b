"""Pairs of noise and what a teacher makes of it, the data of a reflow (arXiv 2209.03003, section 2.2).

A folder holds `pairs.json`, which says how they were made, and shards of samples. Noise is not stored: pair i has the
noise `normal(seed, i)` that sampling uses. Images are stored as uint8, as rfpp does (arXiv 2405.20320); other samples
as float32. Real images that the teacher's inverse ODE carries to noise are stored with that noise, in float16.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastsample.datasets import files
from fastsample.datasets.images import ImageDataset
from fastsample.models.catalogue import Model
from fastsample.models.noise import labels, normal
from fastsample.models.training.couplings import Coupling, TrainingData
from fastsample.solvers.grids import GRIDS
from fastsample.solvers.solver import Plan

__all__ = ["SHARD", "PairCoupling", "PairError", "PairStore", "generate", "invert", "noise_quality"]

SHARD = 1024
_MANIFEST, _REAL_MANIFEST = "pairs.json", "real.json"


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
        missing = [i for i in range(-(-self.count // SHARD)) if not _shard(self.folder, i).is_file()]
        if missing:
            raise PairError(f"{self.folder} lacks {len(missing)} of the shards of {self.count} pairs: make them first")

    @cached_property
    def facts(self) -> dict[str, Any]:
        """How the pairs were made."""
        return _facts(self.folder / _MANIFEST)

    @cached_property
    def _shards(self) -> list[np.ndarray]:
        return [_opened(_shard(self.folder, i)) for i in range(-(-self.count // SHARD))]

    @cached_property
    def _real(self) -> tuple[np.ndarray, np.ndarray]:
        if not (self.folder / _REAL_MANIFEST).is_file():
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
        if (self.folder / _REAL_MANIFEST).is_file():
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

    def real(self, count: int) -> tuple[Tensor, Tensor]:
        """(images, noise) of that many inverted real images, drawn with PyTorch's default generator."""
        images, noise = self._real
        index = torch.randint(len(images), (count,)).numpy()
        return _decoded(images[index]), torch.from_numpy(noise[index].astype(np.float32))


class PairCoupling(Coupling):
    """The pairs of a `PairStore`; each is replaced by one of a real image with probability `real`."""

    def __init__(self, real: float = 0.0) -> None:
        super().__init__()
        self.real = real

    def draw(self, data: TrainingData, index: Tensor, flip: bool) -> tuple[Tensor, Tensor]:
        assert isinstance(data, PairStore)
        x0, noise = data.signal(index), data.noise(index)
        if self.real:
            where = torch.rand(len(index)) < self.real
            x0[where], noise[where] = data.real(int(where.sum()))
        return x0, noise


@torch.inference_mode()
def generate(
    model: Model,
    plan: Plan,
    folder: Path,
    count: int,
    seed: int,
    *,
    solver: str,
    device: str = "cpu",
    batch: int = 64,
    process: tuple[int, int] = (0, 1),
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Make pairs, or those that a folder still lacks: shards that are there are kept.

    Args:
        model: the teacher; `plan` is how it samples, and `solver` says that in words.
        count, seed: pair i has the noise (seed, i).
        process: (rank, number of processes) that share the work; this one makes every number-th shard.
        progress: called with the number of pairs made or found.

    Raises:
        PairError: when the folder holds pairs that were made in another way.
        FloatingPointError: when the teacher returns NaN or infinity; the shards before stay.
    """
    facts = {
        "format": 1, "teacher": model.id, "teacher_sha256": model.sha256, "solver": solver, "grid": str(plan.grid),
        "times": list(plan.times), "nfe": plan.nfe, "seed": seed, "shape": list(model.image_shape),
        "classes": model.num_classes,
    }  # fmt: skip
    _agree(folder / _MANIFEST, facts)
    network = model.network.to(device) if model.network is not None else None
    for index in range(process[0], -(-count // SHARD), process[1]):
        file = _shard(folder, index)
        if _is_sound(file):
            progress(SHARD)
            continue
        parts = []
        for low in range(index * SHARD, (index + 1) * SHARD, batch):
            indices = range(low, min(low + batch, (index + 1) * SHARD))
            given = labels(seed, indices, model.num_classes).to(device) if model.num_classes else None
            start = model.path.prior_std * normal(seed, indices, model.shape).to(device)
            x = model.decode(plan(model.make(network, given, 0.0, None), start)).float()
            if not bool(x.isfinite().all()):
                raise FloatingPointError(f"{model.id} with {solver} made NaN or infinity of the noise {low}..")
            parts.append(_encoded(x.cpu()))
            progress(len(indices))
        made = np.concatenate(parts)
        files.write_sealed(file, lambda stream, made=made: np.save(stream, made, allow_pickle=False))  # type: ignore[misc]


@torch.inference_mode()
def invert(
    model: Model,
    steps: int,
    data: ImageDataset,
    folder: Path,
    count: int,
    *,
    device: str = "cpu",
    batch: int = 64,
    process: tuple[int, int] = (0, 1),
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Carry the first `count` images of `data` to noise by Heun's method on the model's ODE, run backwards.

    Args:
        steps: from the data end of the model's path to its noise end, of EDM's grid (arXiv 2206.00364, eq. 5) on its
            path, and equal ones on others. The images are first given the noise of the data end.
        process: as in `generate`.

    Raises:
        PairError: when the folder holds real images that were inverted in another way.
        FloatingPointError: when the teacher returns NaN or infinity; the shards before stay.
    """
    facts = {"format": 1, "teacher_sha256": model.sha256, "data_sha256": data.sha256, "steps": steps, "count": count}
    _agree(folder / _REAL_MANIFEST, facts)
    path, network = model.path, model.network.to(device) if model.network is not None else None
    times = GRIDS["karras" if path.name == "edm" else "uniform"](path, steps, path.t_data, path.t_noise)
    for index in range(process[0], -(-count // SHARD), process[1]):
        file = folder / f"real-{index:05d}.npz"
        rows = torch.arange(index * SHARD, min((index + 1) * SHARD, count))
        if files.read_arrays(file):
            progress(len(rows))
            continue
        found = []
        for part in rows.split(batch):
            given = data.labels[part].to(device) if model.num_classes else None
            denoiser = model.make(network, given, 0.0, None)
            x = path.alpha(times[0]) * data.signal(part).to(device)
            x = x + path.sigma(times[0]) * normal(0, part.tolist(), model.shape).to(device)
            for s, t in pairwise(times):
                slope = denoiser.velocity(x, s)
                ahead = x + (t - s) * slope
                x = x + 0.5 * (t - s) * (slope + denoiser.velocity(ahead, t))
            if not bool(x.isfinite().all()):
                raise FloatingPointError(f"{model.id} made NaN or infinity of the images {int(part[0])}..")
            found.append((x / path.prior_std).cpu().numpy().astype(np.float16))
            progress(len(part))
        files.write_arrays(file, {"images": data.images[rows].numpy(), "noise": np.concatenate(found)})


def noise_quality(folder: Path) -> tuple[float, float]:
    """(variance, correlation of horizontal neighbours) of inverted noise; Gaussian noise has 1 and 0."""
    noise = _real_pairs(folder)[1].astype(np.float32)
    return float(noise.var()), float((noise[..., 1:] * noise[..., :-1]).mean() / noise.var())


def _real_pairs(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """(images uint8, noise float16) of all shards."""
    shards = sorted(folder.glob("real-*.npz"))
    parts = [part for file in shards if (part := files.read_arrays(file, "the same command makes it again"))]
    if not parts or len(parts) < len(shards):
        raise PairError(f"{folder} lacks pairs of real images: make them first")
    return np.concatenate([part["images"] for part in parts]), np.concatenate([part["noise"] for part in parts])


def _agree(manifest: Path, facts: dict[str, Any]) -> None:
    """Write a manifest, or compare with the one that is there."""
    manifest.parent.mkdir(parents=True, exist_ok=True)
    if manifest.is_file():
        known = _facts(manifest)
        differ = [key for key, value in facts.items() if known.get(key) != value]
        if differ:
            raise PairError(f"{manifest.parent} holds pairs made in another way: {', '.join(differ)} differ")
    else:
        files.write_atomically(manifest, lambda stream: stream.write(files.json_bytes(facts)))


def _shard(folder: Path, index: int) -> Path:
    return folder / f"pairs-{index:05d}.npy"


def _is_sound(file: Path) -> bool:
    """Whether a shard is there and as it was written; a damaged one is named."""
    try:
        return file.is_file() and len(_opened(file)) == SHARD
    except PairError as error:
        files.warn(str(error))
        return False


def _opened(file: Path) -> np.ndarray:
    try:
        with files.open_sealed(file):
            return np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise PairError(f"{file} is damaged: {error}; remove it, or let the same command make it again") from error


def _facts(manifest: Path) -> dict[str, Any]:
    try:
        return files.read_json(manifest.read_bytes(), dict)
    except (OSError, files.DamagedFileError) as error:
        raise PairError(f"{manifest} cannot be read: {error}; make the pairs in another folder") from error


def _encoded(x: Tensor) -> np.ndarray:
    """Images as uint8, by EDM's rule floor(clip(127.5 x + 128, 0, 255)); other samples as they are."""
    return (x * 127.5 + 128).clamp(0, 255).to(torch.uint8).numpy() if x.ndim == 4 else x.numpy()


def _decoded(samples: np.ndarray) -> Tensor:
    values = torch.from_numpy(samples)
    return values.float() / 127.5 - 1 if values.dtype == torch.uint8 else values
