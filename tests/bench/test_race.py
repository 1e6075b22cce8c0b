"""`recommend` that searches, and that says what was not tried."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from fastsample.bench.choice import untried as choice
from fastsample.results.store import Store
from fastsample.solvers.learned.shelf import learned_tables

from ..command import command
from ..rows import row_of

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def few(monkeypatch):
    """A search of six pairs, and two more where the sigmoid grid leads."""
    known = {
        "solver": ["heun", "dpmpp-2m", "ddim"],
        "grid": ["uniform", "sigmoid"],
        "finer": {"sigmoid": ["sigmoid:width=2", "sigmoid:width=5"]},
    }
    monkeypatch.setattr(choice, "_search", lambda: known)


def test_from_nothing_it_says_what_it_costs_and_finds_the_best(few, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    planned = command("recommend", "--model", "gmm2d", "--budget", 4, "--plan").out
    assert "search for gmm2d at NFE 4: 6 pairs of solver and grid on 2 samples" in planned
    assert re.search(r"at most [\d,]+ evaluations for samples and [\d,]+ for reference solutions", planned)
    assert not Path("results-store").exists()
    ended = command("recommend", "--model", "gmm2d", "--budget", 4, "--samples", 16)
    assert ended.code == 0
    assert ended.out.index("search for gmm2d") < ended.out.index("6 on 2 samples: ")
    assert "DPM-Solver++(2M) on grid " in ended.out
    assert "Not tried" not in ended.out
    rows = Store("results-store", create=False).rows()
    assert {row.samples for row in rows} == {16}
    second = Store("results-store/race/8", create=False).rows()
    assert {"sigmoid:width=2", "sigmoid:width=5"} <= {row.grid for row in second}
    best = max(second, key=lambda row: row.metrics["psnr"])
    assert (best.sampler, best.grid) in {(row.sampler, row.grid) for row in rows}
    (again,) = json.loads(command("recommend", "--budget", 4, "--json").out)
    assert again["choice"]["title"] in ended.out
    assert again["untried"] == ""


def test_a_store_says_what_it_has_not_tried_and_the_search_goes_on_with_its_samples(few, tmp_path):
    folder = tmp_path / "store"
    asked = ("--model", "gmm2d", "--solver", "ddim", "--nfe", 4, "--samples", 12, "--metrics", "psnr")
    assert command("bench", *asked, "--grid", "uniform", "--out", folder).code == 0
    told = command("recommend", folder, "--budget", 4).out
    assert (
        "Not tried: 11 of 12 pairs of a training-free solver and a grid at NFE 4 (2 of 3 solvers not at all, " in told
    )
    line = re.search(r"`fastsample (recommend .* --search)` tries them\.", told)[1]
    ended = command(*line.split())
    assert ended.code == 0
    assert "12 samples" in ended.out
    assert {row.samples for row in Store(folder, create=False).rows()} == {12}
    assert "Not tried" not in command("recommend", folder, "--budget", 4).out


def test_a_learned_table_that_ships_is_named_until_it_was_measured(tmp_path):
    table = next(one for one in learned_tables() if (one.model, one.nfe) == ("cifar10-tiny-vp", 8))
    store = Store(tmp_path / "store")
    facts = dict(model=table.model, checkpoint_sha256=table.model_sha256, nfe_asked=8, nfe=8)
    store.finish(row_of("heun", **facts), {})
    told = command("recommend", store.folder, "--budget", 8).out
    assert f"what was learned or found for {table.model}: bns for NFE 8; " in told
    assert "bns for NFE 4" not in told
    assert f"--model {table.model} --budget 8 --search` tries them." in told
    bns = dict(solver="bns", title="BNS", grid="learned", protocol={"noise": "philox", "table": table.sha256})
    store.finish(row_of("bns", **facts | bns, metrics={"psnr": 40.0}), {})
    told = command("recommend", store.folder, "--budget", 8)
    assert told.code == 0
    assert "bns for NFE" not in told.out
    other = Store(tmp_path / "other")
    other.finish(row_of("heun", **facts | {"checkpoint_sha256": "b" * 64}), {})
    assert "bns" not in command("recommend", other.folder, "--budget", 8).out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--search",), "a search is for a --budget"),
        (("--search", "--budget", 4, "--metric", "fd"), "psnr decides it"),
        (("--budget", 4, "--plan"), "are of a search"),
        (("--search", "--budget", 4), "name a model with --model"),
        (("store", "--out", "other", "--budget", 4), "give one"),
    ],
)
def test_what_is_no_search_is_refused(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = command("recommend", *words)
    assert ended.code == 2
    assert message in ended.err
    assert not list(tmp_path.iterdir())


def test_the_search_tries_what_the_documented_one_measures():
    full = tomllib.loads((DOCS / "search.toml").read_text("utf-8"))
    pairs = {(solver, of) for solver, grid in choice.candidates() for of in (grid, *choice.finer(grid))}
    assert pairs == {(solver, grid) for solver in full["solver"] for grid in full["grid"]}


@pytest.mark.slow
def test_on_the_embedded_model_it_finds_what_the_full_search_found(tmp_path):
    """docs/distillation.md: iPNDM of order 3 on nsr:k=1 at NFE 8, 41.29 dB, and BNS 4.93 dB above it."""
    before = os.times()
    words = ["recommend", "--model", "cifar10-tiny-vp", "--budget", "8", "--json"]
    env = {**os.environ, "FASTSAMPLE_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "fastsample.bench", *words]
    ended = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    after = os.times()
    assert ended.returncode == 0, ended.stderr
    (found,) = json.loads(ended.stdout)
    assert found["free"]["value"] > 41.13 - 0.5  # of iPNDM on these 64 samples
    assert found["choice"]["solver"] == "bns"
    assert found["gain"]["low"] > 3.5
    assert found["untried"] == ""
    seconds = sum(getattr(after, name) - getattr(before, name) for name in ("children_user", "children_system"))
    assert seconds < 180
