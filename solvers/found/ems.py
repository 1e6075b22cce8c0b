"""Empirical model statistics of a model (arXiv 2310.13268, section 3.2 and appendix C), from its own samples.

Over states x at one lambda, and for each coordinate, with f and its derivative f_1 along a trajectory,

    l   = E[ (sigma J v) v ],                J the Jacobian of eps by x, v random signs
    f   = (sigma eps - l x) / alpha
    f_1 = sigma / alpha ( (l - 1) eps + d eps / d lambda ) - l' x / alpha
    s   = Cov(f, f_1) / Var(f),              b = E[f_1] - s E[f]

All derivatives are differences of evaluations: seven of each state, and no gradient of the network is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from fastsample.models.denoiser import Denoiser
from fastsample.models.path import Path
from fastsample.solvers.found.statistics import Statistics

__all__ = ["CLIP", "EVALUATIONS", "estimate"]

EVALUATIONS = 7  # of a state
CLIP = 2.0  # of |s|: at the noise end f is a small rest and s ill determined, and e^S would magnify every error
_APART = {torch.float64: (1e-4, 1e-2), torch.float32: (1e-2, 5e-2)}  # of points for J, in sigma; for lambda


def estimate(
    make: Callable[[Sequence[int]], Denoiser],
    path: Path,
    lam: np.ndarray,
    states: Callable[[float], torch.Tensor],
    signs: torch.Tensor,
    weights: torch.Tensor | None = None,
    *,
    clip: float = CLIP,
    batch: int = 64,
    progress: Callable[[int], None] = lambda _: None,
) -> Statistics:
    """The statistics on a uniform grid of lambda.

    Args:
        make: the denoiser of samples by their numbers.
        lam: [N + 1], rising; three points at least.
        states: the states [K, ...] at a time of the path, the same samples at each.
        signs: [K, ...] of +1 and -1.
        weights: [K] of the states, summing to 1; equal where None.
        clip: of |s|.
        batch: states of a network call.
        progress: called with the number of points that are done, of twice as many.
    """
    count = len(signs)
    share = torch.full((count,), 1 / count, dtype=torch.float64) if weights is None else weights.double()
    near, apart = _APART[signs.dtype]

    def eps(x: torch.Tensor, t: float) -> torch.Tensor:
        parts = [range(low, min(low + batch, count)) for low in range(0, count, batch)]
        return torch.cat([make(part).eps(x[part.start : part.stop], t) for part in parts])

    def mean(values: torch.Tensor) -> torch.Tensor:
        return torch.tensordot(share.to(values.device), values.double(), 1)

    first = []
    for number, point in enumerate(lam):
        t = path.t_of_lam(float(point))
        x, size = states(t), near * path.sigma(t)
        first.append(mean((eps(x + size * signs, t) - eps(x - size * signs, t)) / (2 * near) * signs).cpu().numpy())
        progress(number + 1)
    l = np.stack(first)  # noqa: E741
    slope = np.gradient(l, float(lam[1] - lam[0]), axis=0, edge_order=2)

    second: list[tuple[np.ndarray, np.ndarray]] = []
    for number, point in enumerate(lam):
        t = path.t_of_lam(float(point))
        x, alpha, sigma = states(t), path.alpha(t), path.sigma(t)
        here = eps(x, t)
        rate = path.d_alpha(t) / alpha / (path.d_alpha(t) / alpha - path.d_sigma(t) / sigma)
        along = rate * x - sigma * here  # dx / d lambda
        moved = {k: eps(x + k * apart * along, path.t_of_lam(float(point) + k * apart)) for k in (-2, -1, 1, 2)}
        change = (8 * (moved[1] - moved[-1]) - (moved[2] - moved[-2])) / (12 * apart)
        l_here, l_slope = (torch.from_numpy(value[number]).to(x.device) for value in (l, slope))
        f = (sigma * here.double() - l_here * x.double()) / alpha
        f_1 = sigma / alpha * ((l_here - 1) * here.double() + change.double()) - l_slope * x.double() / alpha
        middle, rise = mean(f), mean(f_1)
        off = f - middle
        spread = mean(off * off)
        s = torch.where(spread > 0, mean(off * (f_1 - rise)) / spread.clamp(min=1e-300), 0.0).clamp(-clip, clip)
        second.append((s.cpu().numpy(), (rise - s * middle).cpu().numpy()))
        progress(len(lam) + number + 1)
    return Statistics(np.asarray(lam, float), l, np.stack([one for one, _ in second]), np.stack([b for _, b in second]))
