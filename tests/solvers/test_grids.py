"""Grids: strictly monotone from one end of the interval to the other, or refused."""

import itertools
import json
import re
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from fastsample.bench.cli.app import app
from fastsample.models.analytic import ring_mixture
from fastsample.models.path import ScaledFlow, path_named
from fastsample.solvers.grids import _RANGES, GRIDS, Grid, GridError
from fastsample.solvers.solver import get, solvers
from fastsample.solvers.spec import Spec
from fastsample.solvers.table import trace

PATHS = [path_named(name) for name in ("vp-linear", "sub-vp", "vp-cosine", "vp-discrete", "edm", "flow", "flow-cosine")]
PATHS += [ScaledFlow(scale=5.0), *(get("edm-heun").integration_path(path) for path in PATHS)]
REAL = [name for name in GRIDS if not name.startswith("integer-")]


def assert_grid(times, start, end):
    way = 1 if end > start else -1
    assert all(way * (b - a) > 0 for a, b in pairwise(times))
    assert times[0] == pytest.approx(start, rel=1e-6, abs=1e-9)
    assert times[-1] == pytest.approx(end, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", REAL)
def test_every_grid_in_the_range_of_its_parameters_is_one_on_every_path(name):
    rng = np.random.default_rng(0)
    ends = [itertools.product(*([low, high] for low, high in _RANGES[name].values()))]
    drawn = ([float(rng.uniform(low, high)) for low, high in _RANGES[name].values()] for _ in range(8))
    for values in {(), *map(tuple, itertools.chain(*ends, drawn))}:
        grid = Grid.parse(f"{name}:" + ",".join(f"{k}={v!r}" for k, v in zip(_RANGES[name], values, strict=False)))
        assert Grid.parse(str(grid)) == grid
        for path, n in itertools.product(PATHS, (1, 2, 13, 100)):
            times = grid(path, n, path.t_noise, path.t_data)
            assert len(times) == n + 1
            starts = {path.t_noise, path.t_finite}
            assert_grid(times, min(starts, key=lambda start: abs(start - times[0])), path.t_data)


@pytest.mark.parametrize("name", REAL)
def test_values_out_of_range_are_refused_with_the_range(name):
    for key, (low, high) in _RANGES[name].items():
        for value in ("nan", "inf", "-inf", "-1e300", "1e300", repr(np.nextafter(low, -1)), repr(high * 1.001)):
            if "(" in value:
                value = value[value.index("(") + 1 : -1]
            with pytest.raises(ValueError, match=f"{key} is a number from") as refused:
                Grid.parse(f"{name}:{key}={value}")
            assert f"from {low:g} to {high:g}" in str(refused.value)


@pytest.mark.parametrize(
    "grid",
    ["nsr:k=nan", "nsr:k=-1", "karras:rho=-1", "karras:rho=0", "sigmoid:width=-3", "sigmoid:width=0", "shift:s=-0.5",
     "shift:s=0", "vp-time:sigma_max=inf", "vp-time:rho=0", "vp-time:eps=1", "sigmoid:width=800", "karras:rho=1e-3"],
)  # fmt: skip
def test_a_sweep_on_no_grid_ends_before_its_first_row(grid, tmp_path):
    words = ["bench", "--model", "gmm2d", "--solver", "edm-heun", "--grid", grid, "--out", str(tmp_path / "store")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code != 0
    key = grid.partition(":")[2].partition("=")[0]
    assert f"{key} is a number from" in str(result.exception)
    assert not list((tmp_path / "store").glob("rows/*"))


def test_no_grid_where_its_coordinate_is_infinite():
    path = path_named("flow").between(0.0, 1.0)
    for name in ("logsnr", "sigmoid", "nsr"):
        with pytest.raises(ValueError, match=f"the times of grid {name} do not run strictly from 0 to 1"):
            Grid.parse(name)(path, 4, 0.0, 1.0)
    assert_grid(Grid.parse("karras")(path, 4, 0.0, 1.0), 1e-3, 1.0)


def test_vp_time_follows_the_interval_and_is_the_original_where_it_was_fitted():
    edm = path_named("edm")
    low, high = np.log1p(0.002**2), np.log1p(80.0**2)
    beta_d = 2 * (low / 1e-3 - high) / (1e-3 - 1)
    v = np.linspace(1, 1e-3, 11)
    expected = np.sqrt(np.expm1(0.5 * beta_d * v * v + (high - 0.5 * beta_d) * v))
    np.testing.assert_allclose(Grid.parse("vp-time")(edm, 10, 80.0, 0.002), expected, rtol=1e-9)
    assert_grid(Grid.parse("vp-time:rho=2")(edm, 10, 152.0, 0.01), 152.0, 0.01)


@pytest.mark.parametrize("width", [0.5, 3.0, 8.0])
def test_the_sigmoid_grid_is_the_logistic_of_equal_steps(width):
    """Its lambdas, mapped back by the logistic of slope `width`, are equal steps: dense in the middle."""
    path = path_named("vp-linear")
    times = Grid.parse("sigmoid" if width == 3 else f"sigmoid:width={width}")(path, 12, path.t_noise, path.t_data)
    lams = np.array([path.lam(t) for t in times])
    z = 2 * (lams - lams[0]) / (lams[-1] - lams[0]) - 1
    np.testing.assert_allclose(np.diff(1 / (1 + np.exp(-width * z)), 2), 0, atol=1e-9)


def test_official_integer_grids_alone_may_repeat_an_entry():
    path = path_named("vp-discrete")
    official = Grid.parse("integer-quad-official")(path, 300, 1.0, path.t_data)
    assert any(a == b for a, b in pairwise(official))
    assert all(a > b for a, b in pairwise(Grid.parse("integer-quad")(path, 300, 1.0, path.t_data)))
    assert official[-1] == 0.0
    with pytest.raises(ValueError, match="at most 1000 intervals"):
        Grid.parse("integer-quad")(path, 1001, 1.0, path.t_data)
    assert len(Grid.parse("integer-uniform-official")(path, 1001, 1.0, path.t_data)) == 1001
    with pytest.raises(ValueError, match=r"do not run strictly from 1 to 0.5"):
        Grid.parse("integer-uniform")(path, 10, 1.0, 0.5)


def file_grid(folder, times, n=3, path="edm", solver="edm-heun"):
    (folder / "times").write_text(json.dumps(times))
    return get(solver).plan(path_named(path), 2 * n, f"file:{folder / 'times'}").times


@pytest.mark.parametrize(
    "times",
    [
        (79.0, 10.0, 1.0, 0.002),
        (80.0, 10.0, 1.0, 0.003),
        (80.1, 10.0, 1.0, 0.002),
        (80.0, 10.0, 1.0, 0.001),
        (80.0, 1.0, 1.0, 0.002),
        (80.0, 1.0, 10.0, 0.002),
        (80.0, float("nan"), 1.0, 0.002),
        (0.002, 1.0, 10.0, 80.0),
    ],
)
def test_a_file_s_times_run_from_end_to_end(times, tmp_path):
    with pytest.raises(ValueError, match=r"do not run strictly from 80 to 0.002, the interval on the edm path"):
        file_grid(tmp_path, times)


def test_a_file_s_ends_are_those_of_the_interval_up_to_its_digits(tmp_path):
    assert file_grid(tmp_path, (80.0, 10.0, 1.0, 0.002)) == (80.0, 10.0, 1.0, 0.002)
    own = get("edm-heun").integration_path(path_named("vp-linear"))
    found = file_grid(tmp_path, (float(f"{own.t_noise:.9g}"), 10.0, 1.0, float(f"{own.t_data:.9g}")), path="vp-linear")
    assert found == (own.t_noise, 10.0, 1.0, own.t_data)
    for start in (0.0, 1e-3):  # the linear path may start where lambda is finite
        assert file_grid(tmp_path, (start, 0.5, 0.999), 1, "flow", "euler") == (start, 0.5, 0.999)


def test_a_file_without_an_end_is_refused():
    with pytest.raises(GridError, match="larger than 16,777,216 bytes"):
        Grid.parse("file:/dev/zero")


@pytest.mark.parametrize("path", [*PATHS[:1], *PATHS[2:6]], ids=lambda path: path.name)
def test_a_solver_and_a_grid_make_numbers_or_are_refused_when_planned(path):
    """Every pair, at every small budget and at ones where quadratic entries repeat: no NaN, no division by zero."""
    refused = {}
    for solver, grid, nfe in itertools.product(solvers().values(), GRIDS, (*range(1, 9), 40, 41)):
        if nfe >= 40 and grid in REAL:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                plan = solver.plan(path, nfe, grid)
            except ValueError as error:
                refused[solver.name, grid] = str(error)
                continue
        if solver.nonlinear:
            assert plan(ring_mixture(path), path.prior_std * torch.ones(1, 2, dtype=torch.float64)).isfinite().all()
        elif not solver.adaptive:
            table = trace(plan, "x0")
            assert all(np.isfinite(part).all() for part in (table.times, table.a, table.b, table.w))
            if grid == "integer-uniform-official" and path.name.startswith("vp"):
                assert plan.times[-1] == 0.0, (solver.name, nfe)  # a whole run, not a part of it
    for (name, _), told in refused.items():
        assert re.match(rf"solver {name} at NFE \d+: (?!zip)", told)
    if path.name.startswith("vp"):
        lambdas = {"dpm-solver-2m", "dpm-solver-3m", "dpm-solver-2", "dpm-solver-3", "scirei", "scire-v2"}
        assert {(name, "integer-uniform") for name in lambdas} <= {*refused}
        assert ("dpmpp-2m", "integer-quad-official") in refused  # at NFE 40 it repeats an entry


@pytest.mark.filterwarnings("ignore:integer-uniform-official has 8 intervals")
@pytest.mark.parametrize(
    ("solver", "grid", "nfe", "why"),
    [
        ("dpm-solver-3m", "integer-uniform", 3, "ends at clean data, where sigma is 0 and lambda infinite"),
        ("unipc:prediction=noise", "integer-uniform", 5, "ends at clean data"),
        ("dpm-solver-2m:denoise=true", "integer-uniform", 5, "ends at clean data"),
        ("dpmpp-2s", "integer-uniform", 4, "its last step, of order 2, ends at clean data"),
        ("dpmpp-2m", "integer-quad-official", 40, "repeats a time: a step of length 0"),
        ("pndm", "integer-uniform", 8, "ends at clean data"),  # a Runge-Kutta step asks for the noise there
        ("scire:ratios=grid", "integer-uniform", 4, "is for whole runs"),
        ("scire", "integer-uniform-official", 7, "has 8 intervals"),
        ("scire:phi=1e-320", "logsnr", 4, "not finite with these options"),
    ],
)
def test_the_reason_why_a_grid_is_refused(solver, grid, nfe, why):
    with pytest.raises(ValueError, match=why):
        Spec.parse(f"{solver}@{grid}").plan(path_named("vp-discrete"), nfe)


def test_methods_that_reach_clean_data_are_not_refused():
    for solver in ("ddim", "ddpm", "dpmpp-2m", "dpmpp-3m", "unipc", "scire", "pndm", "s-pndm", "dpmpp-sde-2m"):
        assert Spec.parse(f"{solver}@integer-uniform").plan(path_named("vp-discrete"), 16).times[-1] == 0.0
    assert Spec.parse("dpmpp-2s@integer-uniform").plan(path_named("vp-discrete"), 5).times[-1] == 0.0  # orders 2, 2, 1
