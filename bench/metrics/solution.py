"""Reference solutions: the same noise, solved so finely that the rest is the solver's own error.

They come from an integrator of its own (`bench.metrics.integrator`), in 100 steps on networks, in float32 (float64
where the cell is). Its error is measured on the first samples against a run with half the steps: the PSNR between the
two is a lower bound of its accuracy, is shown with every table, and a PSNR near it says only "at least".

Solutions are cached in batches of `BATCH` samples, so a longer run reuses a shorter one's. Rows carry a fingerprint
of the first ones, by which the gate tells that the judge itself moved.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, Literal

import numpy as np
import torch

from fastsample.bench.metrics.error import psnr_values
from fastsample.bench.metrics.integrator import VERSION, integrate, signature
from fastsample.datasets.files import json_bytes, read_arrays, read_facts, write_arrays, write_atomically
from fastsample.datasets.home import data_home, keep
from fastsample.models.catalogue import Model
from fastsample.models.denoiser import Denoiser
from fastsample.models.path import Path
from fastsample.results.protocol import Protocol

__all__ = ["Reference", "reference_for", "solution_at"]

NFE = 100
ANALYTIC_NFE = 640  # cheap, and smooth enough to use it
BATCH = 64  # samples of one cached file, and of a network call at least, whatever the cell's batch size
PROBES = 16  # samples on which the reference's own error is measured, and of which its fingerprint is

Solved = Callable[[Sequence[int]], tuple[Denoiser, torch.Tensor]]

# What could not be written, by the file that it would be: it is needed again, by the next cell at the latest.
_held: dict[FilePath, dict[str, np.ndarray]] = {}
_held_facts: dict[FilePath, dict[str, float]] = {}
_MOST_HELD = 2**30  # bytes of solutions


@dataclass(frozen=True)
class Reference:
    """The cached reference solutions of a model and seed.

    Attributes:
        id: what its rows call it; a hash of all that decides the solutions.
        folder: where its batches lie.
        steps: evaluations of the integrator.
        precision: float32 or float64, of the network and of the state.
        signature: of the integrator.
    """

    id: str
    folder: FilePath
    steps: int
    precision: Literal["float32", "float64"]
    signature: str

    @property
    def title(self) -> str:
        """The integrator in words."""
        return f"Adams-Bashforth-Moulton 3, version {VERSION}, {self.steps} steps on the linear path"

    def batch(self, index: int, solved: Solved) -> dict[str, torch.Tensor]:
        """`x` [n, ...], the solution at t_data, and `denoised`, the data prediction there, of one batch.

        Computed at the first call, read from the cache after that; a solution that is not finite is not cached.

        Args:
            solved: gives (denoiser, start) of samples by their numbers.
        """
        return self.batches([index], solved)[index]

    def batches(self, indices: Sequence[int], solved: Solved, at_once: int = 1) -> dict[int, dict[str, torch.Tensor]]:
        """The same of several batches by their numbers; so many of those that are not in the cache are solved at once.

        Each is computed in the dtype of its start.
        """
        found = {index: arrays for index in indices if (arrays := self._known(index))}
        missing = [index for index in indices if index not in found]
        for low in range(0, len(missing), at_once):
            several = missing[low : low + at_once]
            denoiser, start = solved([index * BATCH + i for index in several for i in range(BATCH)])
            x = integrate(denoiser, start, self.steps)
            last = denoiser.x0(x, denoiser.path.t_data)
            for place, index in enumerate(several):
                own = slice(place * BATCH, (place + 1) * BATCH)
                found[index] = {"x": x[own].cpu().numpy(), "denoised": last[own].cpu().numpy()}
                if all(np.isfinite(value).all() for value in found[index].values()):
                    _keep(self._file(index), found[index])
        return {index: {name: torch.from_numpy(found[index][name]) for name in ("x", "denoised")} for index in indices}

    def _file(self, index: int) -> FilePath:
        return self.folder / f"{index}.npz"

    def _known(self, index: int) -> dict[str, np.ndarray] | None:
        return _held.get(self._file(index)) or read_arrays(self._file(index))

    def missing(self, count: int) -> int:
        """How many of the first samples have no solution in the cache: those of whole batches."""
        numbers = range(-(-count // BATCH))
        return BATCH * sum(self._file(n) not in _held and not self._file(n).exists() for n in numbers)

    def fingerprint(self, solved: Solved) -> str:
        """The signature of the integrator, and eight projections of the first solutions on random signs.

        A projection is divided by the root of the number of values: where solutions move by some root mean square, so
        do their projections. See `results.comparable.moved`.
        """
        x = self.batch(0, solved)["x"][:PROBES].double().numpy().ravel()
        signs = np.random.Generator(np.random.Philox(key=0)).integers(0, 2, (8, x.size), dtype=np.int8)
        return " ".join([self.signature, *(f"{v:.5f}" for v in (2 * signs - 1) @ x / np.sqrt(x.size))])

    @property
    def bounded(self) -> bool:
        """Whether its accuracy is in the cache."""
        file = self._accuracy
        return file in _held_facts or file.exists()

    @property
    def _accuracy(self) -> FilePath:
        return self.folder / "accuracy.json"

    def accuracy(self, solved: Solved, decode: Callable[[torch.Tensor], torch.Tensor]) -> float:
        """Mean PSNR in dB between the images of the first solutions and of those in half the steps; cached."""
        file = self._accuracy
        if found := _held_facts.get(file) or read_facts(file):
            return float(found["psnr"])
        denoiser, noise = solved(range(PROBES))
        fine, coarse = (decode(integrate(denoiser, noise, steps)) for steps in (self.steps, self.steps // 2))
        value = float(psnr_values(fine, coarse).mean())
        facts = {"psnr": value, "samples": len(noise)}
        if not keep(file, lambda file: write_atomically(file, lambda stream: stream.write(json_bytes(facts)))):
            _held_facts[file] = facts
        return value

    def trajectory(self, denoiser: Denoiser, noise: torch.Tensor) -> tuple[np.ndarray, torch.Tensor]:
        """The states of the solution of the noise given, on the linear path: (t [n] rising, float64; z [n, ...])."""
        times: list[float] = []
        states: list[torch.Tensor] = []

        def keep(t: float, z: torch.Tensor) -> None:
            times.append(t)
            states.append(z)

        integrate(denoiser, noise, self.steps, keep)
        return np.array(times), torch.stack(states)


def _keep(file: FilePath, arrays: dict[str, np.ndarray]) -> None:
    held = sum(value.nbytes for found in (*_held.values(), arrays) for value in found.values())
    if not keep(file, lambda file: write_arrays(file, arrays)) and held <= _MOST_HELD:
        _held[file] = arrays


def solution_at(end: float, path: Path, x: torch.Tensor, denoised: torch.Tensor) -> torch.Tensor:
    """The solution at a time `end` near the data, from x at t_data and the data prediction there.

    It is one DDIM step further, and at sigma = 0 the data prediction itself.
    """
    if end == path.t_data:
        return x
    ratio = path.sigma(end) / path.sigma(path.t_data)
    return ratio * x + (path.alpha(end) - ratio * path.alpha(path.t_data)) * denoised


def reference_for(model: Model, seed: int, protocol: Protocol, device: str) -> Reference:
    """The reference of a model's samples of this seed under this protocol. Nothing is computed yet.

    Args:
        device: the kind of device that computes it, such as cpu or cuda.
    """
    steps = protocol.reference_steps or (NFE if model.sha256 else ANALYTIC_NFE)
    double: Literal["float32", "float64"] = "float64" if protocol.precision == "float64" else "float32"
    integrator = signature()
    facts: dict[str, Any] = {
        "model": model.id, "weights": model.sha256, "card": model.conditions, "classifier": model.classifier,
        "path": repr(model.path), "version": VERSION, "integrator": integrator, "steps": steps, "seed": seed,
        "precision": double, "guidance": protocol.guidance, "device": device,
        "labels": protocol.labels if model.num_classes else "", **protocol.altered,
    }  # fmt: skip
    if model.guide or model.guided_within != (None, None):
        facts |= {"guide": model.guide, "guidance_low": model.guided_within[0], "guidance_high": model.guided_within[1]}
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    return Reference(key, data_home() / "references" / key, steps, double, integrator)
