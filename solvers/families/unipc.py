"""UniPC (arXiv 2302.04867): a multistep predictor (UniP) and a corrector that costs no evaluation (UniC).

At step s -> t with p = order, older values m_k at tau_k = (lambda_k - lambda_s) / h and D_k = (m_k - m_0) / tau_k:

    predictor    x_t = A x_s - c_t psi_0 m_0 - c_t B sum_{k<p} a_k D_k
    corrector    the same with k <= p, where tau_p = 1 and m_p is evaluated at the predicted point
    a            sum_k a_k tau_k^(j-1) = j! psi_j(H) / B(H)

B = H (bh1) or e^H - 1 (bh2) cancels, but for a single unknown, where a = 1/2 is taken instead of
psi_1 / B. `vary_coeff` takes the solution there too, so that it is the exact exponential
Adams-Bashforth-Moulton method; its predictor of order 3 is DPM-Solver(3M).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from fastsample.models.denoiser import Denoiser
from fastsample.solvers.exponential import Rule, adams, adams_half, multistep, multistep_schedule, psi
from fastsample.solvers.solver import Facts, register

_RULES: dict[str, Rule] = {"bh1": adams_half(lambda h: h), "bh2": adams_half(math.expm1), "vary_coeff": adams}


def _published_corrector(h: float, nodes: Sequence[float]) -> Sequence[float]:
    """The official corrector of vary_coeff: the new value enters one row of the inverse; the last row is missing."""
    p = len(nodes)
    inverse = np.linalg.inv(np.array([[tau**j / math.factorial(j + 1) for j in range(p)] for tau in nodes]))
    moments = np.array([psi(j, h) for j in range(1, p + 1)])
    weights = moments[:-1] @ inverse[:-1]
    weights[-1] = moments[-1] * inverse[max(p - 2, 0), -1]
    return [float(v) for v in weights / np.array(nodes)]


def _order(*, order: int, variant: str, official: bool, lower_order_final: str, **_: Any) -> int:
    return 1 if official and variant == "vary_coeff" else order if lower_order_final == "never" else min(order, 2)


@register(
    "unipc",
    Facts(
        title="UniPC",
        paper="2302.04867",
        coordinate="x0",
        order=_order,
        grids=("logsnr", "uniform", "quadratic"),
        flow_grid="sigmoid",
        scheduler=multistep_schedule,
        singular_start=True,
        defaults={"order": 3, "lower_order_final": "always"},
        variants=(
            {},
            {"order": 2},
            {"lower_order_final": "never"},
            {"variant": "bh1"},
            {"prediction": "noise"},
            {"variant": "vary_coeff", "lower_order_final": "never"},
            {"variant": "vary_coeff", "official": True},
        ),
        note="The official corrector of vary_coeff is incomplete, which makes it first order.",
    ),
)
def unipc(
    denoiser: Denoiser,
    x: Any,
    times: Sequence[float],
    *,
    orders: Sequence[int],
    variant: Literal["bh1", "bh2", "vary_coeff"] = "bh2",
    prediction: Literal["data", "noise"] = "data",
    official: bool = False,
) -> Any:
    """UniPC of the given orders per step, variant bh1, bh2 or vary_coeff; one evaluation a step.

    The last step has no corrector. Order at least `order` with lower_order_final=never; the default lets
    the order fall to 1 at the end, which is best for few steps and leaves order 2 in the limit.

    official: the published corrector of vary_coeff; first order.
    """
    corrector = _published_corrector if official and variant == "vary_coeff" else _RULES[variant]
    return multistep(denoiser, x, times, orders, prediction, _RULES[variant], corrector)
