"""Distillation on exact mixtures: sensitivities, the protocol of the BNS goldens, every parameterisation."""

import ast
import gzip
import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from fastsample.models.analytic import ring_mixture
from fastsample.models.path import LinearFlow, VPLinear
from fastsample.solvers.learned.fit import fit, sensitivities
from fastsample.solvers.learned.kinds import LEARNED
from fastsample.solvers.learned.pairs import Pairs
from fastsample.solvers.learned.parameters import consistent, coordinate_of, learned_times, non_stationary, scale_time
from fastsample.solvers.learned.starts import Start, parameters_of, starts
from fastsample.solvers.proofs.golden import SHIPPED, problem
from fastsample.solvers.solver import get
from fastsample.solvers.table import Table, play, trace

PATH = LinearFlow()
TARGETS = json.loads((Path(__file__).parents[1] / "data" / "bns_targets.json").read_text())
CELLS = [(target["problem"], target["nfe"]) for target in TARGETS]
PEAK = {"gmm2d-flow": 4.0, "gmm64-flow": 2.0}


@cache
def mixture():
    """The 64-dimensional problem, from the shipped golden file."""
    return json.loads(gzip.decompress((SHIPPED / "gmm64_flow_problem.json.gz").read_bytes()))


@cache
def pairs(name, seed, count):
    """Noises of the protocol with their end points, by RK4 on the quadratic grid."""
    denoiser = problem({"problem": name, "mixture": mixture()})
    size = {"gmm2d-flow": 2, "gmm64-flow": 64}[name]
    x = torch.from_numpy(np.random.default_rng(seed).standard_normal((4096 if seed == 103 else count, size))[:count])
    return Pairs(x, get("rk4").plan(PATH, 1600, "quadratic")(denoiser, x), lambda _: denoiser, PEAK[name])


def learned(parameters, train, validation, **options):
    *_, last = fit(parameters, train, validation, batch=4096, **options)
    return last


def families(nfe):
    """Every parameterisation on the linear path with its NFE."""
    euler = get("euler").plan(PATH, nfe, "uniform")
    return {
        "bns": non_stationary(trace(get("flow-solver").plan(PATH, nfe, "quadratic"), "velocity")),
        "dss": consistent(euler),
        "rk1-bespoke": scale_time(euler, 1),
        "rk2-bespoke": scale_time(get("midpoint").plan(PATH, nfe, "uniform"), 2),
        "times": learned_times(get("dpmpp-2m").plan(PATH, nfe, "sigmoid")),
    }


@pytest.mark.parametrize("n", [4, 8, 16])
def test_the_evaluations_of_sensitivities_are_those_of_the_documentation(n):
    denoiser = ring_mixture(PATH)
    counted = []

    def make(index):
        counted.append(len(index))
        return denoiser

    sensitivities(trace(get("euler").plan(PATH, n), "velocity"), make, range(3), torch.randn(3, 2, dtype=torch.float64))
    assert sum(counted) == 3 * (n**3 + 6 * n**2 + 5 * n - 6) / 6


@pytest.mark.parametrize("path", [LinearFlow(), VPLinear()], ids=lambda p: p.name)
def test_sensitivities_are_the_derivatives_by_every_entry(path):
    denoiser = ring_mixture(path)
    x = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    table = trace(get("unipc").plan(path, 5), coordinate_of(path))
    result, moves = sensitivities(table, lambda _: denoiser, range(5), x, batch=7)
    assert torch.allclose(result, play(table, denoiser, x), rtol=0, atol=1e-12)
    order = [(i, j) for i in range(1, 6) for j in [*range(-1, i), *([None] if i < 5 else [])]]
    assert len(order) == len(moves) == len(table.entries)
    for (i, j), move in zip(order, moves, strict=True):
        ends = []
        for step in (1e-5, -1e-5):
            arrays = {name: getattr(table, name).copy() for name in ("times", "a", "b")}
            if j is None:
                arrays["times"][i] += step * table.times[i]
            elif j < 0:
                arrays["a"][i] += step
            else:
                arrays["b"][i, j] += step
            ends.append(play(replace(table, **arrays), denoiser, x))
        exact = (ends[0] - ends[1]) / (2e-5 * (table.times[i] if j is None else 1))
        assert torch.allclose(move, exact, rtol=2e-3, atol=1e-3 * float(exact.abs().max()))


