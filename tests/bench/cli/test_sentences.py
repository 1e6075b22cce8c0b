"""A sampler's sentence is read before anything runs: what it cannot say is refused, the same said twice is one cell."""

import json

import pytest
from rich.console import Console

from fastsample.bench.cells import plan_cells
from fastsample.bench.cli.listing import solver_page
from fastsample.bench.request import Request
from fastsample.bench.sweep import run_sweep
from fastsample.results.commands import sample_command
from fastsample.results.store import Store
from fastsample.solvers.grids import BudgetError, Grid
from fastsample.solvers.numerics import NUMERICS
from fastsample.solvers.solver import get, solvers

from ...command import command


def refused(told, *words):
    ended = command(*words)
    assert ended.code == 2
    assert told in ended.err.replace("\n", " ")


@pytest.mark.parametrize(
    ("sentence", "told"),
    [
        ("dpmpp-2m:order=9", "solver dpmpp-2m: order runs from 1 to 4, not 9"),
        ("scire:mode=multisteps", "solver scire: unknown mode 'multisteps'; did you mean multistep"),
        ("unipc:variant=bh9", "solver unipc: unknown variant 'bh9'; did you mean bh"),
        ("scire:phi=seven", "phi is m3, limit, fd, code-root, code-sd or a positive number, not 'seven'"),
        ("deis:order=0", "order runs from 1 to 3, not 0"),
        ("ipndm:order=5", "order runs from 1 to 4, not 5"),
        ("edm-dpm2:r=0", "r runs from 0.05 to 1, not 0"),
        ("ddpm:eta=2", "eta runs from 0 to 1, not 2"),
        ("dopri5:rtol=nan", "rtol runs from 1e-13 to 1, not nan"),
        ("edm-sde:S_churn=-5", "S_churn runs from 0 to 1e+06, not -5"),
        ("unipc:order=two", "order takes an integer, not 'two'"),
        ("unipc:official=maybe", "official is true or false, not 'maybe'"),
        ("ddim@karras:rho=0", "grid karras: rho=0 is out of range; rho is a number from 1 to 1000"),
    ],
)
def test_a_value_that_cannot_be_leaves_out_its_own_cells(sentence, told, tmp_path):
    words = ["bench", "--model", "gmm2d", "--nfe", "6", "--samples", "4", "--metrics", "psnr", "--out", tmp_path / "s"]
    refused(told, *words, "--solver", sentence)
    assert not (tmp_path / "s").exists()
    done = command(*words, "--solver", f"{sentence},euler")
    assert done.code == 1
    assert f"failed: {sentence}: " in done.err
    assert told in done.err
    assert [row.solver for row in Store(tmp_path / "s").rows()] == ["euler"]


def test_a_parameter_that_cannot_be_leaves_out_its_grid(tmp_path):
    words = ["bench", "--model", "gmm2d", "--nfe", "6", "--samples", "4", "--metrics", "psnr", "--out", tmp_path / "s"]
    refused("rho is a number from", *words, "--solver", "ddim", "--grid", "karras:rho=0")
    done = command(*words, "--solver", "ddim", "--grid", "karras:rho=0,vp-time:rho=2,eps=0.01,logsnr")
    assert done.code == 1
    assert "failed: karras:rho=0: grid karras: rho=0 is out of range" in done.err
    assert {row.grid for row in Store(tmp_path / "s").rows()} == {"vp-time:eps=0.01,rho=2", "logsnr"}


@pytest.mark.parametrize(
    ("sentence", "told"),
    [
        ("scyre", "unknown solver 'scyre'; did you mean scire"),
        ("scire:ordr=3", "unknown option of solver scire 'ordr'; did you mean order"),
        ("scire@karas", "unknown grid 'karas'; did you mean karras"),
        ("scire@karras:roh=3", "unknown parameter of grid karras 'roh'; did you mean rho"),
        ("scire:order", "write order=VALUE"),
        ("scire:order=2,order=3", "order is given twice"),
        ("dopri5@karras", "the times of dopri5 are its own: leave @karras out"),
        ("bns@karras", "the times of bns are its own: leave @karras out"),
        ("bns:order=2", "solver bns is a table and takes no options"),
    ],
)
def test_what_is_unknown_ends_the_request(sentence, told, tmp_path):
    words = ["bench", "--model", "gmm2d", "--nfe", "6", "--samples", "4", "--metrics", "psnr", "--out", tmp_path / "s"]
    refused(told, *words, "--solver", f"euler,{sentence}")
    refused(told, "export", "--model", "gmm2d", "--to", "json", "--nfe", "6", "--solver", sentence)
    assert not (tmp_path / "s").exists()


def test_a_grid_in_the_sentence_wins_over_the_others(tmp_path):
    words = ["bench", "--model", "gmm2d", "--nfe", "6", "--samples", "4", "--metrics", "psnr", "--out", tmp_path / "s"]
    solvers = "scire:order=3,mode=multistep@karras:rho=5,ddim,edm-heun@vp-time:rho=2,eps=0.01"
    assert command(*words, "--solver", solvers, "--grid", "logsnr,uniform").code == 0
    found = sorted((row.solver, row.grid) for row in Store(tmp_path / "s").rows())
    assert found == [
        ("ddim", "logsnr"), ("ddim", "uniform"), ("edm-heun", "vp-time:eps=0.01,rho=2"), ("scire", "karras:rho=5"),
    ]  # fmt: skip
    one = command("explain", "dpmpp-2m@karras", "--nfe", "4", "--model", "gmm2d", "--grid", "uniform", "--json")
    times = [row["t"] for row in json.loads(one.out)["rows"]]
    assert times[:4] == pytest.approx(Grid.parse("karras")(request_path(), 4, 1.0, 1e-3)[:4])


