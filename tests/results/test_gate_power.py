"""The gate catches a solver whose coefficient is off by 1 %: NFE 10, 1,000 samples of an embedded model."""

import pytest
from rich.console import Console

from fastsample.bench.request import Request
from fastsample.bench.sweep import run_sweep
from fastsample.results.baseline import baseline_of
from fastsample.results.gate import check
from fastsample.results.store import Store
from fastsample.solvers import exponential
from fastsample.solvers.families import dpm_multistep as dpm_solver_multistep
from fastsample.solvers.families import flow_solver


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs a sweep into a folder; all runs share the reference solutions of the right code."""
    home = tmp_path_factory.mktemp("home")

    def run(folder, solvers):
        request = Request(model="cifar10-tiny-flow", solver=solvers, samples=1000, metrics=("psnr", "fd"), out=folder)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FASTSAMPLE_HOME", str(home))
            assert run_sweep(request, Console(quiet=True)) == []
        return Store(folder, create=False)

    return run


@pytest.fixture(scope="module")
def baseline(run, tmp_path_factory):
    return baseline_of(run(tmp_path_factory.mktemp("right") / "store", ("dpmpp-2m", "flow-solver")))


def second_difference(patch, factor):
    """The coefficient 1/2 of D10 in DPM-Solver++(2M)."""
    right = dpm_solver_multistep.adams_half
    patch.setattr(dpm_solver_multistep, "adams_half", lambda b: right(lambda h: factor * b(h)))


def phi(patch, factor):
    """phi of the exponential integrators."""
    right = exponential.psi
    patch.setattr(exponential, "psi", lambda k, h: factor * right(k, h))


def newest_velocity(patch, factor):
    """The coefficient of the newest velocity in Flow-Solver."""
    right = flow_solver.adams_weights

    def wrong(*words):
        first, *rest = right(*words)
        return [factor * first, *rest]

    patch.setattr(flow_solver, "adams_weights", wrong)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mistake", "factor", "solver", "verdict"),
    [
        (second_difference, 0.99, "dpmpp-2m", "regression"),
        (second_difference, 1.01, "dpmpp-2m", "change"),  # it happens to help, by 0.24 dB
        (phi, 1.01, "dpmpp-2m", "change"),  # by 1.5 dB
        (newest_velocity, 1.01, "flow-solver", "change"),  # by 1.0 dB
    ],
)
def test_a_coefficient_off_by_one_per_cent_is_caught(
    run, baseline, tmp_path, monkeypatch, mistake, factor, solver, verdict
):
    mistake(monkeypatch, factor)
    findings = check(run(tmp_path / "store", (solver,)), baseline, strict=True)
    (found,) = [one for one in findings if solver in one.cell and one.metric == "psnr"]
    assert found.verdict == verdict
    assert found.change.excludes_zero
