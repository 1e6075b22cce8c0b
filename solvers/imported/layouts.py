"""From the numbers of a published file to a table on a model's path, by its layout."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastsample.datasets.names import nearest, number
from fastsample.models.denoiser import Prediction
from fastsample.models.path import Edm, LinearFlow, Path, VPLinear
from fastsample.solvers.grids import Grid
from fastsample.solvers.imported.dyweight import dyweight_table
from fastsample.solvers.imported.epd import Points, Raw, adasde_points, epd_points, epd_table
from fastsample.solvers.imported.files import Layout, Published
from fastsample.solvers.imported.space import outer_levels, space_of
from fastsample.solvers.learned.gs import Corrections, gs_table, gs_times
from fastsample.solvers.learned.ld3 import decoupled, ld3_times
from fastsample.solvers.spec import Spec
from fastsample.solvers.table import Table, trace
from fastsample.solvers.table_file import TableFileError

__all__ = ["Said", "levels_of", "published_table", "teacher_of"]

_MOST_STEPS = 100
_Made = tuple[Table, str]  # and what is known of it, in words


@dataclass(frozen=True)
class Said:
    """What is told of a file beside what it says; None and "" for what is not.

    Attributes:
        guidance: classifier-free guidance weight w, of what the model was guided by when it was learned.
        grid: the times of the steps, for a file without; solver: the sampler that LD3 learned times for.
        mode: of LD3, time or lambda; of GAS, theory (its default) or lms-pc.
        t_end: of GAS, the time at which it ends; name: of the solver here.
    """

    guidance: float | None = None
    grid: str = ""
    solver: str = ""
    mode: str = ""
    t_end: float | None = None
    name: str = ""


def levels_of(file: Published, path: Path, said: Said) -> tuple[float, ...]:
    """The noise levels of the steps: of the file's schedule over the model's range, or of the grid that is told.

    Raises:
        ValueError: for a file without steps or with too many, or one of which nobody says the times on a flow.
    """
    n = file.fact("num_steps", int) - 1
    if not 1 <= n <= _MOST_STEPS:
        raise TableFileError(f"{file.file} has {n} steps, where 1 to {_MOST_STEPS} are read")
    if said.grid:
        grid = Grid.parse(said.grid)
        flow = isinstance(path, LinearFlow)
        return tuple(1 - t if flow else path.nsr(t) for t in grid(path, n, path.t_noise, path.t_data))
    if isinstance(path, LinearFlow):
        raise ValueError(f"{file.file} does not say its times on a flow: give --grid, such as shift:s=3")
    return outer_levels(path, n, file.fact("schedule_type", str), file.fact("schedule_rho", float, 1.0))


def _array(file: Published, name: str, *dimensions: int) -> np.ndarray:
    array = file.numbers.get(name, np.zeros(0))
    if array.ndim not in dimensions or not array.size:
        raise TableFileError(
            f"{file.file}: its {name} is of shape {list(array.shape)}, not one of {dimensions[0]} dimensions"
        )
    return array


def _dyweight(file: Published, path: Path, said: Said) -> _Made:
    levels = levels_of(file, path, said)
    weights, window = _array(file, "hybrid_weights", 2), file.fact("max_history_steps", int, len(levels))
    mask = file.numbers.get("mask", np.triu(np.ones_like(weights), 1 - max(window, 1)))
    if mask.shape != weights.shape:
        raise TableFileError(f"{file.file}: its mask is of shape {list(mask.shape)}, its weights {list(weights.shape)}")
    scales, afs = file.numbers.get("t_scale", np.zeros(0)), file.fact("afs", bool, False)
    table = dyweight_table(space_of(path), levels, weights * mask, scales, afs)
    return table, teacher_of(file)


def _dyweight_flow(file: Published, path: Path, said: Said) -> _Made:
    weights = _array(file, "theta", 2) * _array(file, "tril_mask", 2) * _array(file, "win_mask", 2)
    low, high = file.fact("tscale_low", float, 0.5), file.fact("tscale_high", float, 1.5)
    scales = low + (high - low) / (1 + np.exp(-_array(file, "phi", 1)))
    space = space_of(path, flow=True)
    if not said.grid:
        raise ValueError(f"{file.file} does not say its times: give --grid, such as dynamic-shift or shift:s=3")
    whole = LinearFlow(t_data=1.0)
    levels = [1 - t for t in Grid.parse(said.grid)(whole, len(weights), 0.0, 1.0)]
    return dyweight_table(space, levels, weights, scales, False, flow=True), f"times of {said.grid}"


def _raw(file: Published) -> Raw:
    names = ("r_params", "weight_s", "scale_dir_params", "scale_time_params")
    r, weight, direction, time = (_array(file, name, 2) for name in names)
    if not r.shape == weight.shape == direction.shape == time.shape:
        raise TableFileError(f"{file.file}: its {' and '.join(names)} are not of one shape")
    if r.shape[1] != file.fact("num_points", int, r.shape[1]):
        raise TableFileError(f"{file.file} says {file.facts['num_points']} points, and has {r.shape[1]}")
    return r, weight, direction, time


def _scales(file: Published) -> tuple[float, float]:
    return file.fact("scale_dir", float, 0.0), file.fact("scale_time", float, 0.0)


def _epd(file: Published, path: Path, said: Said) -> _Made:
    student = file.fact("sampler_stu", str, "epd")
    if student not in ("epd", "ipndm"):
        raise TableFileError(f"{file.file} is of the solver {student!r}; epd and ipndm are read")
    points = epd_points(_raw(file), *_scales(file), file.fact("fcn", bool, False))
    order = file.fact("max_order", int, 4) if student == "ipndm" else 0
    if not 0 <= order <= 4:
        raise TableFileError(f"{file.file} has max_order {order}; iPNDM has orders from 1 to 4")
    return _parallel(file, path, said, points, order)


def _adasde(file: Published, path: Path, said: Said) -> _Made:
    raw, gamma = _raw(file), _array(file, "gamma_params", 2)
    if gamma.shape != raw[0].shape:
        raise TableFileError(f"{file.file}: its gamma_params are not of the shape of its r_params")
    ends = file.fact("gamma", float), file.fact("gamma_min", float, 2e-4)
    return _parallel(file, path, said, adasde_points(raw, *_scales(file), gamma, *ends), 0)


def _parallel(file: Published, path: Path, said: Said, points: Points, order: int) -> _Made:
    levels, afs = levels_of(file, path, said), file.fact("afs", bool, False)
    table = epd_table(space_of(path, isinstance(path, LinearFlow)), levels, points, afs, order)
    return table, f"depth {2 * len(points.r) - afs} where the points of a step are asked at once"


def teacher_of(file: Published) -> str:
    """The solver that taught it, in words; "" where the file does not say one."""
    teacher, steps = file.loss.get("solver_tea"), file.loss.get("teacher_steps")
    if not isinstance(teacher, str):
        return ""
    name = teacher.removeprefix("solvers.").removesuffix("_sampler")
    return f"teacher {name}" + (f" in {steps} steps" if isinstance(steps, int) else "")


def _gas(file: Published, path: Path, said: Said) -> _Made:
    form = said.mode or "theory"
    if form not in ("theory", "lms-pc"):
        raise ValueError(nearest(form, ["theory", "lms-pc"], "mode of GAS"))
    if said.t_end is None:
        raise ValueError(
            f"{file.file} does not say where it ends: give --t-end, such as 1e-3 (CIFAR-10) or 1e-4 (FFHQ)"
        )
    order = (len(file.numbers) - 2) // 2
    xi, inner = _array(file, "t_couple", 1), file.numbers["mu_logit"]
    n = len(xi)
    rows = {k: [_array(file, f"{k}{m}", 1) for m in range(1, order + 1)] for k in "ac"}
    if inner.shape != (n - 1,) or order > n or any(len(row) != n for kind in rows.values() for row in kind):
        raise TableFileError(
            f"{file.file}: its lists are not of {n - 1} times, and {n} shifts and corrections of each order"
        )
    a, c = np.stack(rows["a"]), np.stack(rows["c"])
    own = _gas_path(path, said.t_end)
    times = gs_times(inner, own.t_noise, own.t_data).tolist()
    coordinate: Prediction = "velocity" if path.is_singular(path.t_noise) else "eps"
    table = gs_table(path, own, times, Corrections(xi, a, c, form == "theory"), coordinate)
    return table, f"{form} of order {order}, to t = {number(said.t_end)}"


def _gas_path(path: Path, end: float) -> Path:
    """Where GAS steps: the model's path from its start to `end`, and for EDM's the VP path that is fitted to it.

    With sigma from that of VP at `end`, at least 0.002, to 80, its beta(t) = beta_min + t beta_d has
    log(1 + sigma^2) = beta_d t^2 / 2 + beta_min t at both ends.
    """
    span = sorted((path.t_noise, path.t_data)) if not isinstance(path, Edm) else [1e-6, 0.5]
    if not span[0] - 1e-2 <= end <= span[1] + 1e-2 or (isinstance(path, Edm) and not span[0] <= end <= span[1]):
        raise ValueError(f"--t-end {end:g} is no time near the data end of the {path.name} path")
    if not isinstance(path, Edm):
        return path.between(path.t_noise, end)
    usual = VPLinear()
    low, high = (math.log1p(sigma**2) for sigma in (max(usual.nsr(end), 0.002), min(usual.nsr(1.0), 80.0)))
    d = 2 * (low / end - high) / (end - 1)
    least = high - d / 2
    return VPLinear(beta_min=least, beta_max=least + d, t_noise=1.0, t_data=end)


def _ld3(file: Published, path: Path, said: Said) -> _Made:
    if not said.solver:
        raise ValueError(
            f"{file.file} does not say its solver, which is in the config.yml beside it: give --solver, such as "
            "unipc:order=3,variant=bh1"
        )
    if said.mode not in ("time", "lambda"):
        what = nearest(said.mode, ["time", "lambda"], "mode of LD3") if said.mode else "give --mode, time or lambda"
        raise ValueError(f"{file.file} does not say its time_mode, which is in the config.yml beside it: {what}")
    spec, logits = Spec.parse(said.solver), _array(file, "params1", 1)
    offsets = file.numbers.get("params2", np.zeros_like(logits))
    n = len(logits) - 1
    if offsets.shape != logits.shape or n < 1:
        raise TableFileError(f"{file.file}: its params are of shapes {list(logits.shape)} and {list(offsets.shape)}")
    if spec.solver is None or spec.grid or spec.solver.adaptive or spec.solver.stochastic:
        raise ValueError(
            f"--solver {said.solver}: LD3 learns the times of a deterministic solver, given without a grid"
        )
    plan = spec.solver.plan(path, n, **spec.options)
    if len(plan.times) != n + 1 or not plan.tabled or trace(plan).nfe != n:
        raise ValueError(f"--solver {said.solver} makes no {n} steps of one evaluation each, as LD3's solvers do")
    mode: Any = said.mode
    steps, evaluations = ld3_times(path, logits, offsets, mode, official=True)
    own = [t if plan.own == path else plan.own.t_of_lam(path.lam(t)) for t in steps.tolist()]
    return decoupled(replace(plan, noise_start=True), own, evaluations.tolist(), "x0"), f"times of {spec}"


_TABLES: dict[Layout, Callable[[Published, Path, Said], _Made]] = {
    "DyWeight": _dyweight, "DyWeight on flows": _dyweight_flow, "EPD": _epd, "AdaSDE": _adasde, "GAS": _gas,
    "LD3": _ld3,
}  # fmt: skip


def published_table(file: Published, path: Path, said: Said) -> tuple[Table, str]:
    """The table of a file on a model's path, and what is known of it in words.

    Raises:
        ValueError: for what the file does not say and nobody told (the message names the option), for numbers that do
            not fit one another, or that make no solver on the path.
    """
    try:
        with np.errstate(over="raise", divide="raise", invalid="raise"):
            return _TABLES[file.layout](file, path, said)
    except (ArithmeticError, IndexError) as error:
        raise TableFileError(f"{file.file} makes no solver on the {path.name} path: {error}") from None
