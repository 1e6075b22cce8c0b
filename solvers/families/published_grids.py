"""Grids in closed form, and published lists, that samplers of images and videos are run on."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fastsample.models.path import Path
from fastsample.solvers.families.grids import logsnr, shift, table_entries, told_of_more
from fastsample.solvers.grids import finite_start, register_grid


@register_grid("exponential")
def exponential(path: Path, n: int, t_start: float, t_end: float) -> list[float]:
    """k-diffusion's name of the logSNR grid: log sigma uniform."""
    return logsnr(path, n, t_start, t_end)


@register_grid("polyexponential", rho=(0.1, 5))
def polyexponential(path: Path, n: int, t_start: float, t_end: float, *, rho: float = 1.0) -> list[float]:
    """log NSR = (1 - i/n)^rho from its start to its end (k-diffusion); rho = 1 is the logSNR grid."""
    first, last = path.lam(finite_start(path, t_start)), path.lam(t_end)
    return [path.t_of_lam(last + (first - last) * (1 - i / n) ** rho) for i in range(n + 1)]


def _quantiles(a: float, b: float, levels: Sequence[float]) -> list[float]:
    """Those of Beta(a, b) at `levels` in 0..1."""
    from scipy.special import betaincinv  # here: a list of names takes no scipy

    return betaincinv(a, b, levels).tolist()


@register_grid("beta", a=(0.4, 3), b=(0.4, 3))
def beta(path: Path, n: int, t_start: float, t_end: float, *, a: float = 0.6, b: float = 0.6) -> list[float]:
    """Quantiles of Beta(a, b) in the path's own time (arXiv 2407.12173): for a, b < 1 small steps at both ends."""
    parts = _quantiles(b, a, [i / n for i in range(n + 1)])
    return [t_start + (t_end - t_start) * part for part in parts]


@register_grid("beta-sigma", a=(0.4, 3), b=(0.4, 3))
def beta_sigma(path: Path, n: int, t_start: float, t_end: float, *, a: float = 0.6, b: float = 0.6) -> list[float]:
    """The same quantiles in NSR, as in diffusers; on EDM's range half of the steps lie above 40."""
    first, last = path.nsr(finite_start(path, t_start)), path.nsr(t_end)
    parts = _quantiles(a, b, [1 - i / n for i in range(n + 1)])
    return [path.t_of_nsr(last + part * (first - last)) for part in parts]


@register_grid("kl-optimal")
def kl_optimal(path: Path, n: int, t_start: float, t_end: float) -> list[float]:
    """atan of NSR uniform."""
    first, last = math.atan(path.nsr(finite_start(path, t_start))), math.atan(path.nsr(t_end))
    return [path.t_of_nsr(math.tan(first + (last - first) * i / n)) for i in range(n + 1)]


@register_grid("dynamic-shift", mu=(0, 5))
def dynamic_shift(path: Path, n: int, t_start: float, t_end: float, *, mu: float = 1.15) -> list[float]:
    """The shifted grid with s = e^mu; FLUX has mu = 0.5 + 0.65 (L - 256) / 3840 for L image tokens."""
    return shift(path, n, t_start, t_end, s=math.exp(mu))


@register_grid("shift-sigma", s=(0.001, 1000))
def shift_sigma(path: Path, n: int, t_start: float, t_end: float, *, s: float = 3.0) -> list[float]:
    """sigma of the linear path is s u / (1 + (s - 1) u), u uniform (diffusers' flow matching without sigmas)."""
    first, last = (1 / (1 + math.exp(path.lam(t))) for t in (t_start, t_end))
    u0, u1 = (sigma / (s - (s - 1) * sigma) for sigma in (first, last))
    inner = [s * u / (1 + (s - 1) * u) for u in (u0 + (u1 - u0) * i / n for i in range(1, n))]
    return [t_start, *(path.t_of_lam(math.log((1 - sigma) / sigma)) for sigma in inner), t_end]


