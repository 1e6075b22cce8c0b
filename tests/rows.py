"""Rows of a store, made up."""

from fastsample.results.row import Row


def row_of(cell="abc", **changes):
    """A row of Heun's method on a model `m`, with these changes."""
    facts = dict(
        cell=cell, model="m", checkpoint_sha256="a" * 64, solver="heun", title="Heun", options={}, grid="nsr",
        own_grid="nsr",
        times=[1.0, 0.001], nfe_asked=10, nfe=10, forwards=10, guidance=0.0, samples=400, seed=0, precision="float32",
        device="cpu x1", metrics={"psnr": 30.0}, seconds={"network": 2.0, "solver": 0.1, "metrics": 0.1, "total": 2.2},
        protocol={"noise": "philox"}, versions={"fastsample": "0"}, created="2026-01-01T00:00:00+00:00",
    )  # fmt: skip
    facts |= changes
    text = ",".join(f"{key}={value}" for key, value in facts["options"].items())
    return Row(**{"sampler": f"{facts['solver']}{':' if text else ''}{text}"} | facts)