@pytest.mark.parametrize("kind", ["bns", "dss", "rk1-bespoke", "rk2-bespoke", "times"])
def test_every_parameterisation_improves_on_its_start(kind):
    parameters = families(4)[kind]
    table = parameters.table(parameters.start)
    assert table.nfe == 4
    assert parameters.free == {"bns": 17, "dss": 9, "rk1-bespoke": 15, "rk2-bespoke": 15, "times": 3}[kind]
    train, validation = pairs("gmm2d-flow", 101, 520), pairs("gmm2d-flow", 102, 512)
    last = learned(parameters, train, validation)
    assert (
        last.validation
        > last.history[0][2] + {"bns": 10, "dss": 8, "rk1-bespoke": 8, "rk2-bespoke": 20, "times": 3}[kind]
    )
    assert (np.diff(parameters.table(last.best).times) >= 0).all()


@pytest.mark.parametrize(("nfe", "free"), [(4, 17), (8, 51), (16, 167), (17, 186)])
def test_fewer_than_200_numbers_up_to_17_evaluations(nfe, free):
    parameters = non_stationary(trace(get("euler").plan(PATH, nfe), "velocity"))
    assert parameters.free == free < 200
    assert np.linalg.matrix_rank(parameters.jacobian(parameters.start)) == free


def test_consistent_tables_integrate_constants_exactly():
    """The rows of differentiable solver search move a constant velocity by the time covered."""
    parameters = families(6)["dss"]
    theta = parameters.start + np.random.default_rng(0).normal(size=len(parameters.start))
    table = parameters.table(theta)
    times = np.append(table.times, table.end)
    assert np.allclose(table.b.sum(1), times - times[0], rtol=0, atol=1e-12)
    assert np.allclose(table.a, 1)


def test_coinciding_times_stay_together():
    """Heun evaluates twice at each inner time: softmax gaps keep that and the table is Heun's at the start."""
    table = trace(get("heun").plan(PATH, 6, "uniform"), "velocity")
    parameters = non_stationary(table)
    assert np.allclose(parameters.table(parameters.start).times, table.times, rtol=0, atol=1e-14)
    last = learned(parameters, pairs("gmm2d-flow", 101, 520), pairs("gmm2d-flow", 102, 512), iterations=3)
    times = parameters.table(last.best).times
    assert times[1] == times[2] < times[3] == times[4]
    assert last.validation > last.history[0][2] + 5


def test_a_fit_goes_on_from_its_state():
    parameters = families(4)["bns"]
    train, validation = pairs("gmm2d-flow", 101, 520), pairs("gmm2d-flow", 102, 512)
    whole = list(fit(parameters, train, validation, iterations=5))
    rest = list(fit(parameters, train, validation, iterations=5, state=whole[1]))
    assert [state.history for state in rest] == [state.history for state in whole[2:]]
    assert (rest[-1].best == whole[-1].best).all()


def test_stochastic_solvers_and_times_that_go_back_cannot_start():
    with pytest.raises(ValueError, match="stochastic"):
        non_stationary(trace(get("ddpm").plan(VPLinear(), 4)))
    table = trace(get("euler").plan(PATH, 4), "velocity")
    with pytest.raises(ValueError, match="back"):
        non_stationary(replace(table, times=table.times[::-1].copy()))
    with pytest.raises(ValueError, match="makes 4 evaluations for a budget of 5"):
        parameters_of("rk2-bespoke", PATH, 5, Start.parse("midpoint@uniform"))
    with pytest.raises(ValueError, match="dss starts from euler"):
        parameters_of("dss", PATH, 4, Start.parse("unipc"))


def test_a_start_with_noise_on_its_numbers_says_which():
    exact = parameters_of("rk2-bespoke", PATH, 6, Start.parse("midpoint@quadratic"))
    for k, size, seed in ((0, 0.1, 0), (4, 0.1, 4), (5, 0.3, 0), (9, 0.3, 4)):
        start = Start.parse(f"midpoint@quadratic~{k}")
        assert str(start) == f"midpoint@quadratic~{k}"
        expected = exact.start + size * np.random.default_rng(seed).standard_normal(len(exact.start))
        assert (parameters_of("rk2-bespoke", PATH, 6, start).start == expected).all()
    tried = starts("rk1-bespoke", PATH, 6, pairs("gmm2d-flow", 102, 64))
    assert [start.noise for start in tried[-10:]] == list(range(10))
    assert {start.sampler.name for start in tried} == {"euler"}


