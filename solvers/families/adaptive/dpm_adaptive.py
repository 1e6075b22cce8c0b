"""DPM-Solver with steps of its own: the pairs DPM-Solver-12 and -23 (arXiv 2206.00927, appendix C).

An attempt over h in lambda gives x_lo and x_hi, singlestep solutions of orders p - 1 and p that share their evaluations
(`exponential`; r_1 = 1/2 for p = 2; 1/3 and 2/3 for p = 3, whose lower one has the same r_1). With x_prev the x_lo of
the step before,

    delta = max(atol, rtol max(|x_lo|, |x_prev|))
    E     = RMS((x_hi - x_lo) / delta)

    official code    accepts E <= 1;     h <- min(theta h E^(-1/p), lambda_end - lambda)
    k-diffusion      accepts f >= 0.81;  h <- f h,  f = 1 + atan(e_0^b_0 e_1^b_1 e_2^b_2 - 1)

with h the step that was tried, e_0 = 1 / (E + 1e-8) and e_1, e_2 those of the accepted attempts before, and the
exponents of a PID controller. An attempt makes p evaluations, accepted or not. Every sample has steps of its own, so
that neither they nor its result depend on what else is in the batch; `official` is one step for all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fastsample.models.denoiser import Denoiser, weights
from fastsample.models.path import Path
from fastsample.solvers.exponential import adams, prediction_named, step
from fastsample.solvers.families.dpm_multistep import rule_named
from fastsample.solvers.samples import each, norms
from fastsample.solvers.solver import Facts, register, whole_interval

if TYPE_CHECKING:
    import torch  # as in `models.denoiser`

_RATIOS = {2: (1 / 2,), 3: (1 / 3, 2 / 3)}  # r_j of the evaluations inside a step
_SMALLEST = 1e-10  # step in lambda below which the problem is given up
# (numbers [k, n] that begin with h, the steps tried [n], E [n]) -> (accepted [n], numbers)
_Control = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def _stages(
    path: Path, lam: float, h: float, order: int, prediction: str, solver_type: str
) -> tuple[list[float], np.ndarray]:
    """Times of the evaluations; coefficients [order + 2, 1 + order] of their points, x_lo and x_hi over x, m_0, ..."""
    basis, rule = np.eye(1 + order), rule_named(solver_type)
    s, t = path.t_of_lam(lam), path.t_of_lam(lam + h)
    times, rows, values = [s], [basis[0]], [(path.lam(s), basis[1])]
    for r, value in zip(_RATIOS[order], basis[2:], strict=True):
        u = path.t_of_lam(lam + r * h)
        rows.append(step(path, basis[0], s, u, prediction, values, adams))
        times.append(u)
        values.append((path.lam(u), value))
    low = step(path, basis[0], s, t, prediction, values[:-1], rule)
    if order == 3 and solver_type == "dpmsolver":
        values, rule = [values[0], values[2]], adams
    return times, np.stack([*rows, low, step(path, basis[0], s, t, prediction, values, rule)])


def _integrate(
    denoiser: Denoiser, x: torch.Tensor, times: Sequence[float], order: int, prediction: str, solver_type: str,
    rtol: float, atol: float, control: _Control, numbers: Sequence[float], together: Callable[..., Any] | None,
    over: Callable[[float], bool], max_nfe: int,
) -> torch.Tensor:  # fmt: skip
    """The solution at the last time.

    Args:
        x: [batch, ...].
        control, numbers: the controller, and what it begins with; the first of them is h.
        together: the E of a batch of those of its samples, where all have one step.
        over: whether lambda is the end.

    Raises:
        ArithmeticError: where a step falls below 1e-10, or a sample needs more evaluations than `max_nfe`.
    """
    import torch

    path, wanted = denoiser.path, prediction_named(prediction)
    end, count = path.lam(times[-1]), len(x) if together is None else 1
    result, rows, before = x.clone(), np.arange(len(x)), x  # rows: the samples that are still on their way
    lam, state = np.full(count, path.lam(times[0])), np.array([numbers] * count, float).T
    made = 0  # of each sample that is on its way
    while len(rows):
        h = np.minimum(state[0], end - lam)
        if not (h >= _SMALLEST).all():
            raise ArithmeticError(f"DPM-Solver: a step fell to {np.min(h):g} in lambda; loosen {rtol=:g}, {atol=:g}")
        if (made := made + order) > max_nfe:
            told = f"more than {max_nfe} evaluations; loosen {rtol=:g}, {atol=:g} or raise max_nfe"
            raise ArithmeticError(f"DPM-Solver: a sample needs {told}")
        tried = [
            _stages(path, *one, order, prediction, solver_type) for one in zip(lam.tolist(), h.tolist(), strict=True)
        ]
        asked, parts = [times for times, _ in tried], np.stack([part for _, part in tried])
        known = [x]

        def combined(row: int) -> torch.Tensor:
            return sum(each(parts[:, row, j], x) * value for j, value in enumerate(known))  # noqa: B023

        for k in range(order):
            point = combined(k)
            if together:
                known.append(denoiser.predict(point, asked[0][k], wanted))
            else:
                places = [(times[k], *weights(path, times[k], wanted)) for times in asked]
                known.append(denoiser.each(point, places, rows.tolist()))
        low, high = combined(order), combined(order + 1)
        delta = (rtol * low.abs().maximum(before.abs())).clamp(min=atol)
        error = norms((high - low) / delta) / np.sqrt(x[0].numel())
        good, state = control(state, h, error if together is None else np.array([together(error)]))
        moved = each(good, x) > 0
        x, before, lam = torch.where(moved, high, x), torch.where(moved, low, before), np.where(good, lam + h, lam)
        there = np.array([over(value) for value in lam.tolist()])
        if there.any():
            done = np.repeat(there, len(rows) // len(there))
            result[rows[done]] = x[done]
            x, before, rows, lam, state = x[~done], before[~done], rows[~done], lam[~there], state[:, ~there]
    return result


def _by_error(state: np.ndarray, h: np.ndarray, error: np.ndarray, *, order: int, theta: float) -> Any:
    with np.errstate(divide="ignore"):  # of no error: the rest of the way
        return error <= 1, (theta * h * error ** (-1 / order))[None]


def _by_pid(
    state: np.ndarray, h: np.ndarray, error: np.ndarray, *, exponents: Sequence[float], accept_safety: float
) -> Any:
    length, *past = state
    now = 1 / (error + 1e-8)
    older, oldest = (np.where(np.isnan(one), now, one) for one in past)  # the first attempt stands for those before
    factor = 1 + np.arctan(now ** exponents[0] * older ** exponents[1] * oldest ** exponents[2] - 1)
    good = factor >= accept_safety
    return good, np.stack([factor * length, np.where(good, now, older), np.where(good, older, oldest)])


_RANGES = {"rtol": (0, 1), "atol": (1e-15, 1000), "h_init": (1e-9, 100), "max_nfe": (3, 1_000_000)}
_ADAPTIVE = partial(
    Facts,
    paper="2206.00927",
    coordinate="eps",
    order=lambda *, order, **_: order,
    scheduler=whole_interval,
    adaptive=True,
)


@register(
    "dpm-adaptive",
    _ADAPTIVE(
        title="DPM-Solver adaptive",
        ranges=_RANGES | {"theta": (0.1, 1), "t_err": (1e-12, 1e-2)},
        variants=({}, {"order": 2}, {"prediction": "data"}, {"solver_type": "taylor"}),
        note="The official code has one step for the whole batch, by the largest error of its samples, and is at the "
        "end where t, not lambda, is within t_err of it (official=true).",
    ),
)
def dpm_adaptive(
    denoiser: Denoiser,
    x: Any,
    times: Sequence[float],
    *,
    order: Literal[2, 3] = 3,
    prediction: Literal["data", "noise"] = "noise",
    solver_type: Literal["dpmsolver", "taylor"] = "dpmsolver",
    rtol: float = 0.05,
    atol: float = 0.0078,
    h_init: float = 0.05,
    theta: float = 0.9,
    t_err: float = 1e-5,
    max_nfe: int = 10_000,
    official: bool = False,
) -> Any:
    """DPM-Solver-12 (order=2) or -23; the step follows the error of the lower one."""
    path, last = denoiser.path, times[-1]

    def over(lam: float) -> bool:
        return abs(path.t_of_lam(lam) - last) <= t_err if official else path.lam(last) - lam <= t_err

    control = partial(_by_error, order=order, theta=theta)
    return _integrate(
        denoiser, x, times, order, prediction, solver_type, rtol, atol, control, (h_init,),
        np.max if official else None, over, max_nfe,
    )  # fmt: skip


@register(
    "dpm-adaptive-k",
    _ADAPTIVE(
        title="DPM-Solver adaptive (k-diffusion)",
        path="edm",
        ranges=_RANGES | dict.fromkeys(("pcoeff", "icoeff", "dcoeff"), (-10, 10)) | {"accept_safety": (0.01, 1)},
        variants=({}, {"order": 2}, {"pcoeff": 0.2, "icoeff": 0.7}),
        note="k-diffusion has one step for the whole batch, by the root mean square of its errors (official=true).",
    ),
)
def dpm_adaptive_k(
    denoiser: Denoiser,
    x: Any,
    times: Sequence[float],
    *,
    order: Literal[2, 3] = 3,
    rtol: float = 0.05,
    atol: float = 0.0078,
    h_init: float = 0.05,
    pcoeff: float = 0.0,
    icoeff: float = 1.0,
    dcoeff: float = 0.0,
    accept_safety: float = 0.81,
    max_nfe: int = 10_000,
    official: bool = False,
) -> Any:
    """k-diffusion's DPM-Solver-12 (order=2) or -23 in sigma, whose step a PID controller chooses."""
    last = denoiser.path.lam(times[-1])
    exponents = ((pcoeff + icoeff + dcoeff) / order, -(pcoeff + 2 * dcoeff) / order, dcoeff / order)
    control = partial(_by_pid, exponents=exponents, accept_safety=accept_safety)
    return _integrate(
        denoiser, x, times, order, "noise", "dpmsolver", rtol, atol, control, (h_init, np.nan, np.nan),
        (lambda errors: np.sqrt(np.mean(errors**2))) if official else None, lambda lam: lam >= last - 1e-5, max_nfe,
    )  # fmt: skip
