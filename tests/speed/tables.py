"""How long `fastsample table` takes on a store of 400 cells of 5,000 samples, and how small a cell of 50,000 is."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from fastsample.results.row import Row
from fastsample.results.store import Store

SAMPLES = 5000


def cell(number: int, samples: int, rng: np.random.Generator) -> tuple[Row, dict[str, np.ndarray]]:
    """A row of PSNR and one Frechet distance, as `bench` keeps it, and its arrays."""
    solver, nfe = divmod(number, 8)
    psnr, psi = 20 + nfe + 0.02 * solver + rng.standard_normal(samples), rng.standard_normal((2, samples))
    fd = f"fd[net]@{samples}"
    row = Row(
        cell=f"{number:016x}", sampling=f"{number:016x}", version=3, model="m", checkpoint_sha256="a" * 64,
        solver=f"s{solver}", title=f"S{solver}", options={}, settings={}, sampler=f"s{solver}", grid="nsr",
        own_grid="nsr", times=[1.0, 0.001], nfe_asked=nfe + 3, nfe=nfe + 3, forwards=nfe + 3, samples=samples, seed=0,
        device="cpu x1", metrics={"psnr": float(psnr.mean()), fd: 10.0 - nfe + 0.01 * solver},
        seconds={"network": 2.0, "solver": 0.1, "metrics": 0.1, "total": 2.2}, protocol={"noise": "philox"},
        versions={"fastsample": "0"}, created="2026-01-01T00:00:00+00:00",
    )  # fmt: skip
    return row, {"psnr": psnr, f"influence[{fd}]": psi - psi.mean(1, keepdims=True)}


def main() -> None:
    """Print wall clock, CPU seconds and peak memory of the command, and bytes of a large cell."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "many")
        for number in range(400):
            store.finish(*cell(number, SAMPLES, rng))
        for metric in ("psnr", "psnr,fd"):
            words = ["table", str(store.folder), "--metric", metric, "--format", "csv"]
            begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
            command = [sys.executable, "-m", "fastsample.bench", *words]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            told = f"{time.perf_counter() - begin:.2f} s, {spent:.2f} s of CPU, {after.ru_maxrss / 1024:.0f} MB"
            print(f"table of 400 cells of {SAMPLES:,} samples, {metric}: {told}")
        large = Store(Path(folder) / "large")
        large.finish(*cell(0, 50_000, rng))
        size = sum(file.stat().st_size for file in large.folder.rglob("*") if file.is_file())
        print(f"a cell of 50,000 samples: {size / 1e6:.2f} MB, {size / 50_000 / 2:.0f} bytes a sample and metric")


if __name__ == "__main__":
    main()