@pytest.mark.parametrize("solver", ["scire-v2", "dpm-solver-2m", "dpm-solver-3m", "dpm-solver-2", "scirei"])
def test_a_grid_that_a_method_cannot_take_is_told_before_anything_runs(solver, tmp_path):
    words = ["--model", "gmm2d", "--grid", "integer-uniform", "--nfe", "4"]
    bench = ["bench", *words, "--samples", "4", "--metrics", "psnr", "--out", tmp_path / "s"]
    refused("ends at clean data", *bench, "--solver", solver)
    done = command(*bench, "--solver", f"{solver},ddim")
    assert done.code == 1
    assert f"failed: gmm2d {solver} integer-uniform NFE 4: solver {solver} at NFE 4: " in done.err
    assert [row.solver for row in Store(tmp_path / "s").rows()] == ["ddim"]
    picture = ["sample", *words, "--model", "gmm-image", "--samples", "2", "--solver", solver, "-o", tmp_path / "x.png"]
    refused("ends at clean data", *picture)
    assert not (tmp_path / "x.png").exists()


def test_only_a_budget_that_cannot_be_spent_is_skipped(tmp_path):
    words = ["bench", "--model", "gmm2d", "--samples", "4", "--metrics", "psnr", "--out", tmp_path / "s"]
    done = command(*words, "--solver", "heun", "--nfe", "1,4")
    assert done.code == 0
    assert "skipped gmm2d heun NFE 1: solver heun at NFE 1: needs at least 2 evaluations, not 1" in " ".join(
        done.out.split()
    )
    refused("needs at least 2 evaluations", *words, "--solver", "heun", "--nfe", "1")
    for name in ("heun", "dpm-solver-3", "scire", "pndm", "flow-solver"):
        with pytest.raises(BudgetError):
            get(name).plan(get(name).integration_path(request_path()), 0)


def request_path():
    (cell,), _ = plan_cells(Request(model="gmm2d", solver="ddim", nfe=4), ("psnr",))
    return cell.model.path


def test_sentences_that_say_the_same_are_one_cell(tmp_path):
    asked = dict(model="gmm2d", nfe=(6, 6), samples=4, out=tmp_path / "s")
    same = ("scire", "scire:order=2", "scire:mode=singlestep_agile,phi=m3")
    request = Request(solver=same, metrics=("psnr",), **asked)
    cells, _ = plan_cells(request, request.metrics)
    assert len(cells) == 1
    for metrics in (("psnr", "truncation"), ("truncation", "psnr")):
        for solver in (("scire", "ddim"), ("ddim", "scire:order=2")):
            request = Request(solver=solver, metrics=metrics, **asked)
            assert run_sweep(request, Console(quiet=True)) == []
    assert len(Store(tmp_path / "s").rows()) == 2


def test_closed_choices_are_printed_and_every_default_is_one_of_them():
    for solver in solvers().values():
        for key, known in solver.choices.items():
            assert solver.known_options[key] in known, (solver.name, key)
    assert "variant=bh2 (bh1/bh2/vary_coeff)" in solver_page()


def test_an_adaptive_solver_takes_no_grid_and_a_grid_may_have_several_parameters(tmp_path):
    words = ["bench", "--model", "gmm2d", "--samples", "4", "--metrics", "psnr", "--out", tmp_path / "s", "--nfe", "5"]
    refused("the times of dopri5 are their own: leave --grid out", *words, "--solver", "dopri5", "--grid", "karras")
    assert command(*words, "--solver", "dopri5,ddim", "--grid", "vp-time:rho=2,eps=0.01").code == 0
    rows = {row.solver: row for row in Store(tmp_path / "s").rows()}
    assert (rows["dopri5"].grid, rows["ddim"].grid) == ("uniform", "vp-time:eps=0.01,rho=2")
    assert "--grid" not in sample_command(rows["dopri5"])
    assert rows["ddim"].protocol["numerics"] == str(NUMERICS)


def test_rows_of_other_numerics_do_not_share_a_table(tmp_path, monkeypatch):
    words = ["bench", "--model", "gmm2d", "--samples", "20", "--metrics", "psnr", "--out", tmp_path / "s", "--nfe", "5"]
    assert command(*words, "--solver", "ddim,unipc").code == 0
    for module in ("fastsample.bench.cells", "fastsample.bench.run"):
        monkeypatch.setattr(f"{module}.NUMERICS", NUMERICS + 1)
    assert command(*words, "--solver", "ddim").code == 0
    refused(f"numerics is '{NUMERICS}' in one row and '{NUMERICS + 1}' in another", "table", tmp_path / "s")


@pytest.mark.parametrize("words", [["--metrics", ""], ["--solver", ""], ["--solver", "edm-sde:S_max=inf"]])
def test_nothing_and_no_number_are_refused(words, tmp_path):
    ended = command("bench", "--model", "gmm2d", "--nfe", "4", "--samples", "4", "--out", tmp_path / "s", *words)
    assert ended.code == 2
    assert not (tmp_path / "s").exists()


def test_a_picture_that_cannot_be_written_leaves_the_old_one(tmp_path):
    (tmp_path / "good.png").write_bytes(b"old")
    words = ["sample", "--model", "gmm-image", "--solver", "euler", "--nfe", "2", "--samples", "4", "-o"]
    refused("pictures of samples are written as .png", *words, tmp_path / "a.xyz")
    assert command(*words, tmp_path / "good.png").code == 0
    assert (tmp_path / "good.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["good.png"]
