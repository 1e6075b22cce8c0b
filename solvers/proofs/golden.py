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
from fastsample.models.denoiser import Denoiser, Recorder
from fastsample.models.path import DiscreteVP, Edm, LinearFlow, Path, VPLinear
from fastsample.solvers.grids import Grid
from fastsample.solvers.learned.bespoke import ScaleTime, rk1_bespoke, rk2_bespoke
from fastsample.solvers.solver import Plan, get
from fastsample.solvers.table import Table, play

__all__ = ["NotASolver", "Parity", "cases", "compare", "rebuild"]

Case = dict[str, Any]
Run = Callable[[Denoiser, torch.Tensor], torch.Tensor]
# A reader turns a case into (solver, NFE to ask for, options of the solver), or into a function
# of (denoiser, x) where no registered solver is meant (coefficient tables).
Reader = Callable[[Case], tuple[str, int, dict[str, Any]] | Run]
READERS: dict[str, Reader] = {}

SHIPPED = FilePath(__file__).resolve().parents[2] / "tests" / "data" / "golden"  # in a clone
TIME_TOLERANCE = 1e-9  # relative, call times
TOLERANCE = 1e-8  # absolute, results; a case may carry its own


class NotASolver(ValueError):  # noqa: N818
    """The case is a reference solution, computed by an adaptive integrator that is not ours."""


def reader(*names: str) -> Callable[[Reader], Reader]:
    """Register a reader for the cases whose `solver` begins with one of the names: the part before " ", "(" or ":"."""

    def decorate(function: Reader) -> Reader:
        READERS.update(dict.fromkeys(names, function))
        return function

    return decorate


def cases(folder: FilePath) -> Iterator[tuple[str, Case]]:
    """(id, case) of every golden file (.json or .json.gz) in a folder, in the order of names.

    A mixture that a problem reads from a file of its own (`gmm64_flow_problem`, in the same folder or
    among the shipped ones) is put into the case as `mixture`.
    """
    shipped, here = (sorted([*where.glob("*.json"), *where.glob("*.json.gz")]) for where in (SHIPPED, folder))
    contents = {_stem(file): _load(file) for file in shipped if _stem(file).endswith("_problem")}
    contents |= {_stem(file): _load(file) for file in here}
    for stem in map(_stem, here):
        data = contents[stem]
        for index, case in enumerate(data.get("cases", []) if isinstance(data, dict) else []):
            mixture = contents.get(f"{str(case.get('problem')).replace('-', '_')}_problem")
            yield f"{stem}|{case.get('id', index)}", case | ({"mixture": mixture} if mixture else {})


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
    if case["problem"] == "gmm2d_ddpm1000_int":
        return Grid.parse(f"integer-{name}-official")
    if fitted := re.fullmatch(r"time_uniform\(rho=(\d+)\)", name):
        return Grid.parse(f"vp-time:rho={fitted[1]}")
    return Grid.parse(_GRIDS[name]) if name in _GRIDS else _Given("golden", times=tuple(case["timesteps"]))


def rebuild(case: Case) -> tuple[Denoiser, Plan | Run]:
    """The denoiser of a case and our plan for it (or a function where `READERS` gives one).

    Raises:
        NotASolver: for a reference solution.
        ValueError: for a solver that no reader knows.
    """
    key = re.split(r"[ (:]", case["solver"])[0]
    if key.startswith(("reference", "scipy")):
        raise NotASolver(f"{case['solver']} is a reference solution, not a solver of ours")
    if key not in READERS:
        raise ValueError(f"no reader for golden solver {case['solver']!r}; known: {', '.join(READERS)}")
    denoiser, recipe = problem(case), READERS[key](case)
    given = case.get("options", {})
    if given.get("dynamic_thresholding"):
        denoiser = Thresholded(denoiser)
    if callable(recipe):
        return denoiser, recipe
    name, nfe, options = recipe
    denoise = bool(given.get("denoise_to_zero"))  # one evaluation more than asked for
    common = {"denoise": denoise, "afs": bool(given.get("afs"))}
    plan = get(name).plan(denoiser.path, nfe + denoise, _grid(case), **common | options)
    return denoiser, replace(plan, noise_start=True)


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
    error = (plan(calls, start) - result).abs().max().item()
    golden, ours = case["timesteps"], [t for t, _ in calls.points]
    if "model_times" in case:
        golden = case["model_times"]
    elif "model_input_times" in case:  # the index of a table of 1000 betas
        golden = [(index + 1) / 1000 for index in case["model_input_times"]]
    elif "t" in case:  # Bespoke: every node but the last is a call
        golden = case["t"][:-1]
    elif isinstance(plan, Plan):
        ours = list(plan.times)
    time_error = max((abs(t - g) / max(abs(g), 1e-6) for t, g in zip(ours, golden, strict=False)), default=0.0)
    return Parity(
        calls.nfe,
        case["nfe_actual"],
        time_error if len(ours) == len(golden) else float("inf"),
        error,
        case.get("compare_with_atol", TOLERANCE),
    )


