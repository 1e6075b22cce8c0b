"""phi of SciRE's recursive difference (arXiv 2308.07896, Cor. 3.1): the paper's constants and the rules of its code."""

from __future__ import annotations

import math

from fastsample.solvers.grids import SettingError

__all__ = ["constant_phi", "is_exact", "phi_1", "phi_per_step"]


def phi_1(m: int) -> float:
    """sum_{k=1}^m (-1)^(k-1) / k! (Cor. 3.1); from m = 18 on it is its limit in float64."""
    return -sum((-1.0) ** k / math.factorial(k) for k in range(1, min(m, 20) + 1))


def constant_phi(phi: str) -> float:
    """phi from `m<k>` (phi_1(k)), `limit` ((e - 1)/e), `fd` (1), or a number.

    Raises:
        SettingError: for anything else, and for numbers that are not positive.
    """
    if phi in ("limit", "fd"):
        return {"limit": -math.expm1(-1), "fd": 1.0}[phi]
    try:
        value = phi_1(int(phi[1:])) if phi.startswith("m") else float(phi)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise SettingError(f"phi is m3, limit, fd, code-root, code-sd or a positive number, not {phi!r}")
    return value


def is_exact(phi: str) -> bool:
    """Whether phi is 1, the only constant for which the difference estimates a derivative consistently."""
    return not phi.startswith("code") and constant_phi(phi) == 1


def phi_per_step(phi: str, multistep: bool, nfe: int, order: int, count: int) -> list[float]:
    """phi of each step; the two code rules take small m at both ends of the run and large m in its middle."""
    if phi not in ("code-root", "code-sd"):
        return [constant_phi(phi)] * count
    rule = {
        ("code-root", True): _multistep_root, ("code-root", False): _singlestep_root,
        ("code-sd", True): _multistep_sd, ("code-sd", False): _singlestep_sd,
    }[phi, multistep]  # fmt: skip
    return [phi_1(max(3, rule(i, nfe, order))) for i in range(count)]


def _singlestep_root(i: int, nfe: int, order: int) -> int:
    full = nfe // order
    if i in (full // 2, full):
        return full + 2
    return 2 * i + 3 if i < full // 2 else 2 * (full - i) + 2


def _singlestep_sd(i: int, nfe: int, order: int) -> int:
    full = nfe // order
    if i == full:
        return full + 1
    return 2 * i + 4 if i < full // 2 else 2 * (full - i) + 1


def _multistep_root(i: int, nfe: int, order: int) -> int:
    target = i + 1
    if target < order:
        return 2 * target + 2
    if target == nfe // 2:
        return nfe + 3
    return 2 * (target - order) + 4 if target < nfe // 2 else 2 * (nfe - target) + 3


def _multistep_sd(i: int, nfe: int, order: int) -> int:
    target, half = i + 1, (nfe + 1 - order) // 2
    if target < order:
        return nfe - target + 3
    return 2 * (target - order) + 4 if target < half + order else 2 * (order + 2 * half - target) + 3
