"""What the golden cases mean here: a reader for each solver of official code, by the name that its case gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from fastsample.models.denoiser import Denoiser
from fastsample.solvers.found.statistics import Statistics
from fastsample.solvers.learned.bespoke import ScaleTime, rk1_bespoke, rk2_bespoke
from fastsample.solvers.solver import get
from fastsample.solvers.table import Table, play

__all__ = ["READERS", "Case", "Run"]

Case = dict[str, Any]
Run = Callable[[Denoiser, torch.Tensor], torch.Tensor]
# A reader turns a case into (solver, NFE to ask for, options of the solver), or into a function
# of (denoiser, x) where no registered solver is meant (coefficient tables).
Reader = Callable[[Case], tuple[str, int, dict[str, Any]] | Run]
READERS: dict[str, Reader] = {}


def reader(*names: str) -> Callable[[Reader], Reader]:
    """Register a reader for the cases whose `solver` begins with one of the names: the part before " ", "(" or ":"."""

    def decorate(function: Reader) -> Reader:
        READERS.update(dict.fromkeys(names, function))
        return function

    return decorate


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
    options = {
        "order": case["order"],
        "variant": "vary_coeff" if variant == "vary_full_corrector" else variant,
        "official": variant == "vary_coeff",
        "prediction": "data" if data else "noise",
        "lower_order_final": _FINAL[given.get("lower_order_final", True)],
    }
    return "unipc", case["nfe_requested"], options


@reader("ddim", "DDIM")
def _ddim(case: Case) -> tuple[str, int, dict[str, Any]]:
    return "ddim", case["nfe_requested"], {"official": case["solver"] == "DDIM"}


@reader("dpm_solver_v3")
def _dpm_solver_v3(case: Case) -> tuple[str, int, dict[str, Any]]:
    given, arrays = case["options"], case["statistics"]
    lam = np.linspace(arrays["lambda_start"], arrays["lambda_end"], arrays["N"] + 1)
    values = [np.array(arrays[name], float) for name in "lsb"]
    shape = (len(lam), *values[0].shape[1:])  # a number stands for all
    l, s, b = (np.broadcast_to(value, shape) for value in values)  # noqa: E741
    found = Statistics(lam, l, s, b)
    options = {
        "order": case["order"],
        "lower_order_final": given["lower_order_final"],
        "pseudo": given["p_pseudo"],
        "corrector": given["use_corrector"],
        "pseudo_corrector": given["c_pseudo"],
        "official": True,
        "found": found,
    }
    return "dpm-solver-v3", case["nfe_requested"], options


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
