"""`fastsample distill`: pairs, the choice of a starting point, the fit, and the table file that comes out.

Training and validation noises have seeds from 2^31 on, which no benchmark draws. Their solutions are the benchmark's
own reference solutions (see `bench.metrics.solution`), kept in the same cache. Everything is decided by the arguments
alone, and an interrupted fit goes on from its last step.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import torch

from fastsample.bench.cells import Cell
from fastsample.bench.jobs.ledger import Ledger
from fastsample.bench.learning.kept import Cost, Kept, finite
from fastsample.bench.metrics.solution import BATCH, Reference, reference_for
from fastsample.bench.sampling import Sampler
from fastsample.datasets.home import data_home, unwritable
from fastsample.models.catalogue import Model
from fastsample.models.denoiser import Denoiser
from fastsample.models.precision import matmul
from fastsample.results.protocol import Protocol
from fastsample.solvers.learned.fit import Fit, fit
from fastsample.solvers.learned.kinds import kind_named
from fastsample.solvers.learned.pairs import PSNR, Loss, Pairs, mean_psnr, radius
from fastsample.solvers.learned.parameters import Parameters
from fastsample.solvers.learned.shelf import learned_tables
from fastsample.solvers.learned.starts import Start, parameters_of, starts
from fastsample.solvers.numerics import NUMERICS
from fastsample.solvers.solver import get
from fastsample.solvers.table_file import TableFile, Training

__all__ = ["TRAIN_SEED", "VALIDATION_SEED", "Distillation", "distill"]

TRAIN_SEED, VALIDATION_SEED = 2**31 + 101, 2**31 + 102


@dataclass
class Distillation:
    """One model's pairs, and fits on them.

    Args:
        model: what the solver is learned for.
        sampler: the model's network on its device.
        guidance: classifier-free guidance weight w of (1 + w) cond - w uncond; it is a part of what is learned for.
        train, validation: pairs.
        batch: samples of one network call.
        progress: called with a line of what is being done.
    """

    model: Model
    sampler: Sampler
    guidance: float = 0.0
    train: int = 520
    validation: int = 128
    batch: int = 64
    progress: Callable[[str], None] = lambda _: None
    pairs_seconds: float = 0.0
    _made: list[tuple[Denoiser, int]] = field(default_factory=list)
    _sets: dict[int, Pairs] = field(default_factory=dict)

    @property
    def reference(self) -> Reference:
        """The solver of the training solutions."""
        return self._reference(TRAIN_SEED)

    def _reference(self, seed: int) -> Reference:
        return reference_for(self.model, seed, self._protocol, self.sampler.device.type)

    @property
    def _protocol(self) -> Protocol:
        return Protocol(precision="float64" if self.model.exact else "float32", guidance=self.guidance)

    def _cell(self, seed: int) -> Cell:
        plan = get("euler").plan(self.model.path, 1)  # any: the cell says what its noise and denoiser are
        return Cell(self.model, plan, {}, self._protocol, self.train, seed)

    @matmul("float32")
    def pairs(self, seed: int) -> Pairs:
        """The pairs of a seed, from the cache or solved now."""
        if seed in self._sets:
            return self._sets[seed]
        count = self.train if seed == TRAIN_SEED else self.validation
        cell, reference, begin = self._cell(seed), self._reference(seed), time.perf_counter()
        stage = f"solutions of {count} {'training' if seed == TRAIN_SEED else 'validation'} pairs"
        ledger, total = Ledger(), f"{reference.missing(count) * (reference.steps + 1):,} evaluations"
        ledger.tick = lambda *_: self.progress(f"{stage}: {ledger.evaluations['references']:,} of {total}")

        def solved(samples: Sequence[int]) -> tuple[Denoiser, torch.Tensor]:
            denoiser = ledger.counting(self.sampler.denoiser(cell, list(samples)), "references")
            return denoiser, self.sampler.start(cell, list(samples))

        noises, solutions = [], []
        for low in range(0, count, BATCH):
            noises.append(self.sampler.start(cell, list(range(low, low + BATCH))))
            solutions.append(reference.batch(low // BATCH, solved)["x"].to(noises[-1]))
        self.pairs_seconds += time.perf_counter() - begin

        def make(index: Sequence[int]) -> Denoiser:
            denoiser = self.sampler.denoiser(cell, list(index))
            self._made.append((denoiser, len(index)))
            return denoiser

        peak = 2.0 if len(self.model.shape) == 3 else 4.0
        self._sets[seed] = Pairs(torch.cat(noises)[:count], torch.cat(solutions)[:count], make, peak)
        return self._sets[seed]

    @matmul("float32")
    def run(
        self,
        kind: str,
        nfe: int,
        *,
        initial: str = "auto",
        sigma0: float = 1.0,
        steps: int = 24,
        minutes: float = 10.0,
        seed: int = 0,
        loss: Loss = PSNR,
        soft: bool = False,
        evaluations: int = 0,
    ) -> TableFile:
        """Learn one table.

        Args:
            kind: of `LEARNED`.
            nfe: evaluations of the table.
            initial: a `Start` in words, or `auto`, which tries several.
            sigma0: scale of the noise on whose path the initial solver is traced; 1 changes nothing.
            steps: Gauss-Newton steps at most, from each starting point.
            minutes: no step begins after this time, and no starting point.
            seed: of the draws of training pairs.
            loss, soft: as of `solvers.learned.fit.fit`; the table's solver is named for them, beside the kind.
            evaluations: of samples at most, half of them shared by the starting points, at least a step for each, the
                rest for the best of them; 0 for no end. No further step begins that would exceed it if it costs as much
                as those before.

        Raises:
            ValueError: for an unknown kind or solver, a budget that the starting point cannot spend exactly, or a model
                that a classifier guides.
        """
        if self.model.classifier:
            raise ValueError(f"a table is learned without a classifier, and {self.model.classifier} guides the model")
        train, validation, path = self.pairs(TRAIN_SEED), self.pairs(VALIDATION_SEED), self.model.path
        asked = self.asked(kind, nfe, initial, sigma0, steps, minutes, seed, loss, soft, evaluations)
        altered = [*([loss.name] if loss != PSNR else []), *(["soft"] if soft else [])]
        key = self._key(kind, nfe, initial, sigma0, seed, *altered)
        kept = Kept(data_home() / "distill" / f"{key}.json")
        if not kept.starts:
            self.progress(f"NFE {nfe}: looking for a starting point")
            found_here = initial == "auto"
            kept.starts = [*map(str, starts(kind, path, nfe, validation, self.batch))] if found_here else [initial]
        found: dict[str, tuple[Parameters, Fit]] = {}
        costs: dict[str, Cost] = {}
        choices = {"iterations": steps, "seed": seed, "loss": loss, "soft": soft}
        for number, name in enumerate(kept.starts, 1):
            spent = sum(costs.values(), Cost())
            if found and spent.seconds > 60 * minutes:
                break
            limit = evaluations * number // (2 * len(kept.starts)) if len(kept.starts) > 1 else evaluations
            parameters = parameters_of(kind, path, nfe, Start.parse(name), sigma0, self.model, self.guidance)
            try:
                state, costs[name] = self._fit(parameters, kept, spent, name, minutes, limit, **choices)
            except FloatingPointError:
                continue  # a start with noise on it may be no solver any more
            found[name] = parameters, state
        if not found:
            raise FloatingPointError(f"no starting point of {kind} at NFE {nfe} has a finite result")
        name = max(found, key=lambda one: found[one][1].validation)
        parameters, state = found[name]
        if evaluations and len(found) > 1:
            others = sum((cost for other, cost in costs.items() if other != name), Cost())
            state, costs[name] = self._fit(parameters, kept, others, name, minutes, evaluations, **choices)
            found[name] = parameters, state
        cost = sum(costs.values(), Cost())
        table = parameters.table(state.best)
        learned, start = kind_named(kind), parameters.table(parameters.start)
        found_with = Start.parse(name).plan(path, nfe, sigma0, self.model, self.guidance).found_with
        training = Training(
            initial=_told(name) + (f" with sigma_0 = {sigma0:g}" if sigma0 != 1 else ""), found=found_with,
            tried={_told(one): fitted.validation for one, (_, fitted) in found.items()},
            free_parameters=parameters.free, convention=parameters.convention,
            reference=f"{self.reference.title} ({self.reference.id})", pairs_sha256=self._pairs_hash(),
            train_pairs=self.train, train_seed=TRAIN_SEED, validation_pairs=self.validation,
            validation_seed=VALIDATION_SEED, initial_psnr=mean_psnr(start, validation),
            train_psnr=mean_psnr(table, train), validation_psnr=mean_psnr(table, validation),
            iterations=state.iteration, evaluations=cost.evaluations,
            seconds=round(cost.seconds, 1), pairs_seconds=round(self.pairs_seconds, 1),
            history=finite(state.history),
            versions={name: version(name) for name in ("fastsample", "torch")}, loss=loss.trained_on,
            soft=radius(train, nfe) if soft else 0.0, asked=asked,
        )  # fmt: skip
        options: dict[str, Any] = {"initial": _told(initial), "sigma0": sigma0, "steps": steps, "seed": seed}
        options |= {"evaluations": evaluations} if evaluations else {}
        named = "-".join([kind, *(re.sub(r".*\[|\]", "", word) for word in altered)])
        title = learned.title + (f" ({', '.join(altered)})" if altered else "")
        file = TableFile.of(
            table, path, solver=named, title=title, apart=parameters.first, paper=learned.paper, model=self.model.id,
            model_sha256=self.model.sha256, model_conditions=self.model.conditions,
            model_given=self.model.given, guidance=self.guidance, guide=self.model.guide,
            guided_within=self.model.guided_within, options=options, training=training,
        )  # fmt: skip
        kept.file.unlink(missing_ok=True)
        return file

    def _fit(
        self, parameters: Parameters, kept: Kept, others: Cost, name: str, minutes: float, limit: int, **choices: Any
    ) -> tuple[Fit, Cost]:
        """The last state of a fit, from where it stopped, and its cost; every step is kept.

        others: cost of the other starting points; limit: of all evaluations, 0 for none. `choices` are of `fit`.
        """
        train, validation = self.pairs(TRAIN_SEED), self.pairs(VALIDATION_SEED)
        state, spent = kept.read(name)
        count = f" ({kept.starts.index(name) + 1} of {len(kept.starts)} starts)" if kept.starts[1:] else ""
        place = f"NFE {parameters.table(parameters.start).nfe}, from {name}{count}"
        self.progress(f"{place}: step {state.iteration + 1 if state else 1} of {choices['iterations']}")
        begin, going = time.perf_counter(), fit(parameters, train, validation, batch=self.batch, state=state, **choices)
        while state is None or not 0 < limit < others.evaluations + spent.evaluations * (1 + 1 / state.iteration):
            if (reached := next(going, None)) is None:
                break
            now = time.perf_counter()
            begin, state, spent = now, reached, spent + Cost(now - begin, self._count())
            kept.write(name, state, spent)
            done = f"step {state.iteration} of {choices['iterations']}, {spent.evaluations:,} evaluations"
            self.progress(f"{place}: {done}, validation {state.validation:.2f} dB")
            if (others + spent).seconds > 60 * minutes:
                break
        if state is None:
            raise ValueError(f"a fit takes at least one step, not {choices['iterations']}")
        return state, spent

    def asked(
        self, kind: str, nfe: int, initial: str, sigma0: float, steps: int, minutes: float, seed: int, loss: Loss,
        soft: bool, evaluations: int,
    ) -> str:  # fmt: skip
        """A hash of all that decides a table, also of what the starting point is here by now; see `run`."""
        start: list[Any] = [_told(initial)]
        if initial != "auto":
            plan = Start.parse(initial).plan(self.model.path, nfe, sigma0, self.model, self.guidance)
            start += [plan.times, plan.statistics, plan.solver.code]
        return self._key(kind, nfe, start, sigma0, steps, minutes, seed, loss.name, soft, evaluations, self.batch)

    def _key(self, *choices: Any) -> str:
        facts = [
            *choices, self.model.id, self.model.sha256, self.guidance, self.train, self.validation,
            self.reference.id, version("fastsample"), NUMERICS,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    def _pairs_hash(self) -> str:
        digest = hashlib.sha256()
        for pairs in (self.pairs(TRAIN_SEED), self.pairs(VALIDATION_SEED)):
            for tensor in (pairs.x, pairs.y):
                digest.update(tensor.cpu().numpy().tobytes())
        return digest.hexdigest()

    def _count(self) -> int:
        """Evaluations (per sample) since the last call."""
        total = sum(denoiser.nfe * count for denoiser, count in self._made)
        self._made.clear()
        return total


def distill(
    kind: str, model: Model, budgets: Sequence[int], sampler: Sampler, *, guidance: float, again: bool, **choices: Any
) -> Iterator[tuple[TableFile, bool]]:
    """A table for every budget, and whether it is new; see `Distillation` and its `run` for the choices.

    Args:
        again: learn also what was learned here with all the same choices.

    Raises:
        ValueError: where tables cannot be kept, before anything is computed.
    """
    if why := unwritable(folder := data_home() / "tables"):
        raise ValueError(
            f"tables go to {folder}, which cannot be written ({why}): set FASTSAMPLE_HOME to another folder"
        )
    fields = {f.name for f in dataclasses.fields(Distillation)}
    job = Distillation(model, sampler, guidance, **{k: v for k, v in choices.items() if k in fields})
    rest = {k: v for k, v in choices.items() if k not in fields}
    for nfe in budgets:
        asked = "" if again else job.asked(kind, nfe, **rest)
        known = next((one for one in learned_tables() if asked and one.training and one.training.asked == asked), None)
        yield known or job.run(kind, nfe, **rest), known is None


def _told(initial: str) -> str:
    """A starting point as a table file tells it: a file's grid by its name and hash."""
    return initial if initial == "auto" else str(Start.parse(initial))
