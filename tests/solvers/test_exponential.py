"""psi functions, Adams weights, and the multistep solvers built on them against the formulas of the papers."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from itertools import pairwise

import numpy as np
import pytest
import torch

from fastsample.models.analytic import ring_mixture
from fastsample.models.path import LinearFlow, VPLinear
from fastsample.solvers.exponential import adams, psi
from fastsample.solvers.solver import get

POINTS = torch.randn(16, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def _run(name: str, nfe: int, path=None, grid=None, **options):
    path = path or VPLinear()
    denoiser = ring_mixture(path)
    result = get(name).plan(path, nfe, grid, **options)(denoiser, POINTS)
    return result, denoiser.nfe


@pytest.mark.parametrize("h", [-30.0, -1.001, -0.999, -1e-3, -1e-9, 1e-9, 1e-3, 0.999, 1.001, 8.0])
@pytest.mark.parametrize("j", range(5))
def test_psi_keeps_its_digits(j, h):
    with localcontext() as context:
        context.prec = 80
        value = Decimal(h).exp() - 1
        for i in range(1, j + 1):
            value = value / Decimal(h) - Decimal(1) / math.factorial(i)
    assert psi(j, h) == pytest.approx(float(value), rel=2e-13)


def test_psi_of_an_infinite_step():
    assert [psi(j, -math.inf) for j in range(3)] == [-1, -1, -0.5]


@pytest.mark.parametrize("nodes", [[-1.3], [1.0], [-1.0, 1.0], [-0.7, -2.1], [-0.7, -2.1, 1.0]])
def test_adams_weights_integrate_polynomials(nodes):
    h = -0.8
    v = adams(h, nodes)
    x, w = np.polynomial.legendre.leggauss(30)
    tau = 0.5 * (x + 1)
    for j in range(1, len(nodes) + 1):
        integral = 0.5 * h * np.sum(w * np.exp(h * (1 - tau)) * tau**j)
        assert sum(a * node**j for a, node in zip(v, nodes, strict=True)) == pytest.approx(integral, abs=1e-13)


@pytest.mark.parametrize("official", [False, True])
def test_3m_is_the_formula_of_the_paper(official):
    path, n = VPLinear(), 12
    denoiser = ring_mixture(path)
    plan = get("dpmpp-3m").plan(path, n, "quadratic", official=official)
    x, m, lams = POINTS, [], []
    for i, (s, t) in enumerate(pairwise(plan.times)):
        m.insert(0, denoiser.x0(x, s))
        lams.insert(0, path.lam(s))
        h = path.lam(t) - lams[0]
        x = path.sigma(t) / path.sigma(s) * x - path.alpha(t) * math.expm1(-h) * m[0]
        if i >= 1:
            r0 = (lams[0] - lams[1]) / h
            d10 = (m[0] - m[1]) / r0
        if i == 1:
            x = x - 0.5 * path.alpha(t) * math.expm1(-h) * d10
        if i >= 2:
            r1 = (lams[1] - lams[2]) / h
            d11 = (m[1] - m[2]) / r1
            d1, d2 = d10 + r0 / (r0 + r1) * (d10 - d11), (d10 - d11) / (r0 + r1)
            phi_2 = math.expm1(-h) / h + 1
            x = x + path.alpha(t) * (phi_2 * d1 - (1 if official else 2) * (phi_2 / h - 0.5) * d2)
    torch.testing.assert_close(plan(denoiser, POINTS), x, atol=1e-11, rtol=0)


def test_unipc_variants_differ_by_their_single_unknown_only():
    bh1, bh2, vary = (_run("unipc", 20, order=3, variant=v)[0] for v in ("bh1", "bh2", "vary_coeff"))
    assert (bh1 - bh2).abs().max() > 1e-9
    assert (bh1 - vary).abs().max() < 0.05


def test_corrector_costs_no_evaluation_and_is_unipc():
    reference, _ = _run("rk4", 800)
    plain, nfe = _run("dpmpp-2m", 40)
    corrected, nfe_corrected = _run("dpmpp-2m", 40, corrector=True)
    assert nfe == nfe_corrected == 40
    assert (corrected - reference).norm() < 0.5 * (plain - reference).norm()
    unipc, _ = _run("unipc", 40, order=2, lower_order_final="never")
    torch.testing.assert_close(corrected, unipc, atol=1e-13, rtol=0)


def test_prediction_option_is_the_other_solver():
    torch.testing.assert_close(_run("dpmpp-2m", 8, prediction="noise")[0], _run("dpm-solver-2m", 8)[0], atol=0, rtol=0)


def test_start_at_alpha_zero():
    data = get("unipc").plan(LinearFlow(), 8, "uniform")
    noise = get("unipc").plan(LinearFlow(), 8, "uniform", prediction="noise")
    assert data.times[0] == 0
    assert noise.times[0] == LinearFlow().t_finite
    reference, _ = _run("rk4", 800, LinearFlow())
    for variant in ("bh1", "bh2", "vary_coeff"):
        result, _ = _run("unipc", 200, LinearFlow(), "uniform", variant=variant)
        assert (result - reference).abs().max() < 1e-2


def test_lower_order_final():
    orders = {
        key: get("dpmpp-3m").plan(VPLinear(), nfe, lower_order_final=key).arguments["orders"]
        for key, nfe in (("short", 6), ("never", 5), ("always", 12))
    }
    assert orders["short"] == [1, 2, 3, 3, 2, 1]
    assert orders["never"] == [1, 2, 3, 3, 3]
    assert orders["always"] == [1, 2, *[3] * 8, 2, 1]
    assert get("dpmpp-3m").plan(VPLinear(), 10).arguments["orders"][-1] == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": 5}, "order runs from 1 to 4, not"),
        ({"lower_order_final": "yes"}, "unknown lower_order_final"),
        ({"variant": "bh3"}, "unknown variant"),
        ({"prediction": "x0"}, "unknown prediction"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        _run("unipc", 5, **options)
