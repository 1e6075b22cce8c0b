"""`distill --loss`, `--soft`, `--evaluations` and starts that were found, from the command line to marked rows."""

import re

import pytest
import torch

from fastsample.bench.learning.distillation import VALIDATION_SEED, Distillation
from fastsample.bench.learning.losses import loss_named
from fastsample.bench.sampling import Sampler
from fastsample.models.catalogue import open_model
from fastsample.results.store import Store
from fastsample.results.training import trained_on, training_remarks
from fastsample.solvers.learned.fit import fit
from fastsample.solvers.learned.pairs import PSNR, radius
from fastsample.solvers.learned.parameters import Parameters
from fastsample.solvers.learned.shelf import find_table, learned_tables
from fastsample.solvers.learned.starts import Start, parameters_of

from ..command import command

CPU = torch.device("cpu")
SMALL = ["--train", "64", "--validation", "64", "--steps", "3"]
FEW = ["--samples", "16", "--metrics", "psnr"]
FLOW = ["--model", "gmm2d-flow", "--nfe", "4"]


def test_every_new_kind_goes_from_the_command_line_to_a_row(tmp_path):
    kinds = ("gs", "ld3", "s4s", "s4s-alt")
    for kind in kinds:
        assert command("distill", kind, *FLOW, *SMALL).code == 0
    ended = command(
        "bench", *FLOW, "--solver", ",".join(kinds), "--samples", "32", "--metrics", "psnr", "--out", tmp_path / "s"
    )
    assert ended.code == 0, ended.err
    for row in Store(tmp_path / "s").rows():
        assert row.nfe == 4
        assert row.metrics["psnr"] > 40
        assert row.protocol["trained on"] == "squared error"
        assert re.search(r"64 and 64 pairs of seeds \d+ and \d+, [\d,]+ evaluations$", row.protocol["found with"])
    assert find_table("gs", open_model("gmm2d-flow"), 4).times[0] > 0.05


def test_a_soft_fit_and_another_loss_are_solvers_of_their_own(tmp_path):
    for words in (("--soft",), ("--loss", "mse"), ("--loss", "mse", "--soft")):
        assert command("distill", "ld3", *FLOW, *SMALL, *words).code == 0
    files = {file.solver: file for file in learned_tables() if file.model == "gmm2d-flow"}
    assert set(files) >= {"ld3-soft", "ld3-mse", "ld3-mse-soft"}
    assert files["ld3-soft"].training.soft == pytest.approx(0.001 * 2 / 16)
    assert "noises moved by up to 0.000125 sigma (soft)" in files["ld3-soft"].trained_with
    assert files["ld3-mse"].title == "LD3 (mse)"
    assert files["ld3-mse"].trained_on == "squared error"
    ended = command(
        "bench", *FLOW, "--solver", "ld3-mse-soft", "--samples", "8", "--metrics", "psnr", "--out", tmp_path / "s"
    )
    assert ended.code == 0, ended.err


def test_a_fit_ends_by_its_evaluations():
    cost = {}
    for most in (0, 30_000):
        words = ["--train", "64", "--validation", "64", "--evaluations", most] if most else SMALL
        assert command("distill", "gs", *FLOW, *words).code == 0
        (file,) = (file for file in learned_tables() if (file.solver, file.model) == ("gs", "gmm2d-flow"))
        cost[most] = file.training.evaluations
    assert 15_000 < cost[30_000] <= 33_000
    assert file.options["evaluations"] == 30_000


def test_a_metric_of_the_network_that_it_was_trained_on_is_no_evidence():
    for said, judged in (("cifar10-resnet", ("lpips[cifar10-resnet]", "fd[cifar10-resnet]@4")), ("LPIPS", ("lpips",))):
        row = {"protocol.trained on": said, "protocol.found with": "some pairs"}
        for metric in ("lpips", "lpips[cifar10-resnet]", "fd[cifar10-resnet]@4", "psnr", "fid@4"):
            assert len(training_remarks(row, metric)) == 1 + (metric in judged)


