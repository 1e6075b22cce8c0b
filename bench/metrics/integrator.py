"""The integrator of the reference solutions: frozen, and apart from the solvers that it judges.

Adams-Bashforth of order 3, corrected by Adams-Moulton of order 4 without a further evaluation, on the velocity of the
linear path z = t x_0 + (1 - t) eps in equal steps of t; the first two steps have one and two older velocities less. One
evaluation a step, third order, float64 coefficients. On the embedded networks at 100 evaluations no other order, start
or spacing that was tried was better on both.

Nothing here may be shared with `solvers`: a slip there would move the judge and the judged alike. Whoever changes a
number raises `VERSION`; `signature` tells it in any case.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch

from fastsample.models.analytic import ring_mixture
from fastsample.models.denoiser import Denoiser, scale_between
from fastsample.models.path import LinearFlow, Path
from fastsample.models.precision import matmul

__all__ = ["VERSION", "integrate", "linear_interval", "signature"]

VERSION = 1

# Weights of the velocities, newest first, by how many there are.
PREDICTOR = {1: (1.0,), 2: (3 / 2, -1 / 2), 3: (23 / 12, -16 / 12, 5 / 12)}
# The same with the velocity at the predicted point as the newest.
CORRECTOR = {2: (1 / 2, 1 / 2), 3: (5 / 12, 8 / 12, -1 / 12), 4: (9 / 24, 19 / 24, -5 / 24, 1 / 24)}


def linear_interval(path: Path) -> LinearFlow:
    """The linear path between the points of a path's ends."""
    first = 0.0 if path.alpha(path.t_noise) <= 0 else LinearFlow().t_of_lam(path.lam(path.t_noise))
    return LinearFlow(t_noise=first, t_data=LinearFlow().t_of_lam(path.lam(path.t_data)))


@matmul("float32")
def integrate(
    denoiser: Denoiser,
    x: torch.Tensor,
    steps: int,
    visit: Callable[[float, torch.Tensor], None] = lambda t, z: None,
) -> torch.Tensor:
    """The solution at t_data of the denoiser's path, from x at t_noise, in the dtype of x; `steps` evaluations.

    None of it is in TF32.

    Args:
        visit: called with each state on the linear path, (t, z), both ends included.
    """
    path, linear = denoiser.path, linear_interval(denoiser.path)
    model = denoiser.on(linear)
    times = [linear.t_noise + (linear.t_data - linear.t_noise) * i / steps for i in range(steps + 1)]
    h = (linear.t_data - linear.t_noise) / steps
    z = linear.sigma(linear.t_noise) / path.sigma(path.t_noise) * x
    visit(times[0], z)
    known = [model.velocity(z, times[0])]
    for t in times[1:-1]:
        fresh = model.velocity(_advance(z, h, PREDICTOR, known), t)
        z = _advance(z, h, CORRECTOR, [fresh, *known])
        visit(t, z)
        known = [fresh, *known][:3]
    z = _advance(z, h, PREDICTOR, known)
    visit(times[-1], z)
    return scale_between(linear, linear.t_data, path, path.t_data) * z


def _advance(
    z: torch.Tensor, h: float, rule: dict[int, tuple[float, ...]], velocities: list[torch.Tensor]
) -> torch.Tensor:
    for weight, velocity in zip(rule[len(velocities)], velocities, strict=True):
        z = z + (h * weight) * velocity
    return z


def signature() -> str:
    """Eight hex digits that change with any number of the integrator, the same on every machine.

    They are a hash of its float64 solutions, to nine digits, of an exact problem in a few coarse steps.
    """
    start = torch.tensor([[0.3, -1.1], [1.4, 0.6], [-0.7, 0.2], [-1.2, -0.5]], dtype=torch.float64)
    solution = integrate(ring_mixture(LinearFlow()), start, 8)
    return hashlib.sha256(" ".join(f"{v:.9f}" for v in solution.flatten().tolist()).encode()).hexdigest()[:8]
