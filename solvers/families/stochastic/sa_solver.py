"""SA-Solver, stochastic Adams (arXiv 2309.05019): exponential multistep predictor and corrector of the SDE with tau(t).

The step is that of `exponential` with its tau. Predictor of order p: the values at s and before, p in all; corrector of
order c: that at t, s and before, c in all, starting again at x_s with the same noise. tau is that of the step's end.

    for s, t in pairs of neighbouring times:
        x_p = step(x; m_s, m_{s-1}, ...) + noise
        m_t = m(x_p, t)
        x   = step(x; m_t, m_s, ...) + noise      and, with PECE, m_t = m(x, t)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal

from fastsample.models.denoiser import Denoiser
from fastsample.models.path import Path
from fastsample.solvers.exponential import adams, adams_half, prediction_named, spread, step
from fastsample.solvers.grids import BudgetError, Grid
from fastsample.solvers.solver import Facts, Schedule, register

_Mode = Literal["few_steps", "more_steps"]


def _schedule(
    path: Path,
    t_start: float,
    grid: Grid,
    nfe: int,
    *,
    corrector_order: Literal[0, 1, 2, 3, 4] = 4,
    pc_mode: Literal["PEC", "PECE"] = "PEC",
    mode: _Mode = "few_steps",
    prediction: Literal["data", "noise"] = "data",
) -> Schedule:
    """N steps: N evaluations, with PECE 2 N - 1; of more_steps with a corrector one more, for its last step."""
    last = mode == "more_steps" and corrector_order > 0
    again = pc_mode == "PECE" and corrector_order > 0
    n = (nfe - last + again) // (1 + again)
    if n < 1:
        raise BudgetError(f"needs at least {1 + last} evaluations, not {nfe}")
    start = path.t_finite if prediction == "noise" and path.is_singular(t_start) else t_start
    return Schedule(grid(path, n, start, path.t_data))


def _order(*, predictor_order: int, corrector_order: int, tau: float, **_: Any) -> int:
    return 1 if tau else min(2, max(predictor_order, corrector_order))  # the last step is of first order


@register(
    "sa-solver",
    Facts(
        title="SA-Solver",
        paper="2309.05019",
        coordinate="x0",
        order=_order,
        grids=("logsnr", "karras", "uniform"),
        flow_grid="sigmoid",
        singular_start=True,
        scheduler=_schedule,
        stochastic=True,
        ranges={"tau": (0, 10), "nsr_min": (0, 1e9), "nsr_max": (0, 1e9)},
        variants=({}, {"tau": 0.0}, {"mode": "more_steps"}, {"pc_mode": "PECE"}, {"prediction": "noise"}),
        note="The copy in diffusers takes tau at the start of a step, the official code at its end.",
    ),
)
def sa_solver(
    denoiser: Denoiser,
    x: Any,
    times: Sequence[float],
    *,
    noise: Callable[[int], Any],
    predictor_order: Literal[1, 2, 3, 4] = 3,
    corrector_order: Literal[0, 1, 2, 3, 4] = 4,
    pc_mode: Literal["PEC", "PECE"] = "PEC",
    mode: _Mode = "few_steps",
    prediction: Literal["data", "noise"] = "data",
    tau: float = 1.0,
    nsr_min: float = 0.05,
    nsr_max: float = 1.0,
) -> Any:
    """SA-Solver of orders (predictor_order, corrector_order); corrector_order = 0 has no corrector.

    tau acts where nsr_min <= sigma / alpha <= nsr_max; tau = 0 is the ODE. few_steps: the last step is DDIM without
    noise, and with data prediction a second-order step has h^2 / 2 for its first moment, which damps.
    more_steps: the last step is corrected like the others; published with `denoise`.
    """
    path, wanted, n = denoiser.path, prediction_named(prediction), len(times) - 1
    few = mode == "few_steps"
    rule = adams_half(lambda h: h) if few and prediction == "data" else adams
    past = [(path.lam(times[0]), denoiser.predict(x, times[0], wanted))]
    for i, (s, t) in enumerate(pairwise(times), start=1):
        ends = i == n and few
        left = n if i < max(predictor_order, corrector_order - 1) else n - i  # whose end lowers the orders
        p, c = min(predictor_order, i, left + 1), min(corrector_order, i + 1, left + 2)
        at = 0.0 if ends or not nsr_min <= path.nsr(t) <= nsr_max else tau
        added = spread(path, s, t, prediction, at) * noise(i) if at else 0
        predicted = step(path, x, s, t, prediction, past[: 1 if ends else p], rule, at) + added
        if i == n and (ends or not c):
            return predicted
        now = path.lam(t), denoiser.predict(predicted, t, wanted)
        x = step(path, x, s, t, prediction, [*past[: c - 1], now], rule, at) + added if c else predicted
        if c and pc_mode == "PECE" and i < n:
            now = now[0], denoiser.predict(x, t, wanted)
        past = [now, *past][:4]
    return x
