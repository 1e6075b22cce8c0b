"""The gate: did a sampler get worse since the baseline was made?

Each (cell, metric) is one test of "worse by no more than its margin", sample by sample where the seeds are those of
the baseline, and Holm's correction holds the chance of even one false alarm in a check at 1 %. The margin is a tenth
of the number's own standard error: less than that nobody could have seen, and the float32 rounding of another machine
stays below it. Nothing is a fixed per cent.

PSNR and truncation error are distances from reference solutions. Where these are not those of the baseline, as a
fingerprint in both tells, no solver is judged: the reference moved.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pandas as pd

from fastsample.results.baseline import Baseline, Entry
from fastsample.results.comparable import (
    CELL,
    FINGERPRINT,
    cell_text,
    field_told,
    judged,
    moved,
    shortened,
    what_decides,
)
from fastsample.results.evidence import Comparison
from fastsample.results.metrics import metric_of
from fastsample.results.statistics import Estimate, Interval, difference, holm, pool
from fastsample.results.store import Store
from fastsample.results.training import training_remarks

__all__ = ["FAILING", "LEVEL", "MARGIN", "UNJUDGED", "Finding", "Verdict", "check", "exit_code"]

LEVEL = 0.01  # chance of even one false alarm in a check
MARGIN = 0.1  # of the baseline's standard error

Verdict = Literal["pass", "regression", "change", "improvement", "reference moved", "not comparable"]
FAILING: set[Verdict] = {"regression", "change"}
_NOT_COMPARABLE: Verdict = "not comparable"
_LACKS = "the store has no "  # begins why a number is not comparable that is not there
UNJUDGED: set[Verdict] = {"reference moved", _NOT_COMPARABLE}


@dataclass(frozen=True)
class Finding:
    """What the gate says of one metric of one cell.

    Attributes:
        cell, metric: which.
        verdict: of the test; `change` is an improvement where none was to be.
        why: what is not comparable, or why there was no test.
        before, now: the baseline's value and the store's; `now` and all that follows is None where not comparable.
        change: now less before, with its 95 % interval.
        allowed: a change for the worse that is certainly no regression.
        p: of "worse by no more than the margin".
        training: what the sampler was trained on, and whether that has the metric's judge.
        seconds: that the rows compared took, shared among the metrics of the cell; 0 where there are none.
        key: the values of `CELL`.
    """

    cell: str
    metric: str
    verdict: Verdict
    why: str
    before: float
    now: float | None = None
    change: Interval | None = None
    allowed: float | None = None
    p: float | None = None
    training: tuple[str, ...] = ()
    seconds: float = 0.0
    key: tuple[Any, ...] = ()

    @property
    def missing(self) -> bool:
        """Whether the store has nothing that it could be compared with, or replaced by."""
        return self.why.startswith(_LACKS)


def check(store: Store, baseline: Baseline, *, strict: bool = False) -> list[Finding]:
    """Every number of a baseline against a store.

    If `strict`, an improvement is a change and fails as well; each direction then has half of the level.

    Numbers are compared where all agrees that decides them (checkpoint, extractor, reference, count, precision, ...)
    and the solver makes as many evaluations; the version of fastsample may differ.
    """
    comparison = Comparison(store)
    rows: dict[tuple[Any, ...], list[dict[Any, Any]]] = {}
    for row in store.frame().to_dict("records"):
        rows.setdefault(tuple(row[name] for name in CELL), []).append(row)
    asked: dict[tuple[tuple[Any, ...], str], dict[int, Entry]] = {}
    for entry in baseline.cells:
        for metric in entry.metrics:
            asked.setdefault((tuple(getattr(entry, name) for name in CELL), metric), {})[entry.seed] = entry
    tests = [_test(key, metric, old, rows.get(key, []), comparison) for (key, metric), old in asked.items()]
    made = [test for test in tests if test.change]
    level = LEVEL / 2 if strict else LEVEL
    worse, better = (holm([test.p(sign) for test in made], level) for sign in (1, -1))
    verdicts: dict[int, Verdict] = {
        id(test): "regression" if bad else ("change" if strict else "improvement") if good else "pass"
        for test, bad, good in zip(made, worse, better, strict=True)
    }
    trained = [training_remarks(rows[key][-1], metric) if key in rows else () for key, metric in asked]
    return [
        replace(test.finding(verdicts.get(id(test), test.verdict), level / max(len(made), 1)), training=said, key=key)
        for test, said, (key, _) in zip(tests, trained, asked, strict=True)
    ]


@dataclass(frozen=True)
class _Test:
    """One number of the baseline and what the store has of it."""

    cell: str
    metric: str
    why: str
    before: Estimate
    now: Estimate | None = None
    change: Estimate | None = None
    limit: float = math.inf
    verdict: Verdict = "not comparable"  # where there is no change
    seconds: float = 0.0

    @property
    def _margin(self) -> float:
        return MARGIN * self.before.standard_error

    def p(self, sign: int) -> float:
        """Of "worse (+1) or better (-1) by no more than the margin"."""
        assert self.change
        assert self.now
        if self.now.value >= self.limit:
            return 1.0
        up = sign * (-1 if metric_of(self.metric).higher else 1)
        return replace(self.change, value=up * self.change.value).p_above(self._margin)

    def finding(self, verdict: Verdict, level: float) -> Finding:
        why = self.why
        if not self.change or not self.now:
            return Finding(self.cell, self.metric, verdict, why, self.before.value)
        if self.now.value >= self.limit:
            why = f"nearer to the reference solution than that is known, {self.limit:.1f} dB"
        allowed = self._margin + self.change.reach(level)
        return Finding(
            self.cell, self.metric, verdict, why, self.before.value, self.now.value, self.change.interval(), allowed,
            self.p(1), seconds=self.seconds,
        )  # fmt: skip


def _test(
    key: tuple[Any, ...], metric: str, entries: Mapping[int, Entry], rows: Sequence[Mapping[Any, Any]],
    comparison: Comparison,
) -> _Test:  # fmt: skip
    """The newest comparable rows of the baseline's seeds, or of all seeds where one of these is not there."""
    before = {seed: entry.metrics[metric].estimate(entry.samples) for seed, entry in entries.items()}
    why, usable, verdict = f"{_LACKS}such cell", {}, _NOT_COMPARABLE
    for row in rows:
        why, verdict = _obstacle(row, metric, next(iter(entries.values())), comparison), _NOT_COMPARABLE
        if not why and (why := _moved(row, metric, entries)):
            verdict = "reference moved"
        if not why:
            usable[int(row["seed"])] = row
    if before.keys() <= usable.keys():
        usable = {seed: usable[seed] for seed in before}
    if not usable:
        return _Test(cell_text(key), metric, why, pool(list(before.values())), verdict=verdict)
    now = comparison.by_seed([row["cell"] for row in usable.values()], metric)
    bound = f"metrics.{metric_of(metric).bound}"
    limit = min((row[bound] for row in usable.values() if bound in row), default=math.inf)
    change = difference(now, before)
    seconds = sum(row.get("seconds.total", 0.0) for row in usable.values()) / len(next(iter(entries.values())).metrics)
    old, new = pool(list(before.values())), pool(list(now.values()))
    return _Test(cell_text(key), metric, "", old, new, change, limit, seconds=seconds)


