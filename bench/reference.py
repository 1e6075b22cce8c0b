"""Reference solutions: the same noise, solved so finely that the rest is the solver's own error.

The reference of (model, seed) is Flow-Solver of order 3 with its free corrector, on the linear path in 100
uniform steps, in float32 (float64 where the cell is). On the embedded networks third-order methods in
other variables come no nearer to one another at that budget. Its own error is measured on the first
samples against a run with half the steps: the PSNR between the two is a lower bound of its accuracy,
is shown with every table, and a PSNR near it says only "at least".

Solutions are cached by model and seed in batches of `BATCH` samples, so a longer run reuses a shorter
one's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path as FilePath
from zipfile import BadZipFile

import numpy as np
import torch

from fastsample.bench.metrics import psnr_values
from fastsample.datasets.home import data_home
from fastsample.models.catalogue import Model
from fastsample.models.denoiser import Denoiser
from fastsample.results.store import write_atomically
from fastsample.solvers.solver import Plan, get

__all__ = ["Reference", "reference_for"]

SOLVER, GRID, NFE = "flow-solver", "uniform", 100
OPTIONS = {"order": 3, "corrector": "pec"}
ANALYTIC_NFE = 640  # cheap, and smooth enough to use it
BATCH = 64  # samples of one cached file, and of one network call, whatever the cell's batch size
PROBES = 16  # samples on which the reference's own error is measured


@dataclass(frozen=True)
class Reference:
    """The cached reference solutions of a model and seed.

    Attributes:
        id: what its rows call it; a hash of model, solver, grid, NFE, seed and precision.
        folder: where its batches lie.
        plan: the fine solver; coarse: the one with half the evaluations.
    """

    id: str
    folder: FilePath
    plan: Plan
    coarse: Plan

    @property
    def title(self) -> str:
        """The solver in words."""
        options = ",".join(f"{key}={value}" for key, value in OPTIONS.items())
        return f"{self.plan.solver.name}:{options} {self.plan.grid} NFE {self.plan.nfe}"

    def batch(self, index: int, denoiser: Denoiser, start: torch.Tensor) -> dict[str, torch.Tensor]:
        """`x` [n, ...], the solution at t_data, and `denoised`, the data prediction there, of one batch.

        Computed in the dtype of `start` at the first call, read from the cache after that; a solution
        that is not finite is not cached.
        """
        file = self.folder / f"{index}.npz"
        try:
            with np.load(file, allow_pickle=False) as data:
                return {name: torch.from_numpy(data[name]) for name in ("x", "denoised")}
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            pass  # not there, or cut short: computed anew
        x = self.plan(denoiser, start)
        arrays = {"x": x.cpu(), "denoised": denoiser.x0(x, self.plan.path.t_data).cpu()}
        if all(bool(torch.isfinite(value).all()) for value in arrays.values()):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(file, lambda stream: np.savez(stream, **{k: v.numpy() for k, v in arrays.items()}))
        return arrays

    def accuracy(
        self, denoiser: Denoiser, noise: torch.Tensor, decode: Callable[[torch.Tensor], torch.Tensor]
    ) -> float:
        """Mean PSNR in dB between the images of the fine and of the coarse solution of the noise given; cached."""
        file = self.folder / "accuracy.json"
        try:
            return float(json.loads(file.read_text())["psnr"])
        except (OSError, ValueError, KeyError):
            pass
        value = float(psnr_values(*(decode(plan(denoiser, noise)) for plan in (self.plan, self.coarse))).mean())
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(file, lambda stream: stream.write(json.dumps({"psnr": value, "samples": len(noise)}).encode()))
        return value


def reference_for(model: Model, seed: int, precision: str, guidance: float, labels: str) -> Reference:
    """The reference of a model's samples of this seed, precision, guidance and labels. Nothing is computed yet."""
    nfe = NFE if model.sha256 else ANALYTIC_NFE
    double = "float64" if precision == "float64" else "float32"
    others = [model.conditions] if model.conditions else []
    others += [labels] if model.num_classes and labels != "random" else []
    facts = [model.id, model.sha256, repr(model.path), SOLVER, OPTIONS, GRID, nfe, seed, double, guidance, *others]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    solver = get(SOLVER)
    return Reference(
        key,
        data_home() / "references" / key,
        solver.plan(model.path, nfe, GRID, **OPTIONS),
        solver.plan(model.path, nfe // 2, GRID, **OPTIONS),
    )