@register_grid("linear-quadratic", threshold=(0.001, 0.4))
def linear_quadratic(path: Path, n: int, t_start: float, t_end: float, *, threshold: float = 0.025) -> list[float]:
    """floor(n/2) equal steps over the first `threshold` of the time, then growing ones (Mochi)."""
    m = n // 2
    if m == 0:
        return [t_start, t_end]
    d = m - threshold * n
    q = d / (m * (n - m) ** 2)
    slope = threshold / m - 2 * d / (n - m) ** 2
    parts = [i * threshold / m if i < m else q * i * i + slope * i + q * m * m for i in range(n)]
    return [t_start + (t_end - t_start) * part for part in (*parts, 1.0)]


# Ten steps of NSR (arXiv 2404.14507).
_AYS = {
    "sd15": (14.6146412293, 6.4745760956, 3.8636745985, 2.6946151520, 1.8841921177, 1.3943805092, 0.9642583904,
             0.6523686016, 0.3977456272, 0.1515232662, 0.0291671582),
    "sdxl": (14.6146412293, 6.3184485287, 3.7681790315, 2.1811480769, 1.3405244945, 0.8620721141, 0.5550693289,
             0.3798540708, 0.2332364134, 0.1114188177, 0.0291671582),
    "svd": (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002),
}  # fmt: skip


def _ays(nsr: Sequence[float], path: Path, n: int, t_start: float, t_end: float) -> list[float]:
    """log NSR of the list, linear in the index, stretched from its ends to those of the interval."""
    first, last = path.lam(finite_start(path, t_start)), path.lam(t_end)
    logs = -np.log(nsr)
    places = np.interp(np.linspace(0, len(logs) - 1, n + 1), np.arange(len(logs)), logs)
    parts = (places - logs[0]) / (logs[-1] - logs[0])
    return [path.t_of_lam(first + (last - first) * part) for part in parts.tolist()]


@register_grid("ays-sd15")
def ays_sd15(path: Path, n: int, t_start: float, t_end: float) -> list[float]:
    """Align Your Steps for Stable Diffusion 1.5 (arXiv 2404.14507), stretched to the interval."""
    return _ays(_AYS["sd15"], path, n, t_start, t_end)


@register_grid("ays-sdxl")
def ays_sdxl(path: Path, n: int, t_start: float, t_end: float) -> list[float]:
    """Align Your Steps for SDXL, stretched to the interval."""
    return _ays(_AYS["sdxl"], path, n, t_start, t_end)


@register_grid("ays-svd")
def ays_svd(path: Path, n: int, t_start: float, t_end: float) -> list[float]:
    """Align Your Steps for Stable Video Diffusion, stretched to the interval."""
    return _ays(_AYS["svd"], path, n, t_start, t_end)


@register_grid("integer-simple")
def integer_simple(path: Path, n: int, t_start: float, t_end: float) -> list[float]:
    """ComfyUI's "simple": entries 999 - floor(1000 i / n) of a table of 1000 betas, then clean data."""
    return table_entries(path, [999 - 1000 * i // n for i in reversed(range(n))])


@register_grid("integer-trailing")
def integer_trailing(path: Path, n: int, t_start: float, t_end: float) -> list[float]:
    """ "trailing" spacing (ComfyUI's "sgm_uniform"): entries 999 (1 - i / n), then clean data."""
    return table_entries(path, [999 * (n - i) / n for i in reversed(range(n))])


@register_grid("integer-normal")
def integer_normal(path: Path, n: int, t_start: float, t_end: float) -> list[float]:
    """ComfyUI's "normal": n entries from 999 to 0, then clean data."""
    return table_entries(path, [999 * i / max(1, n - 1) for i in range(n)])


@register_grid("integer-ddim")
def integer_ddim(path: Path, n: int, t_start: float, t_end: float) -> list[float]:
    """ComfyUI's "ddim_uniform": every floor(1000 / n)-th entry from 1 on, which may be more than n (then it warns)."""
    entries = range(1, 1000, max(1, 1000 // n))
    told_of_more("integer-ddim", len(entries), n)
    return table_entries(path, entries)


@register_grid("integer-beta", a=(0.4, 3), b=(0.4, 3))
def integer_beta(path: Path, n: int, t_start: float, t_end: float, *, a: float = 0.6, b: float = 0.6) -> list[float]:
    """ComfyUI's "beta": entries at the quantiles of Beta(a, b), without repeated ones, then clean data."""
    levels = [1 - i / n for i in range(n)]
    return table_entries(path, sorted({round(999 * part) for part in _quantiles(a, b, levels)}))
