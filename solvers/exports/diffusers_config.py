"""Schedulers of diffusers' own that a solver is: found by comparing coefficients, not names (the extra `diffusers`).

A scheduler is linear in x_T and in what the network returns. Run on coordinate vectors it gives its coefficient table,
and the times at which it calls the network; where both are those of a solver, its configuration is that solver.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import diffusers
import numpy as np
import torch

from fastsample.models.analytic import ring_mixture
from fastsample.models.foreign.diffusers_schedule import PREDICTION_TYPES
from fastsample.models.path import DiscreteVP, LinearFlow, Path, ScaledFlow
from fastsample.solvers.exports.conventions import timestep_map
from fastsample.solvers.exports.sigmas import early_end
from fastsample.solvers.table import play, trace_function
from fastsample.solvers.table_file import TableFile

__all__ = ["OwnScheduler", "own_scheduler"]

_EQUAL = 1e-4  # of the largest coefficient: schedulers keep their sigmas in float32
_SPACINGS: tuple[dict[str, Any], ...] = (
    {"timestep_spacing": "linspace"}, {"timestep_spacing": "leading"}, {"timestep_spacing": "trailing"},
    {"timestep_spacing": "linspace", "use_karras_sigmas": True},
    {"timestep_spacing": "linspace", "use_exponential_sigmas": True},
    {"timestep_spacing": "linspace", "use_beta_sigmas": True},
)  # fmt: skip
_LAMBDAS: dict[str, Any] = {"timestep_spacing": "linspace", "use_lu_lambdas": True}
_FLOWS: tuple[dict[str, Any], ...] = ({"use_flow_sigmas": True},)
_ENDS: tuple[dict[str, Any], ...] = ({"final_sigmas_type": "zero"}, {"final_sigmas_type": "sigma_min"})
_ORDERS: tuple[dict[str, Any], ...] = tuple(
    {"solver_order": order, "lower_order_final": low} for order in (2, 1, 3) for low in (True, False)
)
_ALPHAS: tuple[dict[str, Any], ...] = ({"clip_sample": False}, {"clip_sample": False, "set_alpha_to_one": False})


@dataclass(frozen=True)
class _Kind:
    """A class of schedulers: evaluations of a step, choices that its times depend on, and choices of its steps."""

    name: str
    evaluations: int = 1
    times: tuple[tuple[dict[str, Any], ...], ...] = ()
    steps: tuple[dict[str, Any], ...] = ({},)

    def timings(self) -> list[dict[str, Any]]:
        """The configurations that may differ in their times."""
        return [{key: value for one in chosen for key, value in one.items()} for chosen in product(*self.times)]


_VP = (
    _Kind("DDIMScheduler", times=(_SPACINGS[:3],), steps=_ALPHAS),
    _Kind("DPMSolverMultistepScheduler", times=((*_SPACINGS, _LAMBDAS), _ENDS), steps=_ORDERS),
    _Kind("EulerDiscreteScheduler", times=(_SPACINGS, _ENDS)),
    _Kind("HeunDiscreteScheduler", 2, times=(_SPACINGS,)),
    _Kind("UniPCMultistepScheduler", times=(_SPACINGS, _ENDS), steps=_ORDERS),
)
_FLOW = (
    _Kind("FlowMatchEulerDiscreteScheduler"),
    _Kind("FlowMatchHeunDiscreteScheduler", 2),
    _Kind("DPMSolverMultistepScheduler", times=(_FLOWS, _ENDS), steps=_ORDERS),
    _Kind("UniPCMultistepScheduler", times=(_FLOWS, _ENDS), steps=_ORDERS),
)


@dataclass(frozen=True)
class OwnScheduler:
    """A scheduler that is a solver; how it is called, and what its steps differ in, in words."""

    scheduler: Any
    told: str


def own_scheduler(file: TableFile, prediction_type: str | None = None) -> OwnScheduler:
    """The scheduler of diffusers whose steps are a table's.

    Args:
        file: the table.
        prediction_type: of the pipeline's network; by default epsilon, and flow_prediction on the linear path.

    Raises:
        ValueError: where there is none, with the reason.
    """
    path, usual = file.noise_path, timestep_map(file.noise_path)
    flow = isinstance(path, LinearFlow) and not isinstance(path, ScaledFlow)
    if usual is None or not (flow or isinstance(path, DiscreteVP)):
        raise ValueError(
            f"schedulers of diffusers know tables of betas and the linear flow, and not the {path.name} path; --betas "
            "gives a table, and --to diffusers plays any solver"
        )
    if file.w:
        raise ValueError(f"{file.solver} draws noise between its steps, which is not compared: --to diffusers plays it")
    kind = prediction_type or ("flow_prediction" if flow else "epsilon")
    known = {"prediction_type": kind} if flow else _betas(path) | {"prediction_type": kind}
    try:
        mine = trace_function(path, PREDICTION_TYPES[kind][0], lambda model, x, _: play(file.table, model, x), file.end)
    except ZeroDivisionError as error:
        raise ValueError(f"no scheduler of diffusers is {file.solver} here: {error}") from None
    timesteps, sign = usual[0] * mine.times + usual[1], PREDICTION_TYPES[kind][1]
    for one in _FLOW if flow else _VP:
        steps = (mine.nfe + one.evaluations - 1) // one.evaluations
        for timing in one.timings():
            for config in (timing | choice for choice in one.steps):
                scheduler = _scheduler(one.name, config if one.name.startswith("FlowMatch") else config | known)
                if not _calls(scheduler, steps, timesteps):
                    break
                theirs = _table(scheduler, mine.nfe, sign)
                first = theirs[0, 0] / mine.a[0]
                expected = np.c_[mine.a * first, mine.b]
                if np.abs(theirs - expected).max() < _EQUAL * np.abs(expected).max() and abs(first - 1) < 0.01:
                    told = _told(one.name, steps, scheduler, timesteps, first)
                    far = _distance(scheduler, steps, file, kind, usual)
                    return OwnScheduler(scheduler, f"{told}; on an exact mixture its result is off by {far:.1g}")
    last = "" if file.end == path.t_of_lam(math.inf) else "; most of them end with a data prediction (denoise=true)"
    which = f"the steps of {file.solver}{early_end(file)}"
    raise ValueError(f"no scheduler of diffusers makes {which} at these times{last}: --to diffusers plays any table")


def _told(name: str, steps: int, scheduler: Any, timesteps: np.ndarray, first: float) -> str:
    told = f"{name} with num_inference_steps={steps}"
    off = np.abs(scheduler.timesteps.double().numpy() - timesteps).max()
    if off > 0.01:
        told += f"; it calls the network at whole timesteps, at most {off:.2f} from the solver's"
    if abs(first - 1) > 1e-4:
        told += f"; pipelines scale the first noise by {first:.4f} of the solver's"
    return told


def _scheduler(name: str, config: dict[str, Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what later versions will not have
        return getattr(diffusers, name)(**config)


def _betas(path: Path) -> dict[str, Any]:
    """The betas of a path as a configuration has them: a schedule's name where it is one."""
    betas = np.array(path.betas)  # type: ignore[attr-defined]
    n, first, last = len(betas), float(betas[0]), float(betas[-1])
    for name, power in (("linear", 1.0), ("scaled_linear", 0.5)):
        if np.allclose(betas, np.linspace(first**power, last**power, n) ** (1 / power), rtol=1e-9, atol=0):
            return dict(num_train_timesteps=n, beta_schedule=name, beta_start=first, beta_end=last)
    return dict(num_train_timesteps=n, trained_betas=betas.tolist())


