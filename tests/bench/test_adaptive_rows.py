"""Rows of an adaptive solver: one cell, whatever the batch."""

import io

import numpy as np
import pytest
from rich.console import Console

from fastsample.bench.request import Request
from fastsample.bench.sweep import run_sweep
from fastsample.results.store import Store


def swept(folder, **facts):
    """(row, its per-sample arrays, what was said)."""
    console = Console(file=io.StringIO(), width=200)
    asked = Request(**dict(solver="dopri5", nfe=8, metrics=("psnr",), out=folder) | facts)
    assert run_sweep(asked, console) == []
    (row,) = Store(folder, create=False).rows()
    return row, Store(folder, create=False).per_sample(row.cell), console.file.getvalue()


def test_a_row_does_not_depend_on_the_batch(tmp_path):
    facts = dict(model="gmm2d-flow", samples=64, precision="float64")
    found = {batch: swept(tmp_path / str(batch), batch_size=batch, **facts) for batch in (1, 7, 64)}
    row, arrays, said = found[64]
    made = arrays["evaluations"]
    assert made.shape == (64,)
    assert (row.nfe_mean, row.nfe_max, row.nfe) == (made.mean(), made.max(), round(made.mean()))
    assert row.nfe < row.nfe_max
    assert row.forwards == row.nfe
    assert f"{row.nfe_mean:.1f} evaluations a sample in the mean, {row.nfe_max} at most" in said
    for other, theirs, _ in found.values():
        assert (other.cell, other.metrics, other.nfe_mean, other.nfe_max) == (
            row.cell, row.metrics, row.nfe_mean, row.nfe_max,
        )  # fmt: skip
        for name, array in arrays.items():
            np.testing.assert_array_equal(theirs[name], array)
    fewer, theirs, _ = swept(tmp_path / "fewer", samples=5, **{k: v for k, v in facts.items() if k != "samples"})
    np.testing.assert_array_equal(theirs["psnr"], arrays["psnr"][:5])
    np.testing.assert_array_equal(theirs["evaluations"], made[:5])
    assert fewer.nfe_max == made[:5].max()


def test_a_network_s_row_depends_on_it_within_rounding(tmp_path):
    facts = dict(model="cifar10-tiny-flow", samples=4, solver="dopri5:rtol=1e-3,atol=1e-3", metrics=("fd",))
    found = [swept(tmp_path / str(batch), batch_size=batch, **facts) for batch in (1, 4)]
    np.testing.assert_array_equal(*(arrays["evaluations"] for _, arrays, _ in found))
    one, other = (row.metrics["fd[cifar10-resnet]@4"] for row, _, _ in found)
    assert one == pytest.approx(other, rel=1e-3)


def test_other_solvers_make_equal_evaluations_and_say_nothing_of_them(tmp_path):
    row, arrays, said = swept(tmp_path, model="gmm2d", solver="heun", samples=8)
    assert (row.nfe, row.nfe_mean, row.nfe_max) == (8, None, None)
    assert "evaluations" not in arrays
    assert "in the mean" not in said
