"""`fastsample find`: time grids and statistics for a model, from noises that no benchmark draws.

The searches of `solvers.found` leave a user some choices, such as a teacher's grid. Here each is made by the mean PSNR
of the solver itself on the noises of the search, and the best grid is then improved point by point; with `official`
the published settings stand as they are. Everything is decided by the arguments alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Literal

import numpy as np
import torch

from fastsample.bench.learning.distillation import TRAIN_SEED, Distillation
from fastsample.bench.sampling import Sampler
from fastsample.models.catalogue import Model
from fastsample.models.denoiser import Denoiser
from fastsample.models.noise import normal
from fastsample.models.path import Edm, Path
from fastsample.models.precision import matmul
from fastsample.solvers.found.ems import EVALUATIONS, estimate
from fastsample.solvers.found.searches import Trajectory, dmn, follow, gits, gits_costs, oss, oss_medians
from fastsample.solvers.found.shelf import FoundGrid, of_model
from fastsample.solvers.found.statistics import Statistics
from fastsample.solvers.grids import BudgetError, Grid
from fastsample.solvers.solver import Facts, Plan, Solver
from fastsample.solvers.spec import Spec

__all__ = ["Finding"]

_CANDIDATES = {"gits": (60, ("karras", "logsnr", "sigmoid", "uniform")), "oss": (50, ("uniform", "logsnr", "sigmoid"))}
_MOVES = (0.3, 0.15, 0.07)  # of a point, in the widths of the intervals beside it


@dataclass(frozen=True)
class _Asked(Grid):
    """Keeps what a solver asks its grid for, and answers with uniform times."""

    asked: list[tuple[Path, int, float, float]] = field(default_factory=list)

    def __call__(self, path: Path, n: int, t_start: float, t_end: float) -> tuple[float, ...]:
        self.asked.append((path, n, t_start, t_end))
        return Grid("uniform")(path, n, t_start, t_end)


@dataclass
class Finding:
    """Searches for one model.

    Args:
        model: what is searched for; sampler: its network on its device.
        guidance: classifier-free guidance weight, a part of what is searched for.
        samples: noises of the search; of statistics, states at each lambda.
        batch: samples of one network call.
        progress: called with a line of what is being done.
    """

    model: Model
    sampler: Sampler
    guidance: float = 0.0
    samples: int = 64
    batch: int = 64
    progress: Callable[[str], None] = lambda _: None

    def __post_init__(self) -> None:
        self._job = Distillation(
            self.model, self.sampler, self.guidance, train=self.samples, batch=self.batch, progress=self.progress
        )
        self._known: dict[tuple[float, ...], dict[str, np.ndarray]] = {}
        self._shared = 0  # evaluations of a grid's search that were made for another budget

    @matmul("float32")
    @torch.inference_mode()
    def statistics(self, intervals: int = 60) -> tuple[Statistics, dict[str, str]]:
        """The statistics of the model, and the facts of how they were found."""
        path, pairs = self.model.path, self._job.pairs(TRAIN_SEED)
        lam = np.linspace(path.lam(path.t_finite), path.lam(path.t_data), intervals + 1)
        indices = range(len(pairs.x))
        z = normal(TRAIN_SEED, indices, self.model.shape, block=2).to(pairs.x)
        signs = normal(TRAIN_SEED, indices, self.model.shape, block=3).to(pairs.x).sign()

        found = estimate(
            pairs.make, path, lam, lambda t: path.alpha(t) * pairs.y + path.sigma(t) * z, signs, batch=self.batch,
            progress=lambda done: self.progress(f"statistics {done}/{2 * len(lam)}"),
        )  # fmt: skip
        spent = len(pairs.x) * (EVALUATIONS * len(lam) + self._job.reference.steps)
        told = f"{len(pairs.x)} samples of seed {TRAIN_SEED} at {len(lam)} lambdas, {spent:,} evaluations"
        return found, {"told": told, "evaluations": str(spent)}

    @matmul("float32")
    @torch.inference_mode()
    def grid(self, name: Literal["gits", "oss", "dmn"], solver: Spec, nfe: int, official: bool = False) -> FoundGrid:
        """The grid of that name for a solver with its options.

        Raises:
            ValueError: for a solver that is learned, draws noise, or does not step from each time of one grid to the
                next.
            BudgetError: for a budget that it cannot spend.
        """
        if solver.solver is None or solver.solver.adaptive or solver.solver.stochastic:
            raise ValueError(f"a grid is found for a solver with steps of its own and no noise, not for {solver.name}")
        probe = _Asked("uniform")
        plan, _ = replace(solver, grid=probe).plan_for(self.model, nfe, self.guidance)
        if len(probe.asked) != 1 or len(plan.times) != probe.asked[0][1] + 1:
            raise ValueError(f"a grid is found for a solver that steps from time to time of it, not for {solver}")
        ((own, steps, start, end),) = probe.asked
        self._job._count()
        self._shared = 0
        tried: dict[str, tuple[float, ...]] = {}
        if name == "dmn":
            tried["the bound of order 3"] = _bounded(own, steps, start, end)
        else:
            tried = self._searched(name, own, steps, start, end, official)
        seed, settings, psnr = 0, "the bound of order 3", dict[str, float]()
        times = next(iter(tried.values()))
        if name != "dmn":
            score = self._scorer(solver, nfe)
            if official:
                settings = next(iter(tried))
            else:
                for told, one in tried.items():
                    self.progress(f"NFE {nfe}: grid {len(psnr) + 1} of {len(tried)} by PSNR")
                    psnr[told] = score(one)
                settings = max(psnr, key=lambda told: psnr[told])
                times, psnr[f"{settings}, improved"] = self._improved(own, tried[settings], psnr[settings], score)
                settings += ", improved"
            seed = TRAIN_SEED
        spent = self._job._count() + self._shared + (self.samples * self._job.reference.steps if psnr else 0)
        return FoundGrid(
            name=name, model=of_model(self.model, self.guidance), nfe=nfe, times=times, seed=seed,
            solver=str(replace(solver, grid=None, options=solver.settings)), settings=settings, psnr=psnr,
            trained_on="nothing" if name == "dmn" else "squared error" if psnr or name == "oss" else "statistics",
            samples=self.samples if seed else 0, evaluations=spent,
        )  # fmt: skip

    def _searched(
        self, name: str, own: Path, steps: int, start: float, end: float, official: bool
    ) -> dict[str, tuple[float, ...]]:
        """Grids on the solver's path by the settings of the search that give them."""
        points, candidates = _CANDIDATES[name]
        first = max(start, own.t_finite) if own.t_data > own.t_noise else start
        space: Path = own if own.name == "flow" else Edm().between(own.nsr(first), own.nsr(end))
        begin = start if own.name == "flow" else space.t_noise
        found: dict[tuple[float, ...], str] = {}
        for candidate in candidates[:1] if official else candidates:
            times = Grid.parse(candidate)(space, points, begin, space.t_data)
            told = f"teacher of {points} steps on {candidate}"
            if name == "oss":
                self.progress(f"{name}: {told}")
                chosen: list[list[int]] = []
                for denoiser, teacher in self._teachers(space, times, order=1):
                    chosen += oss(denoiser.on(space).velocity, teacher, steps)
                lists = {told: [points - i for i in reversed(oss_medians(chosen))]}
            else:
                costs, settings = self._costs(space, times), list(product(("dev", "l1", "l2"), (1.15, 1.0)))
                lists = {
                    f"{told}, {metric}, {later}": gits(costs[metric], steps, later)
                    for metric, later in (settings[:1] if official else settings)
                }
            for told, indices in lists.items():
                found.setdefault(_exact(own, [space.lam(times[i]) for i in indices], start, end), told)
        return {told: grid for grid, told in found.items()}

    def _costs(self, space: Path, times: tuple[float, ...]) -> dict[str, np.ndarray]:
        """GITS's costs of the steps of a teacher on these times, by metric; every budget has the same ones."""
        if times in self._known:
            self._shared += self.samples * (len(times) - 1)
        else:
            self.progress(f"gits: teacher of {len(times) - 1} steps")
            sums = {metric: np.zeros((len(times), len(times))) for metric in ("dev", "l1", "l2")}
            for _, teacher in self._teachers(space, times, order=4):
                for metric in sums:
                    sums[metric] += teacher.states.shape[1] * gits_costs(teacher, metric)  # type: ignore[arg-type]
            self._known[times] = sums
        return self._known[times]

    def _teachers(self, space: Path, times: Sequence[float], order: int) -> Iterator[tuple[Denoiser, Trajectory]]:
        """The denoiser and the teacher's run of each batch of the noises."""
        pairs = self._job.pairs(TRAIN_SEED)
        for low in range(0, len(pairs.x), self.batch):
            some = range(low, min(low + self.batch, len(pairs.x)))
            denoiser = pairs.make(some)
            yield denoiser, self._followed(denoiser, space, times, pairs.x[low : some.stop], order)

    def _followed(
        self, denoiser: Denoiser, space: Path, times: Sequence[float], x: torch.Tensor, order: int
    ) -> Trajectory:
        """A teacher's run on the path `space` from noise x of the model's path."""
        kept: list[Trajectory] = []

        def solve(asked: Denoiser, y: torch.Tensor, times: Sequence[float]) -> torch.Tensor:
            kept.append(follow(asked.velocity, y, times, order))
            return kept[-1].states[-1]

        facts = Facts(title="teacher", paper="", coordinate="velocity", order=0)
        solver = Solver(name="teacher", solve=solve, **vars(facts))
        Plan(solver, self.model.path, space, Grid("uniform"), len(times) - 1, tuple(times), {})(denoiser, x)
        return kept[-1]

    def _scorer(self, solver: Spec, nfe: int) -> Callable[[tuple[float, ...]], float]:
        """Mean PSNR in dB of the solver on a grid, on the noises of the search; -inf where it is not finite."""
        pairs = self._job.pairs(TRAIN_SEED)

        def score(times: tuple[float, ...]) -> float:
            grid = Grid("dmn", times=times)
            plan, _ = replace(solver, grid=grid).plan_for(self.model, nfe, self.guidance)
            mse = []
            for low in range(0, len(pairs.x), self.batch):
                some = range(low, min(low + self.batch, len(pairs.x)))
                result = plan(pairs.make(some), pairs.x[low : some.stop])
                mse.append((result - pairs.y[low : some.stop]).double().square().flatten(1).mean(1))
            value = 10 * (2 * np.log10(pairs.peak) - torch.cat(mse).clamp(min=1e-20).log10().mean().item())
            return value if np.isfinite(value) else -np.inf

        return score

    def _improved(
        self, own: Path, times: tuple[float, ...], reached: float, score: Callable[[tuple[float, ...]], float]
    ) -> tuple[tuple[float, ...], float]:
        """Each inner time moved, in lambda, while the PSNR rises."""
        for number, move in enumerate(_MOVES, 1):
            for i, direction in product(range(1, len(times) - 1), (-1, 1)):
                while True:
                    moved = list(times)
                    moved[i] += move * abs(times[i + direction] - times[i]) * np.sign(times[i + direction] - times[i])
                    value = score(tuple(moved))
                    place = f"round {number} of {len(_MOVES)}, time {i} of {len(times) - 2}"
                    self.progress(f"{place}: {max(value, reached):.2f} dB")
                    if value <= reached:
                        break
                    times, reached = tuple(moved), value
        return times, reached


def _bounded(own: Path, steps: int, start: float, end: float) -> tuple[float, ...]:
    """DMN's grid from the best of four starts."""
    first = own.t_of_lam(own.lam(max(start, own.t_finite) if own.t_data > own.t_noise else start))
    starts = [Grid.parse(name)(own, steps, first, end) for name in ("logsnr", "uniform", "karras", "quadratic")]
    return _exact(own, dmn(own, [[own.lam(t) for t in times] for times in starts]), start, end)


def _exact(own: Path, lam: Sequence[float], start: float, end: float) -> tuple[float, ...]:
    """The times of lambdas on a path, between the ends as they are."""
    times = (start, *(own.t_of_lam(value) for value in lam[1:-1]), end)
    if len(set(times)) < len(times):
        raise BudgetError(f"the search found fewer than {len(lam) - 1} different steps")
    return times
