"""Coefficient tables in the coordinates of k-diffusion, ComfyUI and A1111: sigmas, and data predictions at them.

These programs walk x = x_0 + sigma eps, that is x / alpha of other paths at sigma / alpha; on flows they walk
x = (1 - sigma) x_0 + sigma eps. A sampler there, `sample(model, x, sigmas)`, asks model(x, sigma) for the data
prediction, and with its sigmas is a table too: the sampler of theirs that a solver is, is found by comparing tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastsample.models.path import Edm
from fastsample.solvers.grids import Grid
from fastsample.solvers.solver import get, solvers
from fastsample.solvers.table import Table, play, trace, trace_function
from fastsample.solvers.table_file import TableFile

__all__ = ["Sampler", "SigmaTable", "early_end", "sigma_table"]

_EQUAL = 1e-9  # of the largest coefficient: float64 rounding of a few steps


@dataclass(frozen=True)
class Sampler:
    """A sampler of these programs.

    Attributes:
        function, comfyui, a1111: its name in k-diffusion, ComfyUI and A1111; "" where A1111 leaves out a sigma of it.
        twin, options: the solver here that it is, on the path of sigma.
        stride: evaluations between two of its sigmas, where it asks between them; 1 where it asks at them alone.
        to_zero: whether a last step to sigma = 0 returns the data prediction.
    """

    function: str
    comfyui: str
    a1111: str
    twin: str
    options: tuple[tuple[str, Any], ...] = ()
    stride: int = 1
    to_zero: bool = True


_SAMPLERS = (
    Sampler("sample_euler", "euler", "Euler", "edm-euler"),
    Sampler("sample_dpmpp_2m", "dpmpp_2m", "DPM++ 2M", "dpmpp-2m", (("lower_order_final", "never"),)),
    Sampler("sample_heun", "heun", "Heun", "edm-heun"),
    Sampler("sample_dpm_2", "dpm_2", "", "edm-dpm2", stride=2),
    Sampler("sample_lms", "lms", "LMS", "lms", to_zero=False),
)


@dataclass(frozen=True, eq=False)
class SigmaTable:
    """A table as these programs see it.

    Attributes:
        table: in data predictions; its times are sigmas, and its x_T is the noise at the first of `sigmas`.
        scale: standard deviation of that noise: sqrt(1 + sigma^2) on VP paths.
        sigmas: of the steps, the last 0 where the result is a data prediction.
        flow: whether x is (1 - sigma) x_0 + sigma eps.
        sampler: of theirs that it is; None where none is known.
        hint: with which options it would be one; "" where none are known.
    """

    table: Table
    scale: float
    sigmas: tuple[float, ...]
    flow: bool
    sampler: Sampler | None
    hint: str = ""

    @property
    def told(self) -> str:
        """What the sigmas are, and which sampler they are for."""
        ends = f"{len(self.sigmas)} sigmas from {self.sigmas[0]:.6g} to {self.sigmas[-1]:.6g}"
        if self.sampler is None:
            whose = f"no sampler of k-diffusion makes these steps{self.hint}: comfyui and k-diffusion files do"
        else:
            one = self.sampler
            theirs = f", A1111's {one.a1111}" if one.a1111 else ""
            whose = f"the solver is k-diffusion's {one.function}, ComfyUI's {one.comfyui}{theirs}"
        last = "" if self.sigmas[-1] == 0 else "; the solver ends at the last (with denoise=true it would at 0)"
        return f"{ends}; {whose}{last}"


def sigma_table(file: TableFile) -> SigmaTable:
    """A table in sigma, with the sampler that it is.

    Raises:
        ValueError: for a path that begins with noise alone and is no flow: sigma is infinite there.
    """
    path, flow = file.noise_path, file.noise_path.t_data > file.noise_path.t_noise
    if not flow and path.alpha(path.t_noise) <= 0:
        raise ValueError(
            f"the {path.name} path begins with noise alone, where sigma / alpha is infinite: it has no list of sigmas"
        )
    own = trace_function(path, "x0", lambda model, x, noise: play(file.table, model, x, noise), file.end)
    # Integer grids take the noise for the state at their first time; other late starts have it scaled in row 0.
    start = float(own.times[0]) if np.isclose(own.a[0], 1, rtol=0, atol=_EQUAL) else path.t_noise
    times = [start, *map(float, own.times), own.end]
    scale, *rest = (1 / (path.alpha(t) + path.sigma(t) if flow else path.alpha(t)) for t in times)
    first, *sigmas, end = (path.sigma(t) * one for t, one in zip(times, [scale, *rest], strict=True))
    scales = np.array(rest)
    a, b, w = own.a * scales / scale, own.b * scales[:, None], own.w * scales[:, None]
    table = Table("x0", np.array(sigmas), a, b, w, end)
    for sampler in () if own.w.size else _SAMPLERS:
        steps = _steps(first, table.times[:: sampler.stride], table.end)
        if _is(table, sampler, steps):
            return SigmaTable(table, path.prior_std * scale, steps, flow, sampler)
    hint = early_end(file)
    return SigmaTable(table, path.prior_std * scale, _steps(first, table.times, table.end), flow, None, hint)


def early_end(file: TableFile) -> str:
    """That a solver lowers its order in its last steps, where other programs may not; "" for one that does not."""
    known = get(file.solver).settings(file.options) if file.solver in solvers() else {}
    low = known.get("lower_order_final", "never") != "never"
    return " (they have a lower order at the end, which lower_order_final=never leaves out)" if low else ""


def _steps(first: float, times: np.ndarray, end: float) -> tuple[float, ...]:
    """Sigmas of steps, falling, from where their noise is to the end; those that differ by rounding are one."""
    steps = [first]
    for sigma in sorted(map(float, times), reverse=True):
        if sigma < steps[-1] * (1 - _EQUAL) and sigma > end * (1 + _EQUAL):
            steps.append(sigma)
    return (*steps, end)


def _is(table: Table, sampler: Sampler, steps: tuple[float, ...]) -> bool:
    """Whether a sampler on these steps makes the same table."""
    if steps[-1] == 0 and not sampler.to_zero:
        return False
    last = steps[-2] if steps[-1] == 0 else steps[-1]  # a step to 0 returns the last data prediction
    times = steps[:-1] if steps[-1] == 0 else steps
    path = Edm(t_noise=steps[0], t_data=last)
    try:
        plan = get(sampler.twin).plan(
            path, table.nfe, Grid("steps", times=times), denoise=steps[-1] == 0, **dict(sampler.options)
        )
    except ValueError:  # it does not spend these evaluations on these steps
        return False
    other = trace(plan, "x0")
    if other.nfe != table.nfe:
        return False
    mine, theirs = (np.c_[one.a, one.b] for one in (table, other))
    size = _EQUAL * max(np.abs(mine).max(), 1)
    return bool(np.allclose(table.times, other.times, rtol=_EQUAL) and np.allclose(mine, theirs, rtol=0, atol=size))