@reader("euler", "midpoint", "heun2", "rk4", "heun", "dpm_2")
def _runge_kutta(case: Case) -> tuple[str, int, dict[str, Any]]:
    name = {"heun2": "heun", "dpm_2": "dpm2"}.get(case["solver"], str(case["solver"]))
    return f"edm-{name}" if case["problem"] == "gmm2d_edm" else name, case["nfe_actual"], {}


# --- DPM-Solver, UniPC, DDIM ---------------------------------------------------------------------


_FINAL = {True: "always", False: "never"}


@reader("dpmsolver", "dpmsolver++")
def _dpm_solver(case: Case) -> tuple[str, int, dict[str, Any]]:
    given, plus = case["options"], case["solver"].endswith("++")
    options: dict[str, Any] = {"order": case["order"], "solver_type": given.get("solver_type", "dpmsolver")}
    if case["mode"] == "multistep":
        options |= {"official": True, "lower_order_final": "short" if given.get("lower_order_final", True) else "never"}
        return "dpmpp-2m" if plus else "dpm-solver-2m", case["nfe_requested"], options
    options["mode"] = "fixed" if case["mode"] == "singlestep_fixed" else "fast"
    return "dpmpp-2s" if plus else "dpm-solver-2", case["nfe_requested"], options


@reader("DPM-Solver")
def _dpm_solver_of_scire(case: Case) -> tuple[str, int, dict[str, Any]]:
    mode = "fixed" if case["mode"] == "singlestep_fixed" else "fast"
    return "dpm-solver-2", case["nfe_requested"], {"order": case["order"], "mode": mode, "ratios": "fixed"}


@reader("dpm_multistep3_D2x2")
def _dpm_solver_corrected(case: Case) -> tuple[str, int, dict[str, Any]]:
    name = "dpmpp-3m" if case["options"]["data_prediction"] else "dpm-solver-3m"
    final = _FINAL[case["options"]["lower_order_final"]]
    return name, case["nfe_requested"], {"order": case["order"], "solver_type": "taylor", "lower_order_final": final}


@reader("dpmpp")
def _dpmpp_of_diff_sampler(case: Case) -> tuple[str, int, dict[str, Any]]:
    given = case["options"]
    options = {"order": case["order"], "official": True, "lower_order_final": _FINAL[given["lower_order_final"]]}
    return "dpmpp-2m" if given["predict_x0"] else "dpm-solver-2m", case["nfe_requested"], options


@reader("dpmpp_2m_condot")
def _dpmpp_2m_on_a_flow(case: Case) -> tuple[str, int, dict[str, Any]]:
    return "dpmpp-2m", case["nfe_actual"], {"lower_order_final": "never"}


@reader("unipc_bh1", "unipc_bh2", "unipc_vary_coeff", "unipc_vary_full_corrector")
def _unipc(case: Case) -> tuple[str, int, dict[str, Any]]:
    given, variant = case["options"], case["solver"].removeprefix("unipc_")
    data = given.get("predict_x0", given.get("data_prediction", given.get("prediction") != "noise_prediction"))
    return (
        "unipc",
        case["nfe_requested"],
        {
            "order": case["order"],
            "variant": "vary_coeff" if variant == "vary_full_corrector" else variant,
            "official": variant == "vary_coeff",
            "prediction": "data" if data else "noise",
            "lower_order_final": _FINAL[given.get("lower_order_final", True)],
        },
    )


@reader("ddim", "DDIM")
def _ddim(case: Case) -> tuple[str, int, dict[str, Any]]:
    return "ddim", case["nfe_requested"], {"official": case["solver"] == "DDIM"}


