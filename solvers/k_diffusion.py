"""Samplers in the manner of k-diffusion, `sample_xxx(model, x, sigmas, ...)`, as solvers.

Such a function is given sigmas as a tensor and asks `model(x, sigma)` for the data prediction on the path
x = x_0 + sigma eps (arXiv 2206.00364). A deterministic one is linear in x and in what the model returns. Run on
coordinate vectors, x = e_0 and the j-th answer = e_j in float64, its own tensor arithmetic yields its coefficient
table, and the table is what samples: its coefficients are exact on every device and in every precision.

k-diffusion ends its sigmas with 0, a step whose result is the last data prediction. Here a run ends at the path's
sigma_min like every other solver's; `denoise=true` adds that step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from fastsample.models.denoiser import Denoiser
from fastsample.solvers.solver import Facts, register, steps
from fastsample.solvers.table import Table, play

__all__ = ["register_k_diffusion", "table_of_function"]

Sample = Callable[..., torch.Tensor]


def register_k_diffusion(
    name: str, function: Sample, *, title: str, paper: str, order: int, evaluations: int = 1, **arguments: Any
) -> None:
    """Register a k-diffusion sampler as a solver.

    Args:
        name, title, paper, order: as in `register` and `Facts` of `fastsample.solvers.solver`.
        function: called as function(model, x, sigmas, extra_args={}, disable=True, **arguments); it must be
            deterministic and its evaluations may not depend on x.
        evaluations: model calls of one step.
        arguments: further keyword arguments of the function.
    """

    @lru_cache(maxsize=8)
    def table(sigmas: tuple[float, ...]) -> Table:
        return table_of_function(function, sigmas, **arguments)

    def solve(denoiser: Denoiser, x: Any, times: Sequence[float]) -> Any:
        return play(table(tuple(times)), denoiser, x)

    solve.__doc__ = function.__doc__ or f"The k-diffusion sampler {function.__name__}."
    facts = Facts(
        title=title,
        paper=paper,
        coordinate="x0",
        order=order,
        grids=("karras", "logsnr"),
        flow_grid="sigmoid",
        path="edm",
        scheduler=steps(evaluations),
    )
    register(name, facts)(solve)


def table_of_function(function: Sample, sigmas: Sequence[float], **arguments: Any) -> Table:
    """The coefficient table, in x0 on the EDM path, of a k-diffusion sampler.

    Args:
        function: called as function(model, x, sigmas, extra_args={}, disable=True, **arguments).
        sigmas: falling, without the final 0.

    Raises:
        ValueError: for a function that is not made of vector operations alone (adaptive, stochastic, thresholding).
    """

    def run(x: torch.Tensor, answer: Callable[[int], torch.Tensor]) -> tuple[list[tuple[float, torch.Tensor]], Any]:
        rows: list[tuple[float, torch.Tensor]] = []

        def model(point: torch.Tensor, sigma: torch.Tensor, **_: Any) -> torch.Tensor:
            rows.append((float(sigma.reshape(-1)[0]), point.clone()))
            return answer(len(rows) - 1)

        result = function(model, x, torch.tensor(sigmas, dtype=torch.float64), extra_args={}, disable=True, **arguments)
        return rows, result

    single = torch.zeros(1, 1, dtype=torch.float64)
    n = len(run(single, lambda _: single.clone())[0])
    basis = torch.eye(n + 1, dtype=torch.float64)[:, None]
    rows, result = run(basis[0].clone(), lambda j: basis[min(j + 1, n)].clone())
    points = torch.cat([*(x for _, x in rows), result])
    # One run on other vectors tells a linear function from any other.
    draws = torch.randn(n + 1, 1, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    again, other = run(draws[0].clone(), lambda j: draws[min(j + 1, n)].clone())
    if len(rows) == len(again) == n:
        expected = points @ draws[:, 0]
        seen = torch.cat([*(x for _, x in again), other])
        if torch.allclose(seen, expected, rtol=1e-9, atol=1e-9 * float(points.abs().max())):
            a, b = points[:, 0].numpy(), points[:, 1:].numpy()
            return Table("x0", np.array([s for s, _ in rows]), a, b, np.zeros((n + 1, 0)), float(sigmas[-1]))
    raise ValueError(
        f"{function.__name__} is not made of vector operations alone (it is adaptive, stochastic or thresholds): "
        "it has no coefficient table"
    )