def _obstacle(row: Mapping[Any, Any], metric: str, entry: Entry, comparison: Comparison) -> str:
    """Why a row's metric cannot be compared with that of an entry; "" if it can."""
    then = entry.facts | {"nfe": str(entry.nfe)}
    now = what_decides(row, metric)
    if pd.isna(row.get("nfe_max")):  # the evaluations of an adaptive solver are those of its samples
        now |= {"nfe": str(row["nfe"])}
    differing = {field.removeprefix("protocol."): field for field, text in now.items() if then.get(field, "") != text}
    if "samples" not in differing and pd.isna(row.get(f"metrics.{metric}")):
        return f"{_LACKS}{metric} of this cell"
    for field in differing.values():
        name = field_told(field, row)
        return f"{name} is {shortened(then.get(field, ''))} in the baseline and {shortened(now[field])} in the store"
    return "" if comparison.by_seed(row["cell"], metric) else f"{_LACKS}data for each sample of it"


def _moved(row: Mapping[Any, Any], metric: str, entries: Mapping[int, Entry]) -> str:
    """How the reference solutions of a row differ from those of the baseline; "" if they do not."""
    now, seed = row.get(f"protocol.{FINGERPRINT}"), int(row["seed"])
    if not judged(metric) or not isinstance(now, str):
        return ""
    entry = entries.get(seed, next(iter(entries.values())))
    return moved(entry.facts.get(FINGERPRINT, ""), now, same_noise=seed in entries)


def exit_code(findings: Sequence[Finding]) -> int:
    """1 for a regression or a change, else 2 where the reference moved or something is not comparable, else 0."""
    verdicts = {finding.verdict for finding in findings}
    return 1 if verdicts & FAILING else 2 if verdicts & UNJUDGED else 0
