"""Parity with the official implementations: reads golden cases and rebuilds them with our solvers.

A golden file holds cases (problem, solver, options, times, start, result) that were computed by the
official code of a method in float64. `READERS` says which solver and options of ours a case means.
The problems are analytic: x_0 is a Gaussian mixture, so that no network is needed.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import torch

from fastsample.models.altered import Thresholded
from fastsample.models.analytic import GaussianMixture, ring_mixture
from fastsample.models.denoiser import Denoiser
from fastsample.models.path import DiscreteVP, Edm, LinearFlow, Path, VPLinear
from fastsample.models.recorder import Recorder
from fastsample.solvers.grids import Grid
from fastsample.solvers.proofs import learned as _learned  # noqa: F401 - registers its readers
from fastsample.solvers.proofs import published as _published  # noqa: F401 - registers its readers
from fastsample.solvers.proofs import training_free as _training_free  # noqa: F401 - registers its readers
from fastsample.solvers.proofs.readers import READERS, Case, Run
from fastsample.solvers.solver import Plan, get

__all__ = ["NotASolver", "Parity", "cases", "compare", "rebuild", "solver_of"]

SHIPPED = FilePath(__file__).resolve().parents[2] / "tests" / "data" / "golden"  # in a clone
TIME_TOLERANCE = 1e-9  # relative, call times
TOLERANCE = 1e-8  # absolute, results; a case may carry its own


class NotASolver(ValueError):  # noqa: N818
    """The case is a reference solution, computed by an adaptive integrator that is not ours."""


def cases(folder: FilePath) -> Iterator[tuple[str, Case]]:
    """(id, case) of every golden file (.json or .json.gz) in a folder, in the order of names.

    What a case reads from a file of its own, in the same folder or among the shipped ones, is put into it: the mixture
    of a problem (`gmm64_flow_problem`) as `mixture`, the statistics of a model (`ems_arrays`) as `statistics`.
    """
    shipped, here = (sorted([*where.glob("*.json"), *where.glob("*.json.gz")]) for where in (SHIPPED, folder))
    contents = {_stem(file): _load(file) for file in shipped if _stem(file).endswith(("_problem", "_arrays"))}
    contents |= {_stem(file): _load(file) for file in here}
    for stem in map(_stem, here):
        data = contents[stem]
        for index, case in enumerate(data.get("cases", []) if isinstance(data, dict) else []):
            mixture = contents.get(f"{str(case.get('problem')).replace('-', '_')}_problem")
            named = case.get("options", {}).get("ems")
            statistics = {"statistics": contents["ems_arrays"]["arrays"][named]} if named else {}
            yield f"{stem}|{case.get('id', index)}", case | ({"mixture": mixture} if mixture else {}) | statistics


def _stem(file: FilePath) -> str:
    return file.name.split(".")[0]


def _load(file: FilePath) -> Any:
    opener: Any = gzip.open if file.suffix == ".gz" else open
    with opener(file, "rt", encoding="utf-8") as stream:
        return json.load(stream)


def problem(case: Case) -> Denoiser:
    """The analytic denoiser of a case on its path, with the interval of the case.

    Raises:
        ValueError: for an unknown problem.
    """
    name, start, end = case["problem"], case.get("t_start", 1.0), case.get("t_end", 1e-3)
    match name:
        case "gmm2d_vp":
            return ring_mixture(VPLinear(t_noise=start, t_data=end))
        case "gmm2d_edm":
            return ring_mixture(Edm())
        case "gmm2d_ddpm1000":
            return ring_mixture(DiscreteVP.ddpm().between(start, end))
        case "gmm2d_ddpm1000_int":
            return ring_mixture(DiscreteVP.ddpm())
        case "gmm2d-flow":
            return ring_mixture(LinearFlow())
        case "gmm64-flow":
            mixture = case["mixture"]
            return GaussianMixture(LinearFlow(), _tensor(mixture["means"]), _tensor(mixture["variances"]))
    raise ValueError(f"unknown golden problem {name!r}")


def _tensor(values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


_GRIDS = {
    "NSR": "nsr",
    "logSNR": "logsnr",
    "logsnr": "logsnr",
    "time_uniform": "uniform",
    "time_quadratic": "quadratic",
    "polynomial(rho=7)": "karras",
    "karras(rho=7)+0": "karras",
    "edm": "karras",
    "uniform": "uniform",
    "quad": "quadratic",
    "shift3": "shift",
}


@dataclass(frozen=True)
class _Given(Grid):
    """The times of the case itself."""

    times: tuple[float, ...] = ()

    def __call__(self, path: Path, n: int, t_start: float, t_end: float) -> tuple[float, ...]:
        if len(self.times) != n + 1:
            raise ValueError(f"the case holds {len(self.times)} times, not {n + 1}")
        return self.times


def _grid(case: Case) -> Grid:
    name = str(case.get("schedule", case.get("grid")))
    if name.startswith("integer "):  # entries of a table by a formula, and clean data
        return _Given("integer-golden", times=tuple((entry + 1) / 1000 for entry in case["timesteps"]))
    if case["problem"] == "gmm2d_ddpm1000_int":
        return Grid.parse(f"integer-{name}-official")
    if fitted := re.fullmatch(r"time_uniform\(rho=(\d+)\)", name):
        return Grid.parse(f"vp-time:rho={fitted[1]}")
    if name in _GRIDS and case["solver"] != "rx-euler":  # which extrapolates over the step to 0 as well
        return Grid.parse(_GRIDS[name])
    return _Given("golden", times=tuple(case["timesteps"]))


def rebuild(case: Case) -> tuple[Denoiser, Plan | Run]:
    """The denoiser of a case and our plan for it (or a function where `READERS` gives one).

    Raises:
        NotASolver: for a reference solution.
        ValueError: for a solver that no reader knows.
    """
    denoiser, recipe = problem(case), _read(case)
    given = case.get("options", {})
    if given.get("dynamic_thresholding"):
        denoiser = Thresholded(denoiser)
    if callable(recipe):
        return denoiser, recipe
    name, nfe, options = recipe
    denoise = bool(given.get("denoise_to_zero"))  # one evaluation more than asked for
    common: dict[str, Any] = {"denoise": denoise, "afs": bool(given.get("afs"))}
    plan = get(name).plan(denoiser.path, nfe + denoise, _grid(case), **common | options)
    return denoiser, replace(plan, noise_start=True)


def _read(case: Case) -> tuple[str, int, dict[str, Any]] | Run:
    """What a case means here, as its reader says."""
    key = re.split(r"[ (:]", case["solver"])[0]
    if key.startswith(("reference", "scipy")):
        raise NotASolver(f"{case['solver']} is a reference solution, not a solver of ours")
    if case.get("options", {}).get("derivative_order") == 3:
        raise NotASolver("STORK's third derivative is a defect of its code: no solver of ours has it")
    if key not in READERS:
        raise ValueError(f"no reader for golden solver {case['solver']!r}; known: {', '.join(READERS)}")
    return READERS[key](case)


def solver_of(case: Case) -> str:
    """The solver that a case is of; "" for a table that no registered one stands for, and for reference solutions."""
    try:
        recipe = _read(case)
    except NotASolver:
        return ""
    return "" if callable(recipe) else recipe[0]


def _noises(case: Case) -> Callable[[int], torch.Tensor] | None:
    """The noises of a stochastic case, by the seed that its options name."""
    told = re.search(r"default_rng\((\d+)\)", str(case.get("options", {}).get("noise")))
    return (
        None if told is None else _tensor(np.random.default_rng(int(told[1])).standard_normal((64, 16, 2))).__getitem__
    )


@dataclass(frozen=True)
class Parity:
    """How far we are from a golden case: evaluations, relative error of the call times, max abs error of the result."""

    nfe: int
    golden_nfe: int
    time_error: float
    error: float
    tolerance: float = TOLERANCE

    @property
    def agrees(self) -> bool:
        """Same evaluations, at the same times, with the same result."""
        return self.nfe == self.golden_nfe and self.time_error <= TIME_TOLERANCE and self.error <= self.tolerance


def compare(case: Case) -> Parity:
    """Run a case and compare evaluations made, call times (relative) and result (max abs difference).

    Where a case does not list its call times, the outer times of the plan are compared.

    Raises:
        NotASolver: for a reference solution.
    """
    base, plan = rebuild(case)
    calls = Recorder(base)
    start, result = _tensor(case.get("x_T", case.get("x_init"))), _tensor(case.get("x_0", case.get("x_final")))
    given = (_noises(case),) if isinstance(plan, Plan) else ()
    error = (plan(calls, start, *given) - result).abs().max().item()
    golden, ours = case["timesteps"], [t for t, _ in calls.points]
    if "model_times" in case:
        golden = case["model_times"]
    elif "model_input_times" in case:  # the index of a table of 1000 betas
        golden = [(index + 1) / 1000 for index in case["model_input_times"]]
    elif "t" in case:  # Bespoke: every node but the last is a call
        golden = case["t"][:-1]
    elif isinstance(plan, Plan):
        ours = list(plan.times)
    elif len(golden) == len(ours) + 1:  # of a function the calls are known, and none is at the end
        golden = golden[:-1]
    time_error = max((abs(t - g) / max(abs(g), 1e-6) for t, g in zip(ours, golden, strict=False)), default=0.0)
    return Parity(
        calls.nfe,
        case["nfe_actual"],
        time_error if len(ours) == len(golden) else float("inf"),
        error,
        case.get("compare_with_atol", TOLERANCE),
    )