def _calls(scheduler: Any, steps: int, timesteps: np.ndarray) -> bool:
    """Whether it calls the network at these timesteps, or at the next whole ones; it is at its start then."""
    try:
        scheduler.set_timesteps(steps)
    except (ValueError, IndexError):  # as with two evaluations on too few steps
        return False
    times = scheduler.timesteps.double().numpy()
    return times.shape == timesteps.shape and bool(np.abs(times - timesteps).max() < 0.6)


def _table(scheduler: Any, nfe: int, sign: float) -> np.ndarray:
    """The coefficients [NFE + 1, 1 + NFE] of x_T and of the predictions in its points and its result."""
    basis, rows = torch.eye(nfe + 1, dtype=torch.float64), list[torch.Tensor]()

    def network(point: torch.Tensor, _: float) -> torch.Tensor:
        rows.append(point[0])
        return sign * basis[len(rows)][None]

    try:
        rows.append(_run(scheduler, basis[:1], network)[0])
    except RuntimeError:  # of equations without a solution
        return np.full((nfe + 1, nfe + 1), np.nan)
    return torch.stack(rows).numpy()


def _run(scheduler: Any, x: torch.Tensor, network: Callable[[torch.Tensor, float], torch.Tensor]) -> torch.Tensor:
    """What a pipeline does with noise x, in float64."""
    x = x * float(getattr(scheduler, "init_noise_sigma", 1.0))
    for t in scheduler.timesteps:
        given = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(network(given.double(), float(t)), t, x).prev_sample
    return x.double()


def _distance(scheduler: Any, steps: int, file: TableFile, kind: str, usual: tuple[float, float]) -> float:
    """Root mean square between the results of a scheduler and of a table on 64 samples of an exact mixture."""
    exact, (have, sign) = ring_mixture(file.noise_path), PREDICTION_TYPES[kind]
    x = torch.randn(64, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def network(point: torch.Tensor, timestep: float) -> torch.Tensor:
        return sign * exact.predict(point, (timestep - usual[1]) / usual[0], have)

    scheduler.set_timesteps(steps)
    return float((_run(scheduler, x, network) - play(file.table, exact, x)).square().mean().sqrt())
