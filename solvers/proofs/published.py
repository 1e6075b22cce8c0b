"""Readers of the golden cases of published learned solvers: their numbers, through the tables that importing makes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from fastsample.models.denoiser import Denoiser
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
    weights, scales = (np.array(given["parameters"][name], float) for name in ("hybrid_weights", "t_scale"))
    return _run(lambda space, levels: dyweight_table(space, levels, weights, scales, given["afs"]), given)


@reader("epd", "epd_ipndm")
def _epd(case: Case) -> Run:
    given, told = case["options"], case["options"]["parameters"]
    raw = [np.array(told[name], float) for name in ("r_params", "weight_s", "scale_dir_params", "scale_time_params")]
    points = epd_points(*raw, given["scale_dir"], given["scale_time"], given.get("fcn", False))
    order = given["max_order"] if case["solver"] == "epd_ipndm" else 0
    return _run(lambda space, levels: epd_table(space, levels, points, given["afs"], order), given)
