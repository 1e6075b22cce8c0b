"""AMED (arXiv 2312.00094): a step goes through one middle point that a small network chooses for each sample.

In sigma from s to t, with d the slope (x - D) / sigma at s and the network's r in (0, 1), c and a,

    m = t^r s^(1 - r),    x_m = x + (m - s) d,    d_m = (x_m - D(x_m; a m)) / m,    x' = x + c (t - s) d_m

and as a plugin both halves of the step are another solver's: Euler's; those of iPNDM with the weights of equal steps
over the history d, d_m, d, ...; those of DPM-Solver(++) of orders up to 3 over all points; or `dpm2`,
x' = x + c (t - s) (d_m / (2 r) + (1 - 1 / (2 r)) d). c is of the second half alone.

Without a network r is 1/2 and c = a = 1: then a step is fixed, and `amed` is DPM-Solver-2 in sigma.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from fastsample.models.denoiser import Denoiser, column
from fastsample.models.features import bottleneck
from fastsample.models.path import Path
from fastsample.solvers.adams import combine, equal_weights
from fastsample.solvers.found.predictor import Given, Predictor
from fastsample.solvers.grids import BudgetError, Grid
from fastsample.solvers.solver import Facts, Schedule, register

_Point = tuple[Any, Any]  # (level, value)


def _schedule(path: Path, t_start: float, grid: Grid, nfe: int, *, found: Predictor | Given | None) -> Schedule:
    if nfe < 2:
        raise BudgetError(f"needs at least 2 evaluations, not {nfe}")
    return Schedule(grid(path, nfe // 2, t_start, path.t_data), {"found": found or Given()})


def _order(*, plugin: str, order: int, **_: Any) -> int:
    return {"euler": 1, "ipndm": min(order, 2), "dpmpp": min(order, 2)}.get(plugin, 2)


@register(
    "amed",
    Facts(
        title="AMED-Solver",
        paper="2312.00094",
        coordinate="eps",
        order=_order,
        path="edm",
        grids=("logsnr", "karras", "vp-time"),
        flow_grid="sigmoid",
        scheduler=_schedule,
        trained_on="squared error",
        variants=(
            {},
            {"plugin": "euler"},
            {"plugin": "dpm2"},
            {"plugin": "ipndm"},
            {"plugin": "dpmpp"},
            {"plugin": "dpmpp", "prediction": "noise", "lower_order_final": False},
        ),
        note="Its network is read from a published file by `fastsample import`; without one its middle point is fixed.",
    ),
)
def amed(
    denoiser: Denoiser,
    x: Any,
    times: Sequence[float],
    *,
    found: Predictor | Given,
    plugin: Literal["none", "euler", "dpm2", "ipndm", "dpmpp"] = "none",
    order: Literal[1, 2, 3, 4] = 3,
    prediction: Literal["data", "noise"] = "data",
    lower_order_final: bool = True,
) -> Any:
    """AMED-Solver, or what it makes of another solver; two evaluations a step.

    order: the highest of ipndm (4) and dpmpp (3). prediction: of dpmpp.
    """
    whole, data = plugin in ("none", "dpm2"), plugin == "dpmpp" and prediction == "data"
    each = isinstance(found, Predictor) and hasattr(x, "new_tensor")  # a row of x is a sample
    halves, past = 2 * (len(times) - 1), list[_Point]()  # past: of both halves, newest first

    def half(x: Any, s: Any, t: Any, value: Any, number: int, c: Any = 1.0) -> Any:
        past.insert(0, (s, value))
        del past[4:]
        if plugin != "dpmpp":
            q = min(order, len(past)) if plugin == "ipndm" else 1
            return x + _times(c * (t - s), combine(equal_weights(q), [one for _, one in past[:q]]))
        q = min(order, 3, number, halves + 1 - number if lower_order_final else 3)
        return _dpm_step(x, past[:q], t, c, data)

    with bottleneck(denoiser) as heard:
        for i, (s, t) in enumerate(pairwise(times)):
            d = denoiser.eps(x, s)
            r, c, a = found(i, s, t, heard(), len(x) if each else 1)
            if not each and isinstance(found, Predictor):  # x is a number: whether all is finite is asked
                r, c, a = (one.item() for one in (r, c, a))
            m = t**r * s ** (1 - r)
            middle = x + _times(m - s, d) if whole else half(x, s, m, x - s * d if data else d, 2 * i + 1)
            answer = _asked(denoiser, middle, a * m)
            heard()  # only what is heard at the beginning of a step counts
            slope = _times(1 / m, middle - answer)
            if not whole:
                x = half(middle, m, t, answer if data else slope, 2 * i + 2, c)
                continue
            share = 1.0 if plugin == "none" else 1 / (2 * r)
            x = x + _times(c * (t - s) * share, slope) + _times(c * (t - s) * (1 - share), d)
    return x


def _dpm_step(x: Any, points: Sequence[_Point], t: Any, c: Any, data: bool) -> Any:
    """The official multistep step of DPM-Solver(++) in sigma to the level t, from values at levels, newest first."""
    (s, newest), *older = points
    h = np.log(s / t)
    if data:  # x' = (t/s) x - phi_1 X + phi_2 D1 - phi_3 D2
        one = np.expm1(-h)
        two, scale = one / h + 1, 1.0
        weights, x = (-one, two, -(two / h - 0.5)), _times(t / s, x)
    else:  # x' = x - t (phi_1 e + phi_2 D1 + phi_3 D2)
        one = np.expm1(h)
        two, scale = one / h - 1, t
        weights = (-one, -two, -(two / h - 0.5))
    result = x + _times(c * scale * weights[0], newest)
    if not older:
        return result
    ratio = np.log(older[0][0] / s) / h
    first = _times(1 / ratio, newest - older[0][1])
    if len(older) == 1:
        return result + _times(c * scale * weights[0] / 2, first)
    before = np.log(older[1][0] / older[0][0]) / h
    change = first - _times(1 / before, older[0][1] - older[1][1])
    first = first + _times(ratio / (ratio + before), change)
    return result + _times(c * scale * weights[1], first) + _times(c * scale * weights[2] / (ratio + before), change)


def _asked(denoiser: Denoiser, x: Any, levels: Any) -> Any:
    """The data prediction at one level, or of each sample at its own."""
    if np.ndim(levels) == 0:
        return denoiser.x0(x, float(levels))
    return denoiser.each(x, [(float(t), 1.0, 0.0) for t in levels], range(len(x)))


def _times(factor: Any, x: Any) -> Any:
    """A number, or one for each sample, times x."""
    return float(factor) * x if np.ndim(factor) == 0 else column(factor, x) * x
