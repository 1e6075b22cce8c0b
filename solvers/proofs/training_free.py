"""Readers of the golden cases of the training-free solvers of 2022 to 2026."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import torch

from fastsample.models.denoiser import Denoiser
from fastsample.solvers.proofs.readers import Case, Run, reader
from fastsample.solvers.solver import get


@reader("res-2s", "res-3s", "res-2m", "res-3m")
def _res(case: Case) -> tuple[str, int, dict[str, Any]]:
    given, name = case["options"], case["solver"]
    options = {key: given[key] for key in ("c2", "c3") if key in given}
    if name.startswith("res-3"):
        options["official"] = given.get("gamma") != "corrected"
    return name, case["nfe_actual"], options


@reader("cab", "cab-flow")
def _cab(case: Case) -> tuple[str, int, dict[str, Any]]:
    options = {"order": case["order"], "theta": case["options"]["theta"]}
    return case["solver"], case["nfe_actual"], options | ({"official": True} if case["solver"] == "cab-flow" else {})


@reader("pfdiff")
def _pfdiff(case: Case) -> tuple[str, int, dict[str, Any]]:
    given = case["options"]
    options = {"variant": f"{given['k']}_{given['h']}", "intervals": given.get("intervals", len(case["timesteps"]) - 1)}
    return "pfdiff", case["nfe_actual"], options


@reader("sa-solver")
def _sa_solver(case: Case) -> tuple[str, int, dict[str, Any]]:
    given, tau = case["options"], case["options"]["tau"]
    options = {key: given[key] for key in ("predictor_order", "corrector_order", "pc_mode", "mode")}
    options |= {"prediction": given["prediction"].removesuffix("_prediction"), "denoise": given["mode"] == "more_steps"}
    if isinstance(tau, str):  # "1 where 0.05 <= NSR(t) <= 1, else 0"
        value, low, high = (float(number) for number in re.findall(r"\d+\.?\d*", tau)[:3])
        return "sa-solver", case["nfe_actual"], options | {"tau": value, "nsr_min": low, "nsr_max": high}
    everywhere = {"tau": tau, "nsr_min": 0.0, "nsr_max": 1e9}
    return "sa-solver", case["nfe_actual"], options | everywhere


@reader("stork-flow")
def _stork(case: Case) -> tuple[str, int, dict[str, Any]]:
    given = case["options"]
    options = {"order": case["order"], "official": not given.get("corrected", False)}
    return "stork", case["nfe_actual"], options | ({"s": given["s"]} if "s" in given else {})


@reader("stork-noise")
def _stork_noise(case: Case) -> Run:
    options = {"s": case["options"]["s"], "official": not case["options"].get("corrected", False)}

    def run(denoiser: Denoiser, x: torch.Tensor) -> torch.Tensor:
        path = denoiser.path.between(1.0, case["model_times"][-1])
        plan = get("stork-noise").plan(path, case["nfe_actual"], "uniform", denoise=True, **options)
        # The noise is its state at the first time, and it ends with x - sigma eps: alpha times the data prediction.
        return path.alpha(path.t_data) * replace(plan, noise_start=True)(denoiser, x / plan.entry[0])

    return run


@reader("rx-euler")
def _rx_euler(case: Case) -> tuple[str, int, dict[str, Any]]:
    return "rx-euler", case["nfe_actual"], {**case["options"], "official": True}


@reader("lms", "dpm-fast")
def _aliases(case: Case) -> tuple[str, int, dict[str, Any]]:
    options = {"order": case["order"]} if case["solver"] == "lms" else {}
    return case["solver"], case["nfe_actual"], options


@reader("euler-ancestral", "dpm2-ancestral", "dpmpp-2s-ancestral", "dpmpp-sde", "dpmpp-2m-sde", "dpmpp-3m-sde")
def _ancestral(case: Case) -> tuple[str, int, dict[str, Any]]:
    options = {key: value for key, value in case["options"].items() if key in ("eta", "solver_type")}
    official = {"official": True} if case["solver"] == "dpmpp-3m-sde" else {}
    return case["solver"], case["nfe_actual"], options | official | {"denoise": True}


@reader("restart")
def _restart(case: Case) -> tuple[str, int, dict[str, Any]]:
    entries = "+".join("/".join(map(str, entry)) for entry in case["options"]["restart"])
    return "restart", case["nfe_actual"], {"restarts": entries, "S_noise": case["options"]["S_noise"], "denoise": True}


@reader("dpm-adaptive", "dpm-adaptive-k")
def _adaptive(case: Case) -> tuple[str, int, dict[str, Any]]:
    given = dict(case["options"])
    if given.pop("eta", 0):
        raise ValueError("dpm-adaptive-k solves the ODE: eta is 0")
    if "algorithm" in given:
        given["prediction"] = "data" if given.pop("algorithm") == "dpmsolver++" else "noise"
    return case["solver"], case["nfe_actual"], given | {"order": case["order"], "official": True}


@reader("era")
def _era(case: Case) -> tuple[str, int, dict[str, Any]]:
    given = case["options"]
    return "era", case["nfe_actual"], {"k": given["k"], "error_scale": given["lambda"], "official": True}


@reader("evodiff")
def _evodiff(case: Case) -> tuple[str, int, dict[str, Any]]:
    return "evodiff", case["nfe_actual"], {**case["options"], "official": True}
