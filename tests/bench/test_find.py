"""`fastsample find` from the command line to rows of the benchmark, on exact models."""

import re

import pytest
import torch

from fastsample.bench.finding import Finding
from fastsample.bench.learning.distillation import VALIDATION_SEED, Distillation
from fastsample.bench.replay import Replay
from fastsample.bench.sampling import Sampler, choose_device
from fastsample.models.catalogue import open_model
from fastsample.results.store import Store
from fastsample.results.training import trained_on, training_remarks
from fastsample.solvers.found.shelf import found_statistics
from fastsample.solvers.grids import Grid
from fastsample.solvers.spec import Spec

from ..command import command

FEW = ["--samples", "16"]
NAMED = ("karras", "logsnr", "sigmoid", "uniform", "quadratic", "nsr", "shift")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTSAMPLE_HOME", str(tmp_path / "home"))


def finding(name):
    return Finding(open_model(name), Sampler(choose_device("cpu")), samples=16)


def test_a_found_grid_is_used_by_its_name_and_marked(tmp_path):
    asked = ["--model", "gmm2d", "--solver", "dpmpp-2m"]
    assert command("find", "gits", *asked, "--nfe", "5", *FEW).code == 0
    words = [*asked, "--nfe", "5,6", "--samples", "64", "--metrics", "psnr"]
    ended = command("bench", *words, "--grid", "gits,logsnr", "--out", tmp_path / "store")
    assert ended.code == 0
    assert "grid gits is not found yet for dpmpp-2m" in " ".join((ended.out + ended.err).split())
    rows = {(row.grid, row.nfe_asked): row for row in Store(tmp_path / "store").rows()}
    assert set(rows) == {("gits", 5), ("logsnr", 5), ("logsnr", 6)}
    row = rows["gits", 5]
    assert row.metrics["psnr"] > rows["logsnr", 5].metrics["psnr"] + 3
    assert row.protocol["trained on"] == "squared error"
    assert re.search(r"16 noises of seed 2147483749, [\d,]+ evaluations", row.protocol["found with"])
    assert Replay(Store(tmp_path / "store"), "cpu").cell(row.cell).plan.times == tuple(row.times)
    for told in (
        command("show", tmp_path / "store").out,
        command("table", tmp_path / "store").out,
        command("recommend", tmp_path / "store", "--budget", "5").out,
    ):
        assert "trained on" in " ".join(told.split())


@pytest.mark.parametrize("name", ["gits", "oss", "dmn"])
def test_what_is_found_is_the_same_again_and_after_another_budget(name):
    searches = finding("gmm2d-flow"), finding("gmm2d-flow")
    searches[1].grid(name, Spec.parse("ipndm"), 3)  # what the budgets share is made once, and costs each
    found = [search.grid(name, Spec.parse("ipndm"), 4) for search in searches]
    assert found[0] == found[1]
    assert len(found[0].times) == 5
    assert (found[0].evaluations == 0) == (name == "dmn")
    assert found[0].trained_on == ("nothing" if name == "dmn" else "squared error")


def test_published_settings_stand_as_they_are():
    found = finding("gmm2d").grid("gits", Spec.parse("ipndm"), 4, official=True)
    assert (found.settings, found.psnr) == ("teacher of 60 steps on karras, dev, 1.15", {})
    assert found.evaluations == 16 * 60


def test_statistics_are_found_once_and_used(tmp_path):
    solver = "dpm-solver-v3:order=1,corrector=true,pseudo_corrector=true"
    words = ["--model", "gmm2d-flow", "--solver", solver, "--solver", f"{solver},statistics=data", "--nfe", "6"]
    words += ["--grid", "quadratic", "--samples", "64", "--metrics", "psnr", "--out", tmp_path / "store"]
    assert "`fastsample find ems --model gmm2d-flow` finds them" in " ".join(command("bench", *words).out.split())
    assert command("find", "ems", "--model", "gmm2d-flow", "--samples", "256").code == 0
    assert command("bench", *words).code == 0
    rows = {row.settings["statistics"]: row for row in Store(tmp_path / "store").rows()}
    assert rows["coordinate"].metrics["psnr"] > rows["data"].metrics["psnr"] + 3
    assert rows["coordinate"].protocol["trained on"] == "statistics"
    assert rows["coordinate"].statistics == found_statistics(open_model("gmm2d-flow")).facts["sha256"]
    assert "trained on" not in rows["data"].protocol
    assert rows["coordinate"].nfe == 6
    told = command("recommend", tmp_path / "store", "--budget", "6").out
    assert "(trained on statistics)" in told
    assert "--solver dpm-solver-v3:order=1,corrector=true" not in told.partition("fastsample export")[2]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["gitz"], "unknown search 'gitz'"),
        (["ems", "--nfe", "5"], "statistics are of a model alone: leave --solver, --nfe and --official out"),
        (["oss", "--solver", "ipndm@karras"], "find oss finds the grid: leave @karras out"),
        (["dmn", "--model", "gmm2d", "--solver", "dopri5"], "a grid is found for a solver with steps of its own"),
        (["dmn", "--model", "gmm2d", "--solver", "ddpm"], "a grid is found for a solver with steps of its own"),
        (["dmn", "--model", "gmm2d", "--solver", "dpmpp-3s:mode=fixed", "--nfe", "6"], "steps from time to time"),
    ],
)
def test_what_cannot_be_found_is_said_in_a_sentence(words, told):
    ended = command("find", *words)
    assert ended.code == 2
    assert told in " ".join(ended.err.split())


def test_a_metric_does_not_judge_what_was_trained_on_its_network():
    row = {"protocol.trained on": "Inception", "protocol.found with": "10 images"}
    assert training_remarks(row, "psnr") == ("trained on Inception: 10 images",)
    for metric in ("fid@1000", "kid[inception-v3-compat]@1000"):
        assert training_remarks(row, metric)[1] == f"Inception is what {metric} is made of: no evidence for its rank"
    assert len(training_remarks({"protocol.trained on": "LPIPS"}, "lpips")) == 2
    assert len(training_remarks({"protocol.trained on": "LPIPS"}, "fid@1000")) == 1
    assert training_remarks({"protocol.trained on": float("nan")}, "psnr") == ()
    assert trained_on({"protocol.trained against": "a table of an older version"}) == "squared error"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cifar10-tiny-vp", "cifar10-tiny-flow"])
def test_a_grid_for_an_embedded_model_is_no_worse_than_the_best_named_one(name):
    """On 32 noises that the search has not seen, paired, for the solvers that are asked for grids most."""
    model, sampler = open_model(name), Sampler(choose_device("cpu"))
    job = Finding(model, sampler, samples=32)
    fresh = Distillation(model, sampler, validation=32).pairs(VALIDATION_SEED)
    for solver in ("ipndm", "dpmpp-2m"):
        found = job.grid("gits", Spec.parse(solver), 5)
        score = {}
        for grid in (Grid("gits", times=found.times), *map(Grid, NAMED)):
            plan = Spec(solver, grid=grid).plan(model.path, 5)
            with torch.inference_mode():
                x = plan(fresh.make(range(len(fresh.x))), fresh.x)
            score[grid.name] = -10 * (x - fresh.y).double().square().flatten(1).mean(1).log10()
        best = max((grid for grid in score if grid != "gits"), key=lambda grid: score[grid].mean().item())
        gain = score["gits"] - score[best]
        assert gain.mean() - 2 * gain.std() / len(gain) ** 0.5 > 0, (name, solver, best, gain.mean())
