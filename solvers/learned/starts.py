"""Where a fit begins: at a traced sampler, and which ones are tried."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np

from fastsample.models.catalogue import Model
from fastsample.models.path import Path, ScaledFlow
from fastsample.solvers.grids import Grid
from fastsample.solvers.learned.kinds import kind_named
from fastsample.solvers.learned.pairs import Pairs, mean_psnr
from fastsample.solvers.learned.parameters import Parameters, coordinate_of
from fastsample.solvers.solver import Plan
from fastsample.solvers.spec import Spec
from fastsample.solvers.table import trace

__all__ = ["Start", "best_initials", "parameters_of", "starts"]

# What a fit may start from, by PSNR on the first validation pairs.
SOLVERS = (
    "euler",
    "midpoint",
    "flow-solver:order=2",
    "flow-solver:order=2,corrector=pec",
    "flow-solver:order=3",
    "dpmpp-2m",
    "unipc",
    "ipndm",
    "deis",
)
GRIDS = ("uniform", "quadratic", "sigmoid", "logsnr")
PROBES = 32
# (standard deviation, seed) of the noise on the numbers of a start; `~K` is the K-th.
NOISES = [(size, seed) for size in (0.1, 0.3) for seed in range(5)]


@dataclass(frozen=True)
class Start:
    """A sampler, and which of `NOISES` is on its numbers, if one is; written `SOLVER[:OPTION=VALUE,...][@GRID][~K]`."""

    sampler: Spec
    noise: int | None = None

    @classmethod
    def parse(cls, text: str) -> Start:
        """Read what `str` writes; ValueError as of `Spec.parse`."""
        match = re.fullmatch(r"(.*)~(\d)", text)
        return cls(Spec.parse(match[1]), int(match[2])) if match else cls(Spec.parse(text))

    def __str__(self) -> str:
        return f"{self.sampler}" if self.noise is None else f"{self.sampler}~{self.noise}"

    def plan(
        self, path: Path, nfe: int, sigma0: float = 1.0, model: Model | None = None, guidance: float = 0.0
    ) -> Plan:
        """The sampler's plan; sigma0 is the scale of the noise on whose path it is made.

        With the model a grid or statistics that were found for it can be a part of the sampler.

        Raises:
            ValueError: for a learned solver, or a budget that is too small.
        """
        if sigma0 == 1 and model and self.sampler.solver:
            return self.sampler.plan_for(model, nfe, guidance)[0]
        if sigma0 == 1:
            return self.sampler.plan(path, nfe)
        whole = ScaledFlow(scale=sigma0)
        own = whole.between(whole.t_noise, whole.t_of_lam(path.lam(path.t_data)))
        return replace(self.sampler.plan(own, nfe), path=path, own=own)


def best_initials(kind: str, path: Path, nfe: int, validation: Pairs, batch: int = 256) -> list[Spec]:
    """The solvers and grids of highest PSNR on the first validation pairs, as a kind starts from them; best first.

    Raises:
        ValueError: if none of the solvers can spend the budget exactly.
    """
    facts = kind_named(kind)
    facts.check(path)
    solvers = facts.tried or ((facts.base,) if facts.base else SOLVERS)
    few = replace(validation, x=validation.x[:PROBES], y=validation.y[:PROBES])
    scores: list[tuple[float, Spec]] = []
    for spec in (Spec.parse(f"{solver}@{grid}") for solver in solvers for grid in GRIDS):
        try:
            parameters = parameters_of(kind, path, nfe, Start(spec))
        except ValueError:
            continue  # a budget that this method cannot spend
        scores.append((mean_psnr(parameters.table(parameters.start), few, batch), spec))
    if not scores:
        raise ValueError(f"{' or '.join(solvers)} cannot make exactly {nfe} evaluations")
    found: list[Spec] = []
    for _, spec in sorted(scores, key=lambda one: -one[0]):
        if spec.grid not in [other.grid for other in found]:
            found.append(spec)
    return found[: facts.best]


def starts(kind: str, path: Path, nfe: int, validation: Pairs, batch: int = 256) -> list[Start]:
    """The starting points that are tried for a learned solver: the best ones, and a plain one.

    A good solver starts higher, but plain Euler, whose coefficients are all alike, often ends higher. RK-Bespoke has
    many poor optima: the best start is tried again with noise on its numbers.
    """
    facts, found = kind_named(kind), [*map(Start, best_initials(kind, path, nfe, validation, batch))]
    plain = Spec(facts.base or "euler", grid=Grid("uniform"))
    best = found[0].sampler
    found += [Start(plain)] if facts.plain and plain != best else []
    return found + [Start(best, k) for k in range(facts.noises)]


def parameters_of(
    kind: str,
    path: Path,
    nfe: int,
    start: Start,
    sigma0: float = 1.0,
    model: Model | None = None,
    guidance: float = 0.0,
) -> Parameters:
    """The parameterisation of a learned solver at a starting point; see `Start.plan`.

    Raises:
        ValueError: for an unknown kind, or a starting point that does not make `nfe` evaluations.
    """
    facts, plan = kind_named(kind), start.plan(path, nfe, sigma0, model, guidance)
    facts.check(path)
    made = trace(plan, coordinate_of(path)).nfe
    if made != nfe:
        raise ValueError(f"{start.sampler} makes {made} evaluations for a budget of {nfe}: start from another solver")
    if facts.base and plan.solver.name != facts.base:
        raise ValueError(f"{kind} starts from {facts.base} at some grid, not from {plan.solver.name}")
    exact = facts.parameters(plan)
    if start.noise is None:
        return exact
    size, seed = NOISES[start.noise]
    return replace(exact, start=exact.start + size * np.random.default_rng(seed).standard_normal(len(exact.start)))