def test_a_kind_of_learned_solvers_is_named_in_one_file_alone():
    root, kinds = Path(__file__).parents[2], set(LEARNED) - {"times"}  # also a word of its own
    named = {
        file.relative_to(root).as_posix()
        for room in ("datasets", "results", "models", "solvers", "bench")
        for file in (root / room).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Constant) and node.value in kinds
    }
    assert named == {"solvers/learned/kinds.py"}


def test_a_start_that_is_not_finite_is_refused():
    table = trace(get("euler").plan(PATH, 4), "velocity")
    broken = Table("velocity", table.times, table.a * np.nan, table.b, table.w, table.end)
    with pytest.raises(FloatingPointError, match="not finite"):
        next(fit(non_stationary(broken), pairs("gmm2d-flow", 101, 520), pairs("gmm2d-flow", 102, 512)))


def test_sigma_0_moves_eulers_steps_and_nothing_else():
    """Euler of D on the scaled path is Euler on the shifted grid, whose steps are a times as small at the noise end."""
    denoiser, x = ring_mixture(PATH), torch.randn(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    scaled = Start.parse("ddim@uniform").plan(PATH, 8, sigma0=5.0)
    r = np.linspace(scaled.times[0], scaled.times[-1], 9)
    shifted = replace(get("ddim").plan(PATH, 8, "uniform"), times=tuple(r / (r + 5 * (1 - r))))
    assert abs(shifted.times[-1] - PATH.t_data) < 1e-12
    assert torch.allclose(scaled(denoiser, x), shifted(denoiser, x), rtol=0, atol=1e-10)
    euler = Start.parse("euler@uniform").plan(PATH, 8, sigma0=5.0)
    assert trace(euler, "velocity").times == pytest.approx(shifted.times[:-1], abs=2e-3)


def learn_and_measure(name, nfe, kind, seed, test, more=()):
    """Mean test PSNR of the default recipe, every starting point and these, the best by validation."""
    train, validation = pairs(name, 101, 520), pairs(name, 102, 1024)
    found = []
    for initial in (*starts(kind, PATH, nfe, validation, batch=4096), *map(Start.parse, more)):
        parameters = parameters_of(kind, PATH, nfe, initial)
        try:
            last = learned(parameters, train, validation, seed=seed)
        except FloatingPointError:
            continue
        found.append((last.validation, parameters.table(last.best)))
    table = max(found, key=lambda one: one[0])[1]
    return float(pairs(name, 103, test).psnr(table, 4096).mean())


def test_bns_reaches_the_figures_of_the_protocol():
    target = TARGETS[CELLS.index(("gmm2d-flow", 4))]
    assert learn_and_measure("gmm2d-flow", 4, "bns", 0, test=1024) > max(target["pass"], target["reach"] - 1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("name", "nfe"), CELLS)
def test_bns_by_the_whole_protocol(name, nfe, seed):
    """4,096 test noises: above every pass bar, and within 1 dB of the best run known."""
    target = TARGETS[CELLS.index((name, nfe))]
    value = learn_and_measure(name, nfe, "bns", seed, test=4096)
    print(f"{name} NFE {nfe} seed {seed}: {value:.2f} dB; pass {target['pass']:.2f}, reach {target['reach']:.2f}")
    assert value > max(target["pass"], target["reach"] - 1)


MISSED = pytest.mark.xfail(reason="58.2 dB of 58.7 dB from every starting point", strict=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "nfe"), [pytest.param(*c, marks=MISSED if c == ("gmm64-flow", 8) else ()) for c in CELLS]
)
def test_rk_bespoke_by_the_whole_protocol(name, nfe):
    target = TARGETS[CELLS.index((name, nfe))]
    value = learn_and_measure(name, nfe, "rk2-bespoke", 0, test=4096)
    print(f"{name} NFE {nfe} RK2-Bespoke: {value:.2f} dB; figure {target['rk2_bespoke']:.2f}")
    assert value > target["rk2_bespoke"]


@pytest.mark.parametrize("name", ["gmm2d-flow", pytest.param("gmm64-flow", marks=pytest.mark.slow)])
def test_the_pairs_are_those_of_the_protocol(name):
    target = next(target for target in TARGETS if target["problem"] == name)
    ends = pairs(name, 103, 1024)
    assert torch.allclose(ends.x[0], torch.tensor(target["x0_test_first_row"], dtype=torch.float64), rtol=0, atol=1e-12)
    assert torch.allclose(ends.y[0], torch.tensor(target["x1_test_first_row"], dtype=torch.float64), rtol=0, atol=1e-7)
