"""Reference solutions: what they are of, and that every result is compared with its own."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console

from fastsample.bench import cells
from fastsample.bench.cells import plan_cells
from fastsample.bench.metrics import integrator, tools
from fastsample.bench.metrics import solution as reference
from fastsample.bench.metrics.error import psnr_values
from fastsample.bench.metrics.integrator import integrate
from fastsample.bench.metrics.solution import reference_for, solution_at
from fastsample.bench.replay import Replay
from fastsample.bench.request import Request
from fastsample.bench.sweep import run_sweep
from fastsample.models.catalogue import open_model
from fastsample.models.noise import normal
from fastsample.models.path import DiscreteVP
from fastsample.results.commands import bench_command
from fastsample.results.comparable import FINGERPRINT, moved
from fastsample.results.protocol import Protocol
from fastsample.results.store import Store
from fastsample.solvers.families import flow_solver
from fastsample.solvers.grids import Grid
from fastsample.solvers.solver import get
from fastsample.solvers.spec import Spec

from ...measuring import row_of, runner_of


def bench(folder, **changes):
    facts = dict(model="gmm2d", solver="heun", nfe=8, samples=20, metrics=("psnr",), precision="float64", out=folder)
    assert run_sweep(Request(**facts | changes), Console(quiet=True)) == []
    return Store(folder, create=False)


def solved(name, indices, steps=640):
    """(denoiser, x at t_data, data prediction there) of these samples, float64."""
    model = open_model(name)
    denoiser = model.make(None, None, 0.0, None)
    x = integrate(denoiser, model.path.prior_std * normal(0, indices, model.shape).double(), steps)
    return denoiser, x, denoiser.x0(x, model.path.t_data)


MODEL = replace(open_model("cifar10-tiny-flow"), num_classes=10, held=None)
FACTS = dict(model=MODEL, seed=0, device="cpu")


def reference_of(**changes):
    asked = {name: changes.pop(name) for name in Protocol.model_fields if name in changes}
    return reference_for(**FACTS | changes, protocol=Protocol(**asked))


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1}, {"precision": "float64"}, {"guidance": 1.5}, {"labels": "balanced"}, {"device": "cuda"},
        {"reference_steps": 50},
        {"model": replace(MODEL, sha256="0" * 64)}, {"model": replace(MODEL, id="other")},
        {"model": replace(MODEL, conditions="1")}, {"model": replace(MODEL, classifier="adm, scale 2")},
        {"model": replace(MODEL, path=DiscreteVP.ddpm())},
    ],
    ids=lambda change: str(next(iter(change))),
)  # fmt: skip
def test_what_decides_the_solutions_is_in_their_name(change):
    assert reference_of(**change).id != reference_of().id
    assert reference_of(**change).folder != reference_of().folder


def test_half_precision_is_measured_against_single(monkeypatch, tmp_path, coarse):
    assert reference_of(precision="bf16").id == reference_of().id
    found = []
    for precision in ("bf16", "float32"):
        monkeypatch.setenv("FASTSAMPLE_HOME", str(tmp_path / precision))
        bench(tmp_path / "store", model="cifar10-tiny-flow", samples=2, nfe=2, solver="euler", precision=precision)
        (file,) = (tmp_path / precision / "references").glob("*/0.npz")
        found.append(np.load(file))
    np.testing.assert_array_equal(found[0]["x"], found[1]["x"])
    one, other = ({row.precision: row for row in Store(tmp_path / "store").rows()}[k] for k in ("bf16", "float32"))
    assert one.metrics["psnr"] != other.metrics["psnr"]
    assert one.metrics["psnr_reference"] == other.metrics["psnr_reference"]


def test_another_integrator_has_another_cache(monkeypatch, tmp_path):
    first = bench(tmp_path / "first").rows()[0]
    monkeypatch.setattr(integrator, "CORRECTOR", integrator.CORRECTOR | {4: (10 / 24, 19 / 24, -5 / 24, 1 / 24)})
    second = bench(tmp_path / "second").rows()[0]
    assert first.protocol["psnr reference"] != second.protocol["psnr reference"]
    assert abs(first.metrics["psnr"] - second.metrics["psnr"]) > 1e-4
    assert moved(first.protocol[FINGERPRINT], second.protocol[FINGERPRINT], same_noise=False)


def test_every_sample_has_its_own_reference(monkeypatch, tmp_path):
    for module in (tools, reference):
        monkeypatch.setattr(module, "BATCH", 4)
    store = bench(tmp_path / "store", batch_size=3)
    denoiser, x, _ = solved("gmm2d", range(20))
    mine = get("heun").plan(denoiser.path, 8)(denoiser, normal(0, range(20), (2,)).double())
    found = store.per_sample(store.rows()[0].cell)["psnr"]
    assert found == pytest.approx(psnr_values(mine, x), abs=1e-6)


@pytest.mark.filterwarnings("ignore:integer-uniform-official has 42 intervals")
@pytest.mark.parametrize(
    ("model", "solver", "grid"),
    [
        ("gmm2d", "dpmpp-2m", None), ("gmm2d", "dpmpp-2m:denoise=true", None), ("gmm2d", "ddim", "integer-uniform"),
        ("gmm2d", "pndm", "integer-uniform-official"), ("gmm2d-flow", "euler-rf", None),
        ("gmm2d-flow-mean", "edm-heun", "vp-time:rho=2"), ("gmm2d-flow-mean", "edm-heun:denoise=true", None),
    ],
)  # fmt: skip
def test_results_are_compared_with_the_solution_where_they_end(model, solver, grid, tmp_path):
    asked = dict(model=model, solver=solver, nfe=50, metrics=("truncation",)) | ({"grid": grid} if grid else {})
    store = bench(tmp_path / "store", **asked)
    spec = Spec.parse(solver).on(Grid.parse(grid) if grid else None)
    denoiser, x, denoised = solved(model, range(20))
    path = denoiser.path
    plan = spec.plan(path, 50)
    mine = plan(denoiser, normal(0, range(20), (2,)).double())
    if spec.options or spec.name in ("ddim", "pndm", "euler-rf"):
        there = denoised
    else:  # the exact solution at the grid's own end
        there = integrate(open_model(model).make(None, None, 0.0, None).on(path.between(path.t_noise, plan.end)),
                          normal(0, range(20), (2,)).double(), 1280)  # fmt: skip
    found = store.rows()[0].metrics["truncation"]
    assert found == pytest.approx(float((mine - there).square().mean().sqrt()), rel=5e-3)
    if plan.end != path.t_data:
        assert abs(found - float((mine - x).square().mean().sqrt())) > 0.02 * found


def test_a_step_beyond_is_the_solution_there():
    denoiser, x, denoised = solved("gmm2d-flow-mean", range(20), 2000)
    path = denoiser.path
    assert solution_at(path.t_data, path, x, denoised) is x
    torch.testing.assert_close(solution_at(1.0, path, x, denoised), denoised)
    near = open_model("gmm2d-flow-mean").make(None, None, 0.0, None).on(path.between(0.0, 0.997))
    exact = integrate(near, normal(0, range(20), (2,)).double(), 2000)
    assert float((solution_at(0.997, path, x, denoised) - exact).abs().max()) < 2e-4
    assert float((x - exact).abs().max()) > 2e-3


def test_the_accuracy_is_that_of_half_the_steps(tmp_path):
    row = bench(tmp_path / "store", model="gmm2d-flow", solver="euler").rows()[0]
    fine, coarse = (solved("gmm2d-flow", range(16), steps)[1] for steps in (640, 320))
    assert row.metrics["psnr_reference"] == pytest.approx(float(psnr_values(fine, coarse).mean()), abs=1e-3)


def test_a_weight_of_a_solver_changes_that_solver_only(monkeypatch, tmp_path):
    solvers = ("heun", "flow-solver", "unipc")
    before = {row.solver: row for row in bench(tmp_path / "before", solver=solvers).rows()}
    true = flow_solver.adams_weights
    monkeypatch.setattr(flow_solver, "adams_weights", lambda *given: [1.01 * w for w in true(*given)])
    after = {row.solver: row for row in bench(tmp_path / "after", solver=solvers).rows()}
    assert {name for name in solvers if before[name].metrics != after[name].metrics} == {"flow-solver"}
    assert abs(after["flow-solver"].metrics["psnr"] - before["flow-solver"].metrics["psnr"]) > 1
    assert all(before[name].protocol == after[name].protocol for name in solvers)


def test_cells_of_other_numerics_are_other_cells(monkeypatch, tmp_path):
    first = bench(tmp_path / "store").rows()
    monkeypatch.setattr(cells, "NUMERICS", cells.NUMERICS + 1)
    both = bench(tmp_path / "store").rows()
    assert (len(first), len(both)) == (1, 2)
    assert len({row.cell for row in both}) == 2


def test_a_run_on_the_second_day_reads_its_references(monkeypatch, tmp_path):
    (cell,), _ = plan_cells(
        Request(model="gmm2d", solver="euler", nfe=4, samples=8, metrics=("psnr",), out=tmp_path / "store"), ("psnr",)
    )
    row = row_of(runner_of(Store(tmp_path / "store")), cell)
    monkeypatch.setattr(reference, "integrate", lambda *_: pytest.fail("solved again"))
    again = row_of(runner_of(Store(tmp_path / "other")), cell)
    assert again.metrics == row.metrics
    assert again.protocol == row.protocol


def test_a_finer_reference_can_be_asked_for(tmp_path):
    asked = dict(model="gmm2d-flow", solver="unipc", nfe=(12,), samples=8, metrics=("psnr",), out=tmp_path / "s")
    for steps in (None, 20, 1280):
        assert run_sweep(Request(**asked, reference_steps=steps), Console(quiet=True)) == []
    rows = {row.protocol.get("reference steps"): row for row in Store(tmp_path / "s").rows()}
    usual, coarse, fine = (rows[key].metrics["psnr"] for key in (None, "20", "1280"))
    assert 10 * abs(fine - usual) < abs(coarse - usual)
    assert "1280 steps" in rows["1280"].protocol["psnr reference"]
    assert "--reference-steps 1280" in bench_command(rows["1280"])
    assert Replay(Store(tmp_path / "s"), "cpu").cell(rows["20"].cell).protocol.reference_steps == 20
