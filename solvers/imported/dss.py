"""The published tables of differentiable solver search (arXiv 2505.21114, appendix J), which ship with the package.

Of steps dt_i and weights c_ij, with m_ij = c_ij for j < i and m_ii = 1 - sum_j c_ij,

    flows    x_{i+1} = x_i + dt_i sum_j m_ij v_j,                                   t_{i+1} = t_i + dt_i, from 0 to 1
    VP       x_{i+1} = (sigma'/sigma) x_i + sigma' (omega' - omega) sum_j m_ij X_j,   omega = alpha / sigma

with v the velocity and X the data prediction. The printed steps of a flow sum to 0.9999 to 1.0002, and are divided by
their sum here. On VP (beta from 0.1 to 20) t falls from 0.999 to 0.001 at the lowest; other VP paths are met at equal
lambda. The released code makes a DDIM step on top of each of these, which the paper has not, and neither has this.

The search was without guidance, and kept the numbers of the best FID of 50,000 samples.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from itertools import pairwise
from typing import Any

import numpy as np

from fastsample.models.denoiser import Denoiser
from fastsample.models.path import LinearFlow, Path, VPLinear
from fastsample.models.public.cards import cards
from fastsample.solvers.adams import combine
from fastsample.solvers.table import Table, trace_function
from fastsample.solvers.table_file import Imported, TableFile

__all__ = ["dss_flow", "dss_vp", "published_dss", "shipped_dss"]

_VP = VPLinear(t_noise=0.999, t_data=1e-3)


def dss_flow(
    path: Path, steps: Sequence[float], weights: Sequence[Sequence[float]], *, official: bool = False
) -> Table:
    """The table on a flow, of dt and the rows of c; official: the steps as they are printed."""
    total = 1.0 if official else sum(steps)
    times = np.append(0.0, np.cumsum(np.array(steps) / total))
    rows = _rows(weights)

    def solve(denoiser: Denoiser, x: Any, noise: Any) -> Any:
        found: list[Any] = []
        for row, (s, t) in zip(rows, pairwise(times.tolist()), strict=True):
            found.append(denoiser.velocity(x, s))
            x = x + (t - s) * combine(row, found)
        return x

    return trace_function(path, "velocity", solve, float(times[-1]) if official else 1.0)


def dss_vp(path: Path, steps: Sequence[float], weights: Sequence[Sequence[float]]) -> Table:
    """The table on a model's path of a search on the continuous VP path, of dt and the rows of c."""
    times = np.clip(np.append(_VP.t_noise, _VP.t_noise - np.cumsum(steps)), _VP.t_data, 1.0)
    rows = _rows(weights)

    def solve(denoiser: Denoiser, x: Any, noise: Any) -> Any:
        view, found = denoiser.on(_VP), list[Any]()
        for row, (s, t) in zip(rows, pairwise(times.tolist()), strict=True):
            found.append(view.x0(x, s))
            sigma = _VP.sigma(t)
            gain = sigma * (_VP.alpha(t) / sigma - _VP.alpha(s) / _VP.sigma(s))
            x = sigma / _VP.sigma(s) * x + gain * combine(row, found)
        return x

    last = float(times[-1])
    return trace_function(path, "x0", solve, last if isinstance(path, VPLinear) else path.t_of_lam(_VP.lam(last)))


def _rows(weights: Sequence[Sequence[float]]) -> list[list[float]]:
    """Rows of c with what remains for the newest."""
    return [[*map(float, row), 1 - float(sum(row))] for row in weights]


@cache
def published_dss() -> Mapping[str, Any]:
    """The printed numbers: solver, paper and, by model, path, source, and [steps, weights] by NFE."""
    return json.loads((files("fastsample.solvers.imported") / "dss.json").read_text("utf-8"))


@cache
def shipped_dss() -> tuple[TableFile, ...]:
    """The published tables, each for the model that it was searched for."""
    told, made = published_dss(), list[TableFile]()
    for model, entry in told["models"].items():
        card = cards().get(model)
        path = card.path.build() if card and card.path else LinearFlow()
        source = Imported(
            source=entry["source"],
            trained_on="FID",
            told="searched without guidance, kept by the best FID of 50,000 samples",
        )
        for nfe in filter(str.isdecimal, entry):
            table = (dss_vp if entry["path"] == "vp" else dss_flow)(path, *entry[nfe])
            facts = {"solver": told["solver"], "title": "Differentiable solver search", "paper": told["paper"]}
            made.append(TableFile.of(table, path, model=model, imported=source, **facts))
    return tuple(made)
