"""A sampler's sentence is read before anything runs: what it cannot say is refused, the same said twice is one cell."""

import pytest
from rich.console import Console

from fastsample.bench.cells import plan_cells
from fastsample.bench.cli.listing import solver_page
from fastsample.bench.request import Request
from fastsample.bench.sweep import run_sweep
from fastsample.results.commands import sample_command
from fastsample.results.store import Store
from fastsample.solvers.grids import BudgetError
from fastsample.solvers.numerics import NUMERICS
from fastsample.solvers.solver import get, solvers

from ..command import command


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
    ],
)
def test_an_option_that_cannot_be_ends_the_request(sentence, told, tmp_path):
    words = ["bench", "--model", "gmm2d", "--nfe", "6", "--samples", "4", "--metrics", "psnr", "--out", tmp_path / "s"]
    refused(told, *words, "--solver", f"euler,{sentence}")
    assert not (tmp_path / "s").exists()


def test_only_a_budget_that_cannot_be_spent_is_skipped(tmp_path):
    words = ["bench", "--model", "gmm2d", "--samples", "4", "--metrics", "psnr", "--out", tmp_path / "s"]
    done = command(*words, "--solver", "heun", "--nfe", "1,4")
    assert done.code == 0
    assert "skipped gmm2d heun NFE 1: solver heun at NFE 1: needs at least 2 evaluations, not 1" in done.out
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
