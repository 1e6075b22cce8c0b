"""A solver on a path with its times: what samples, and what traces, tables and the benchmark ask about a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from fastsample.models.altered import AnalyticFirstStep
from fastsample.models.denoiser import Denoiser, Prediction, scale_between
from fastsample.models.path import Path
from fastsample.results.training import TrainedOn
from fastsample.solvers.grids import Grid
from fastsample.solvers.start import solve_from

if TYPE_CHECKING:
    from fastsample.solvers.solver import Solver

__all__ = ["Plan"]


class _One(Denoiser):
    """Answers that data and noise are 1; asked at no number it answers none, and no noise where there is none."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.asked: list[float] = []

    def combine(self, x: Any, t: float, p: float, r: float) -> Any:
        self.asked.append(t)
        return super().combine(x, t, p, r)

    def _combine(self, x: Any, t: float, p: float, r: float) -> Any:
        if r != 0 and self.path.sigma(t) <= 0:
            raise ZeroDivisionError
        return p + r + 0 * x

    def predict(self, x: Any, t: float, prediction: Prediction) -> Any:
        if prediction == "velocity" and self.path.name == "flow":  # what a flow's network says itself, to the end
            self.asked.append(t)
            return 1 + 0 * x
        return super().predict(x, t, prediction)


@dataclass(frozen=True)
class Plan:
    """A solver on a path, with its times: everything but the model and the noise.

    Attributes:
        path, own: the model's path, and the one that the solver integrates on.
        times: the outer times, on `own`; own_end: the time of the state that they lead to, if not the last.
        trained_on: what the grid was found by, if it was; found_with: how, in words.
        remark: what its solver has to say of it to who samples; "" for nothing.
        noise_start: begin with the noise alone as official code does, without the correction of `solvers.start`.
    """

    solver: Solver
    path: Path
    own: Path
    grid: Grid
    nfe: int
    times: tuple[float, ...]
    arguments: Mapping[str, Any]
    denoise: bool = False
    afs: bool = False
    own_end: float | None = None
    remark: str = ""
    noise_start: bool = False
    trained_on: TrainedOn = "nothing"
    found_with: str = ""

    def __call__(self, denoiser: Denoiser, x: Any, noise: Callable[[int], Any] | None = None) -> Any:
        """Sample.

        Args:
            denoiser: a model on this plan's path.
            x: the starting point at `path.t_noise`, that is prior_std times standard normal noise; any vector.
            noise: for stochastic solvers, the standard normal vector of step i, i = 0, 1, ...

        Returns:
            The solution at `end`.
        """
        arguments = dict(self.arguments) | ({"noise": noise} if self.solver.stochastic else {})
        view = denoiser.on(self.own)
        model = AnalyticFirstStep(view) if self.afs else view
        factor, shift = self.entry
        x = x if factor == 1 else factor * x

        def solve(asked: Denoiser, y: Any) -> Any:
            return self.solver.solve(asked, y, self.times, **arguments)

        x = solve_from(model, x, shift, self.times[0], solve) if shift else solve(model, x)
        if self.denoise:
            return x if "denoise" in arguments else view.x0(x, self.times[-1])
        scale = self._scale(self.times[-1])
        return x if scale == 1 else scale * x

    @property
    def tabled(self) -> bool:
        """Whether it has a coefficient table: its numbers do not depend on x, and each is for all coordinates."""
        solver = self.solver
        linear = "found" not in self.arguments or bool(self.arguments["found"].linear)
        return linear and not (solver.adaptive or solver.nonlinear)

    def asked(self) -> list[float]:
        """The times on the model's path of the evaluations that it makes; of a solver that is not adaptive."""
        model = _One(self.path)
        with np.errstate(all="ignore"):
            self._on_numbers(model)
        return model.asked

    @property
    def statistics(self) -> str:
        """The hash of the statistics that it runs on; "" where it needs none that are found."""
        facts = getattr(self.arguments.get("found"), "facts", None)
        return facts["sha256"] if facts else ""

    @property
    def end(self) -> float:
        """The time of the result on the model's path; that of clean data for a data prediction."""
        if self.denoise:
            return self.path.t_of_lam(math.inf)
        last = self.times[-1] if self.own_end is None else self.own_end
        if math.isclose(last, self.own.t_data, rel_tol=1e-9):
            return self.path.t_data
        return last if self.own == self.path else self.path.t_of_lam(self.own.lam(last))

    @property
    def entry(self) -> tuple[float, float]:
        """(f, c): the state at the first time is f x + c D, with x the noise and D the data prediction there.

        Grids of table entries take the noise for the state at their first entry, as the official code of DDIM does.
        """
        if self.grid.name.startswith("integer-"):
            return 1.0, 0.0
        alpha, sigma = self.own.alpha(self.times[0]), self.own.sigma(self.times[0])
        before = self.path.alpha(self.path.t_noise)
        factor = sigma / self.path.sigma(self.path.t_noise)
        shift = alpha - factor * before
        exact = self.noise_start or abs(shift) < 1e-9 * math.hypot(alpha, sigma)
        return 1.0 if abs(factor - 1) < 1e-15 else factor, 0.0 if exact else shift

    def fault(self) -> str:
        """Why the coefficients on these times are not finite; "" if they are.

        On numbers, with a denoiser that answers 1, the result is a sum of them: no number if one of them is none.
        """
        cause = ""
        try:
            with np.errstate(all="ignore"):
                if np.isfinite(self._on_numbers(_One(self.path))).all():
                    return ""
        except (ArithmeticError, ValueError) as error:  # by zero, or of the logarithm of it
            cause = f" ({type(error).__name__}: {error})"
        if any(s == t for s, t in pairwise(self.times)):
            why = "which repeats a time: a step of length 0"
        elif self.own.sigma(self.times[-1]) <= 0:
            why = "which ends at clean data, where sigma is 0 and lambda infinite"
        elif self.own.alpha(self.times[0]) <= 0:
            why = "which starts at noise alone, where alpha is 0 and lambda infinite"
        else:
            return f"its coefficients are not finite with these options{cause}"
        others = " or ".join(grid for grid in self.solver.grids if grid != str(self.grid))
        return f"its coefficients are not finite on grid {self.grid}, {why}{others and f'; it runs on {others}'}"

    def _on_numbers(self, model: _One) -> Any:
        """The result from 1 with noises of 1; from a batch of one sample with one coordinate, if it needs a batch."""
        return self(model, np.ones((1, 1)) if self.solver.nonlinear else 1.0, lambda _: 1.0)

    def _scale(self, t: float) -> float:
        """Carries x at t of the integration path to the model's path."""
        if self.own == self.path:
            return 1.0
        return scale_between(self.own, t, self.path, self.path.t_of_lam(self.own.lam(t)))
