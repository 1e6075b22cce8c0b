"""Restart sampling (arXiv 2306.14878): Heun in sigma that goes back to more noise and down again.

An entry M/K/t_min/t_max acts at the node of the grid that is nearest to t_min: K times, noise is added up to t_max, and
M - 1 Heun steps on a Karras grid of M points lead down again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from fastsample.models.denoiser import Denoiser
from fastsample.models.path import Path
from fastsample.solvers.families.edm import heun_step
from fastsample.solvers.grids import BudgetError, Grid, SettingError
from fastsample.solvers.solver import Facts, Schedule, register

_Entry = tuple[int, int, float, float]


def _entries(restarts: str) -> list[_Entry]:
    """(M, K, t_min, t_max) of M/K/t_min/t_max+..."""
    found = list[_Entry]()
    for text in filter(None, restarts.split("+")):
        try:
            points, repeats, low, high = text.split("/")
            found.append((int(points), int(repeats), float(low), float(high)))
        except ValueError:
            raise SettingError(f"restarts are M/K/t_min/t_max, joined by +, not {text!r}") from None
        if not (found[-1][0] >= 2 and found[-1][1] >= 1 and 0 < found[-1][2] < found[-1][3] < math.inf):
            raise SettingError(f"a restart has M >= 2 points, K >= 1 repeats and 0 < t_min < t_max, not {text!r}")
    return found


def _schedule(path: Path, t_start: float, grid: Grid, nfe: int, *, restarts: str = "3/1/0.06/0.3") -> Schedule:
    entries = _entries(restarts)
    spent = sum(2 * repeats * (points - 1) for points, repeats, _, _ in entries)
    n = (nfe - spent) // 2
    if n < 1:
        raise BudgetError(f"needs at least {spent + 2} evaluations, not {nfe}")
    times = grid(path, n, t_start, path.t_data)
    rounds = dict[int, list[_Entry]]()
    for entry in entries:
        nearest = min(range(1, n + 1), key=lambda j: abs(times[j] - entry[2]))
        rounds.setdefault(nearest, []).append(entry)
    for j, here in rounds.items():
        for _, _, _, high in here:
            if high <= times[j]:
                raise SettingError(f"a restart from t_max = {high:g} begins above the node {times[j]:.3g} of the grid")
    return Schedule(times, {"rounds": rounds})


@register(
    "restart",
    Facts(
        title="Restart",
        paper="2306.14878",
        coordinate="eps",
        order=1,
        path="edm",
        grids=("karras", "logsnr"),
        flow_grid="sigmoid",
        scheduler=_schedule,
        stochastic=True,
        ranges={"S_noise": (0, 10)},
        note="In the official code a second entry at one node replaces the first; here both act.",
    ),
)
def restart(
    denoiser: Denoiser, x: Any, times: Sequence[float], *, noise: Callable[[int], Any],
    rounds: dict[int, list[_Entry]], S_noise: float = 1.0,
) -> Any:  # fmt: skip
    """Restart on Heun's method; `restarts` are entries M/K/t_min/t_max in sigma, joined by +.

    Two evaluations a step, and 2 K (M - 1) for each entry.
    """
    used = 0
    for j, (s, t) in enumerate(pairwise(times), start=1):
        x = heun_step(denoiser, x, s, t)
        for points, repeats, _, high in rounds.get(j, []):
            down = Grid("karras")(denoiser.path, points - 1, high, t)
            for _ in range(repeats):
                x = x + (math.sqrt((high - t) * (high + t)) * S_noise) * noise(used)
                used += 1
                for a, b in pairwise(down):
                    x = heun_step(denoiser, x, a, b)
    return x