@pytest.mark.slow
def test_a_network_is_trained_on_lpips_and_marked(coarse, tmp_path):
    words = ["--model", "cifar10-tiny-flow", "--nfe", "2", "--train", "32", "--validation", "32", "--steps", "1"]
    ended = command("distill", "ld3", *words, "--loss", "lpips[cifar10-resnet]", "--initial", "flow-solver@uniform")
    assert ended.code == 0, ended.err
    name = "ld3-cifar10-resnet"
    asked = ["--model", "cifar10-tiny-flow", "--nfe", "2", "--solver", name, "--samples", "4"]
    ended = command("bench", *asked, "--metrics", "lpips[cifar10-resnet],psnr", "--out", tmp_path / "s")
    assert ended.code == 0, ended.err
    (row,) = Store(tmp_path / "s").frame().to_dict("records")
    assert trained_on(row) == "cifar10-resnet"
    assert "no evidence" in training_remarks(row, "lpips[cifar10-resnet]")[1]
    assert "no evidence" in training_remarks(row, "fd[cifar10-resnet]@4")[1]
    assert len(training_remarks(row, "psnr")) == 1
    (file,) = (file for file in learned_tables() if file.solver == name)
    assert file.training.tried[file.training.initial] >= file.training.history[0][2] > 0


def test_the_loss_in_features_falls_and_is_not_the_squared_error(coarse):
    """One step by each loss on the same pairs: each is better by its own."""
    model = open_model("cifar10-tiny-flow")
    job = Distillation(model, Sampler(CPU), train=8, validation=8)
    few, start = job.pairs(VALIDATION_SEED), Start.parse("euler@uniform")
    loss = loss_named("lpips[cifar10-resnet]", model, CPU)
    found = {}
    for one in (PSNR, loss):
        parameters: Parameters = parameters_of("ld3", model.path, 2, start)
        *_, last = fit(parameters, few, few, iterations=2, loss=one)
        found[one.name] = parameters.table(last.best)
        assert last.validation > last.history[0][2] + 0.2
    moved = (loss.soften(found[loss.name], few).x - few.x).flatten(1).norm(dim=1)  # through the network
    assert 0 < moved.max() <= radius(few, 2) * 1.001
    assert loss.score(found[loss.name], few) > loss.score(found["psnr"], few)
    assert PSNR.score(found["psnr"], few) > PSNR.score(found[loss.name], few)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--loss", "lpip"), "lpips"),
        (("--loss", "lpips"), "lpips is of colour images"),
        (("--loss", "lpips[cifar10-resnet]"), "is of colour images"),
        (("--initial", "dpm-solver-v3:statistics=scalar"), "statistics of gmm2d-flow, which are not found yet"),
    ],
)
def test_what_cannot_be_is_told(words, told):
    ended = command("distill", "bns", *FLOW, *SMALL, *words)
    assert ended.code == 2
    assert told in " ".join(ended.err.split())


def test_a_kind_for_flows_alone_is_refused_elsewhere():
    ended = command("distill", "bns-first", "--model", "gmm2d", "--nfe", "4", *SMALL)
    assert ended.code == 2
    assert "BNS, first time free is for paths that begin with noise alone" in " ".join(ended.err.split())


def test_a_table_on_top_of_statistics(tmp_path):
    assert command("find", "ems", "--model", "gmm2d-flow", "--samples", "32", "--intervals", "16").code == 0
    start = "dpm-solver-v3:order=2,statistics=scalar@quadratic"
    assert command("distill", "bns", *FLOW, *SMALL, "--initial", start).code == 0
    file = find_table("bns", open_model("gmm2d-flow"), 4)
    assert file.training.initial == start
    assert re.search(
        r"evaluations; its start with statistics of 32 samples of seed \d+ at 17 lambdas", file.trained_with
    )
    assert file.training.validation_psnr > file.training.initial_psnr + 3