# --- SciRE, Flow-Solver, DEIS, PNDM, EDM ---------------------------------------------------------


@reader("scire_v1", "scire_v2")
def _scire(case: Case) -> tuple[str, int, dict[str, Any]]:
    given, problem = case["options"], case["problem"]
    mode = "singlestep_agile" if case["mode"] == "singlestep" else case["mode"]
    options: dict[str, Any] = {"order": case["order"], "mode": mode}
    if "phi" in given:
        options |= {"phi": given["phi"]}
    elif "algorithm" in given:  # the Stable Diffusion copy
        options |= {"phi": "code-sd", "ratios": "grid", "rule": "sd"}
    elif "solver_type" in given:  # the discrete copy: as the paper
        options |= {"phi": "fd" if given["solver_type"] == "fde" else "m3"}
    elif problem == "gmm2d_edm":
        options |= {"ratios": "grid"}
    else:
        options |= {"phi": "code-root", "ratios": "grid" if problem == "gmm2d_ddpm1000" else "fixed"}
    name = "scire" if case["solver"].startswith("scire_v1") else "scire-v2"
    return name, case["nfe_requested"], options | {"lower_order_final": given.get("lower_order_final", True)}


@reader("scire3_rk_consistent")
def _scire_consistent(case: Case) -> tuple[str, int, dict[str, Any]]:
    options = {"order": 3, "mode": "singlestep_fixed", "phi": "fd", "stage": "consistent"}
    return "scire", case["nfe_requested"], options


@reader("scirei")
def _scirei(case: Case) -> tuple[str, int, dict[str, Any]]:
    return "scirei", case["nfe_requested"], {"mode": case["mode"]}


@reader("flow_solver")
def _flow_solver(case: Case) -> tuple[str, int, dict[str, Any]]:
    corrector = case["corrector"]
    if corrector == "pec" and case["final_corrector"]:
        corrector = "pec_final"
    return "flow-solver", case["nfe_actual"], {"order": case["order"], "corrector": corrector}


@reader("euler_rectifiedflow_repo")
def _euler_rf(case: Case) -> Run:
    return lambda denoiser, x: get("euler-rf").plan(denoiser.path, case["nfe_actual"], "uniform")(denoiser, x)


@reader("deis_tab", "deis_rhoab")
def _deis(case: Case) -> tuple[str, int, dict[str, Any]]:
    if case["solver"] == "deis_rhoab":  # exact variable-step Adams-Bashforth
        return "ipndm-v", case["nfe_requested"], {"order": case["order"]}
    return "deis", case["nfe_requested"], {"order": case["order"] - 1, "official": True}


@reader("ipndm", "ipndm_v", "ipndm_v_exact_ab")
def _ipndm(case: Case) -> tuple[str, int, dict[str, Any]]:
    options = {"order": case["order"]}
    if case["solver"] == "ipndm":
        return "ipndm", case["nfe_requested"], options
    return "ipndm-v", case["nfe_requested"], options | {"official": case["solver"] == "ipndm_v"}


@reader("edm_euler", "edm_heun")
def _edm(case: Case) -> tuple[str, int, dict[str, Any]]:
    return case["solver"].replace("_", "-"), case["nfe_actual"], {"denoise": True}


@reader("F-PNDM", "S-PNDM")
def _pndm(case: Case) -> tuple[str, int, dict[str, Any]]:
    name, extra = ("pndm", 9) if case["solver"] == "F-PNDM" else ("s-pndm", 1)
    return name, case["nfe_requested"] + extra, {"official": True}


@reader("ns")
def _table(case: Case) -> Run:
    n = case["nfe_actual"]
    b = np.zeros((n + 1, n))
    for i, row in enumerate(case["b"], start=1):
        b[i, :i] = row
    table = Table("velocity", np.array(case["timesteps"]), np.array([1.0, *case["a"]]), b, np.zeros((n + 1, 0)), 0.999)
    return lambda denoiser, x: play(table, denoiser, x)


@reader("rk1_bespoke", "rk2_bespoke")
def _bespoke(case: Case) -> Run:
    nodes = ScaleTime(case["t"], case["s"], case["t_dot"], case["s_dot"])
    step = rk1_bespoke if case["solver"] == "rk1_bespoke" else rk2_bespoke
    return lambda denoiser, x: step(denoiser, x, nodes)
