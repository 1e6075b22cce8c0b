"""Learned tables on other models and at other NFE, and the matrix of what they reach there."""

import io
import shutil

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import torch

from fastsample.bench.learning.distillation import Distillation
from fastsample.bench.sampling import Sampler
from fastsample.models.catalogue import open_model
from fastsample.results.commands import bench_command
from fastsample.results.store import Store
from fastsample.solvers.learned.shelf import add_table, find_table
from fastsample.solvers.spec import Spec

from ..command import command

FLOW, MEAN, VP = "gmm2d-flow", "gmm2d-flow-mean", "gmm2d"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home with tables of both kinds at NFE 4, for two models of one path."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTSAMPLE_HOME", str(folder))
        for name in (FLOW, MEAN):
            job = Distillation(open_model(name), Sampler(torch.device("cpu")), train=32, validation=32)
            add_table(job.run("bns", 4, initial="euler@uniform", steps=3))
            if name == FLOW:
                add_table(job.run("times", 4, initial="dpmpp-2m@uniform", steps=6))
    return folder


@pytest.fixture(scope="module")
def made(home):
    """Both kinds on both models at NFE 4 and 6, where they run, and two training-free solvers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTSAMPLE_HOME", str(home))
        words = ("--nfe", "4,6", "--samples", 32, "--metrics", "psnr", "--out", home / "store")
        solvers = (
            "bns,times,bns:transfer=gmm2d-flow,bns:transfer=gmm2d-flow-mean,times:transfer=gmm2d-flow,trained_nfe=4"
        )
        ended = command("bench", "--model", f"{FLOW},{MEAN}", "--solver", f"{solvers},euler,dpmpp-2m", *words)
    assert "times at NFE 4 on gmm2d-flow-mean: there is no table" in " ".join((ended.out + ended.err).split())
    return home / "store"


@pytest.fixture
def store(home, made, tmp_path, monkeypatch):
    """A copy of that."""
    monkeypatch.setenv("FASTSAMPLE_HOME", str(home))
    shutil.copytree(made, tmp_path / "store")
    return tmp_path / "store"


def test_the_matrix_says_whose_table_ran_where(store):
    ended = command("plot", store, "--kind", "transfer", "--format", "csv")
    assert ended.code == 0
    bns, times = (pd.read_csv(io.StringIO(text)) for text in ended.out.split("\n\n"))
    ran = bns.dropna(subset=["value"])
    assert set(zip(ran["trained_model"], ran["trained_nfe"], ran["model"], ran["nfe"], strict=True)) == {
        (source, 4, place, 4) for source in (FLOW, MEAN) for place in (FLOW, MEAN)
    }
    ran = times.dropna(subset=["value"])
    assert set(zip(ran["trained_model"], ran["model"], ran["nfe"], strict=True)) == {
        (FLOW, place, nfe) for place in (FLOW, MEAN) for nfe in (4, 6)
    }
    assert ran["trained_on"].str.contains("squared error: 32 and 32 pairs of seeds").all()
    rows = {(row.model, row.sampler, row.nfe_asked): row.metrics["psnr"] for row in Store(store, create=False).rows()}
    assert rows[FLOW, "bns", 4] == bns.set_index(["trained_model", "model"]).at[(FLOW, FLOW), "value"]
    assert rows[MEAN, f"bns:transfer={FLOW}", 4] == bns.set_index(["trained_model", "model"]).at[(FLOW, MEAN), "value"]
    assert rows[FLOW, "times:trained_nfe=4", 6] == times.set_index(["model", "nfe"]).at[(FLOW, 6), "value"]
    assert rows[FLOW, "times", 4] > rows[FLOW, "dpmpp-2m", 4]


def test_an_empty_place_says_why(store, home):
    words = ("bench", "--nfe", "6", "--samples", 32, "--metrics", "psnr", "--out", store)
    assert command(*words, "--model", FLOW, "--solver", "bns:transfer=gmm2d-flow,trained_nfe=4,euler").code == 0
    told = command(*words, "--model", FLOW, "--solver", "bns:trained_nfe=4")
    assert told.code == 2
    assert "its table has 4 rows; learned times alone go elsewhere" in " ".join(told.err.split())
    told = command(*words, "--model", VP, "--solver", "bns:transfer=gmm2d-flow,trained_nfe=4")
    assert "has times of the path flow, and gmm2d is on vp-linear" in " ".join(told.err.split())
    command("distill", "bns", "--model", FLOW, "--nfe", 6, "--train", 32, "--validation", 32, "--steps", 1,
            "--initial", "euler@uniform")  # fmt: skip
    assert command(*words, "--model", FLOW, "--solver", "bns").code == 0
    (home / "tables" / f"bns-{FLOW}-6.json").unlink()
    shown = " ".join(command("plot", store, "--kind", "transfer", "--format", "markdown").out.split())
    assert "its table has 4 rows; learned times alone go elsewhere" in shown


def test_differences_are_from_the_best_training_free_solver_of_the_column(store):
    words = ("plot", store, "--kind", "transfer", "--against", "best", "--format", "csv")
    bns = pd.read_csv(io.StringIO(command(*words).out.split("\n\n")[0]))
    rows = {(row.model, row.sampler, row.nfe_asked): row.metrics["psnr"] for row in Store(store, create=False).rows()}
    for model in (FLOW, MEAN):
        best = max(rows[model, name, 4] for name in ("euler", "dpmpp-2m"))
        line = bns[(bns["model"] == model) & (bns["nfe"] == 4) & (bns["trained_model"] == model)].iloc[0]
        assert line["value"] == pytest.approx(rows[model, "bns", 4] - best)
        assert line["low"] < line["value"] < line["high"]


def test_it_is_drawn_and_printed(store, tmp_path):
    assert command("plot", store, "--kind", "transfer", "-o", tmp_path / "matrix.png").code == 0
    assert np.ptp(matplotlib.image.imread(tmp_path / "matrix.png")) > 0.5
    shown = command("plot", store, "--kind", "transfer", "--format", "rich").out
    assert "trained on squared error" in " ".join(shown.split())
    assert command("plot", store, "--kind", "quality", "--format", "csv").code == 2
    assert command("plot", store, "--kind", "transfer", "--solver", "euler").code == 2
    assert command("plot", store, "--kind", "transfer", "--metric", "psnr,fd").code == 2


def test_a_row_names_the_command_and_is_sampled_again(store, tmp_path):
    rows = {(row.model, row.sampler, row.nfe_asked): row for row in Store(store, create=False).rows()}
    row = rows[MEAN, f"times:transfer={FLOW},trained_nfe=4", 6]
    assert f"--solver times:transfer={FLOW},trained_nfe=4 --nfe 6" in bench_command(row)
    assert command("plot", store, "--kind", "error", "--images", 4, "-o", tmp_path / "error.png").code == 0


def test_learned_times_are_read_off_between_their_points(store):
    model = open_model(FLOW)
    file = find_table("times", model, 4)
    _, carried = Spec.parse("times:trained_nfe=4").plan_for(model, 8)
    nodes = [*file.times, file.end]
    assert carried.nfe == 8
    np.testing.assert_allclose(carried.times[1:], np.interp(np.arange(1, 8) / 8, np.arange(5) / 4, nodes), rtol=1e-9)
    assert carried.trained_on == file.trained_on == "squared error"
