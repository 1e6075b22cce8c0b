"""The integrator of the reference solutions, against scipy's adaptive one on problems written out anew."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from fastsample.bench.metrics import integrator
from fastsample.bench.metrics.integrator import CORRECTOR, PREDICTOR, integrate, signature
from fastsample.models.analytic import ring_mixture
from fastsample.models.path import CosineFlow, DiscreteVP, Edm, LinearFlow, VPLinear

ANGLES = np.arange(8) * np.pi / 4
CENTRE = (2.0, -1.0)
MEANS = 2 * np.stack([np.cos(ANGLES), np.sin(ANGLES)], 1) + CENTRE
X = np.array([[0.3, -1.1], [1.4, 0.6], [-0.7, 0.2], [-1.2, -0.5], [0.05, 1.9]])
# alpha(t), sigma(t), their derivatives, first and last time: nothing of this is the package's
PROBLEMS = {
    "vp": (VPLinear(), lambda t: np.exp(-0.25 * 19.9 * t * t - 0.05 * t), None, 1.0, 1e-3),
    "flow": (LinearFlow(), lambda t: t, lambda t: 1 - t, 0.0, 0.999),
    "edm": (Edm(), lambda t: 1.0, lambda t: t, 80.0, 0.002),
    "cosine flow": (CosineFlow(), lambda t: np.sin(np.pi * t / 2), lambda t: np.cos(np.pi * t / 2), 0.0, 0.999),
}


def velocity(alpha, sigma):
    """dx/dt of the mixture, with derivatives of alpha and sigma by complex steps."""

    def field(t, flat):
        x = flat.reshape(-1, 2)
        a, s = alpha(t), sigma(t)
        da, ds = (np.imag(f(t + 1e-30j)) / 1e-30 for f in (alpha, sigma))
        total = a * a * 0.15**2 + s * s
        offset = x[:, None] - a * MEANS
        logits = -0.5 * (offset**2).sum(-1) / total
        g = np.exp(logits - logits.max(1, keepdims=True))
        g /= g.sum(1, keepdims=True)
        x0 = (g[..., None] * (MEANS + a * 0.15**2 / total * offset)).sum(1)
        eps = (g[..., None] * (s / total * offset)).sum(1)
        return (da * x0 + ds * eps).ravel()

    return field


@pytest.fixture(scope="module")
def exact():
    found = {}
    for name, (path, alpha, sigma, first, last) in PROBLEMS.items():
        sigma = sigma or (lambda t, alpha=alpha: np.sqrt(1 - alpha(t) ** 2))
        start = path.prior_std * X
        solved = solve_ivp(velocity(alpha, sigma), (first, last), start.ravel(), "DOP853", rtol=1e-12, atol=1e-13)
        found[name] = solved.y[:, -1].reshape(-1, 2)
    return found


def error(name, steps, exact):
    path = PROBLEMS[name][0]
    result = integrate(ring_mixture(path, CENTRE), path.prior_std * torch.from_numpy(X), steps)
    return float((result - torch.from_numpy(exact[name])).abs().max())


@pytest.mark.parametrize("name", PROBLEMS)
def test_it_ends_where_an_adaptive_integrator_ends(name, exact):
    errors = [error(name, steps, exact) for steps in (640, 1280, 2560)]
    assert errors[0] < 2e-5
    assert errors[2] < 2e-7
    assert np.log2(errors[1] / errors[2]) > 2.8  # third order


def test_a_table_of_betas_is_solved_too():
    path = DiscreteVP.ddpm()
    near = [integrate(ring_mixture(path), torch.from_numpy(X), steps) for steps in (640, 1280)]
    assert float((near[0] - near[1]).abs().max()) < 1e-4


def test_one_evaluation_a_step_and_every_state_is_shown():
    denoiser, seen = ring_mixture(VPLinear()), []
    result = integrate(denoiser, torch.from_numpy(X), 7, lambda t, z: seen.append((t, z)))
    assert denoiser.nfe == 7
    assert len(seen) == 8
    assert np.diff([t for t, _ in seen]) == pytest.approx([(seen[-1][0] - seen[0][0]) / 7] * 7)
    t, z = seen[-1]
    torch.testing.assert_close(result / (VPLinear().alpha(1e-3) + VPLinear().sigma(1e-3)), z)
    assert t == pytest.approx(LinearFlow().t_of_lam(VPLinear().lam(1e-3)))


@pytest.mark.parametrize(
    ("rule", "count", "place"),
    [(rule, count, place) for rule in ("PREDICTOR", "CORRECTOR") for count, row in getattr(integrator, rule).items()
     for place in range(len(row))],
)  # fmt: skip
def test_every_weight_is_in_its_signature(rule, count, place, monkeypatch):
    before = signature()
    rows = dict(getattr(integrator, rule))
    rows[count] = tuple(w * (1.01 if i == place else 1) for i, w in enumerate(rows[count]))
    monkeypatch.setattr(integrator, rule, rows)
    assert signature() != before


def test_weights_change_with_the_version_only():
    assert (integrator.VERSION, signature()) == (1, "6c10052f"), "raise VERSION, and renew these two"
    assert all(sum(row) == pytest.approx(1) for row in (*PREDICTOR.values(), *CORRECTOR.values()))


def test_it_shares_nothing_with_the_solvers():
    tree = ast.parse(Path(integrator.__file__).read_text())
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name for name in names if name.startswith("fastsample")} == {
        "fastsample.models.analytic", "fastsample.models.denoiser", "fastsample.models.path",
        "fastsample.models.precision",
    }  # fmt: skip
