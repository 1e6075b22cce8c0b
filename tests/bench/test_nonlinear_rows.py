"""Rows of solvers whose coefficients depend on the sample: a budget and a grid like others, and no table."""

import numpy as np
import pytest

import fastsample
from fastsample.bench.replay import Replay
from fastsample.results.store import Store

from ..command import command

SOLVERS = "era,era:k=3@uniform,evodiff"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTSAMPLE_HOME", str(tmp_path / "home"))


def swept(folder, *more, solver=SOLVERS, metrics="psnr,curvature"):
    words = ["--model", "gmm2d-flow", "--solver", solver, "--nfe", "6,9", "--metrics", metrics]
    ended = command("bench", *words, "--samples", "48", "--precision", "float64", "--out", folder, *more)
    assert ended.code == 0, ended.err
    return ended.out + ended.err


def test_a_sweep_has_rows_of_them_whatever_the_batch(tmp_path):
    swept(tmp_path / "one", "--batch-size", "48")
    swept(tmp_path / "two", "--batch-size", "7")
    one, two = (Store(tmp_path / name, create=False) for name in ("one", "two"))
    rows = {row.cell: row for row in one.rows()}
    assert len(rows) == 6
    assert rows.keys() == {row.cell for row in two.rows()}
    for row in two.rows():
        assert row.metrics == rows[row.cell].metrics
        np.testing.assert_array_equal(one.per_sample(row.cell)["psnr"], two.per_sample(row.cell)["psnr"])
        assert (row.nfe, row.nfe_mean, row.forwards) == (row.nfe_asked, None, row.nfe_asked)
        assert row.metrics["curvature"] > 0
        assert not row.tabled
        assert Replay(two, "cpu").cell(row.cell).plan.times == tuple(row.times)


def test_what_a_sweep_will_cost_counts_them(tmp_path):
    told = " ".join(swept(tmp_path / "store", "--plan").split())
    assert f"{48 * 3 * (6 + 9):,}" in told


def test_commands_that_need_a_table_refuse_them_and_none_is_recommended(tmp_path):
    swept(tmp_path / "store", solver="evodiff", metrics="psnr")
    told = command("recommend", tmp_path / "store", "--budget", "9")
    assert told.code == 0
    assert "fastsample sample" in told.out
    assert "fastsample export" not in told.out
    model = ["--model", "gmm2d-flow"]
    for words in (
        ["export", *model, "--solver", "era", "--nfe", "5", "--to", "python"],
        ["explain", "evodiff", *model, "--nfe", "5"],
        ["distill", "bns", *model, "--nfe", "5", "--initial", "era"],
    ):
        ended = command(*words)
        assert ended.code == 2, words
        assert "depend on the sample" in " ".join((ended.out + ended.err).split())


def test_a_warning_of_amplification_stands_where_it_is_sampled(tmp_path):
    words = ["--model", "gmm2d", "--solver", "rx-euler", "--nfe", "4", "--samples", "4", "--metrics", "psnr"]
    told = command("bench", *words, "--out", tmp_path / "store")
    assert "extrapolation amplifies 6.57 times" in " ".join((told.out + told.err).split())
    assert "amplifies" not in command("list", "solvers", "--long").out
    with pytest.warns(UserWarning, match="extrapolation amplifies 6.57 times"):
        fastsample.sample("gmm2d", "rx-euler", 4, samples=2)


def test_a_grid_is_found_for_one(tmp_path):
    ended = command("find", "gits", "--model", "gmm2d", "--solver", "era", "--nfe", "5", "--samples", "16")
    assert ended.code == 0, ended.err
