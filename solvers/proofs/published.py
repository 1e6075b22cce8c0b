"""Readers of the golden cases of published learned solvers: their numbers, through the tables that importing makes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from fastsample.models.denoiser import Denoiser
from fastsample.solvers.found.predictor import Given
from fastsample.solvers.imported.dss import dss_flow, dss_vp, published_dss
from fastsample.solvers.imported.dyweight import dyweight_table
from fastsample.solvers.imported.epd import epd_points, epd_table
from fastsample.solvers.imported.space import Space, outer_levels, space_of
from fastsample.solvers.proofs.readers import Case, Run, reader
from fastsample.solvers.table import Table, play


def _run(make: Callable[[Space, Sequence[float]], Table], given: dict[str, Any]) -> Run:
    def run(denoiser: Denoiser, x: torch.Tensor) -> torch.Tensor:
        path = denoiser.path
        levels = outer_levels(path, given["num_steps"] - 1, given["schedule_type"], given["schedule_rho"])
        return play(make(space_of(path), levels), denoiser, x)

    return run


@reader("dyweight")
def _dyweight(case: Case) -> Run:
    given = case["options"]
    told = given["parameters"]
    weights, scales = np.array(told["hybrid_weights"], float), np.array(told["t_scale"] or [], float)
    return _run(lambda space, levels: dyweight_table(space, levels, weights, scales, given["afs"]), given)


@reader("epd", "epd_ipndm")
def _epd(case: Case) -> Run:
    given, told = case["options"], case["options"]["parameters"]
    r, weight, c, a = (
        np.array(told[name], float) for name in ("r_params", "weight_s", "scale_dir_params", "scale_time_params")
    )
    points = epd_points((r, weight, c, a), given["scale_dir"], given["scale_time"], given.get("fcn", False))
    order = given["max_order"] if case["solver"] == "epd_ipndm" else 0
    return _run(lambda space, levels: epd_table(space, levels, points, given["afs"], order), given)


@reader(published_dss()["solver"])
def _dss(case: Case) -> Run:
    """As released: its steps are not divided by their sum."""
    steps, weights = case["options"]["time_deltas"], case["options"]["coefficients_strict_lower"]
    return lambda denoiser, x: play(dss_flow(denoiser.path, steps, weights, official=True), denoiser, x)


@reader(f"{published_dss()['solver']}_vp")
def _dss_vp(case: Case) -> Run:
    steps, weights = case["options"]["time_deltas"], case["options"]["coefficients_strict_lower"]
    return lambda denoiser, x: play(dss_vp(denoiser.path, steps, weights), denoiser, x)


@reader("amed", "amed_euler", "amed_dpm2", "amed_ipndm", "amed_dpmpp")
def _amed(case: Case) -> tuple[str, int, dict[str, Any]]:
    """What its network predicted is in the case."""
    given, told = case["options"], case["options"]["parameters"]
    heads = [told.get(name) or [1.0] * len(told["r"]) for name in ("r", "scale_dir", "scale_time")]
    options = {"found": Given(list(zip(*heads, strict=True))), "plugin": case["solver"].partition("_")[2] or "none"}
    options |= {"order": given["max_order"]} if "max_order" in given else {}
    options |= {"prediction": "data" if given["predict_x0"] else "noise"} if "predict_x0" in given else {}
    options |= {name: given[name] for name in ("lower_order_final",) if name in given}
    return "amed", case["nfe_actual"], options
