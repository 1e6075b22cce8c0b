"""Readers of the golden cases of learned solvers: their numbers, through the tables that they make."""

from __future__ import annotations

import numpy as np
import torch

from fastsample.models.denoiser import Denoiser
from fastsample.solvers.learned.gs import Corrections, gs_table, gs_times
from fastsample.solvers.learned.kinds import GS
from fastsample.solvers.learned.ld3 import decoupled, ld3_times
from fastsample.solvers.proofs.readers import Case, Run, reader
from fastsample.solvers.solver import get
from fastsample.solvers.table import play


@reader(GS)
def _gs(case: Case) -> Run:
    given, told = case["options"], case["options"]["parameters"]
    a, c = (np.array([told[f"{name}{m}_diff"] for m in range(1, case["order"] + 1)]) for name in "ac")
    numbers = Corrections(np.array(told["t_couple"]), a, c, given["use_theory_coef"])
    times = gs_times(told["mu_logit"], case["t_start"], given["t_eps"])

    def run(denoiser: Denoiser, x: torch.Tensor) -> torch.Tensor:
        return play(gs_table(denoiser.path, denoiser.path, times, numbers), denoiser, x)

    return run


@reader("ld3_unipc")
def _ld3(case: Case) -> Run:
    given, n, options = case["options"], case["nfe_actual"], {"order": case["order"], "lower_order_final": "always"}

    def run(denoiser: Denoiser, x: torch.Tensor) -> torch.Tensor:
        plan = get("unipc").plan(denoiser.path, n, variant=given["variant"], **options)
        logits, offsets = np.array(given["params1"]), np.array(given["params2"])
        pair = ld3_times(denoiser.path, logits, offsets, given["time_mode"], given["win_rate"], official=True)
        return play(decoupled(plan, *pair, "x0"), denoiser, x)

    return run
