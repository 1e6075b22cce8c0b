"""An intended change of numbers, taken into a baseline: what changed is replaced, and all else stays as it was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastsample.results.baseline import Baseline, BaselineError, Entry, baseline_of
from fastsample.results.comparable import CELL, FINGERPRINT, cell_text, judged, shortened
from fastsample.results.gate import check
from fastsample.results.store import Store

__all__ = ["Accepted", "accept"]


@dataclass(frozen=True)
class Accepted:
    """A baseline after a change.

    Attributes:
        baseline: the new one; the old one itself where nothing changed.
        changed: (cell, metric, old value, new value) of what is new; the old value is None for a cell that is.
        missing: (cell, metric, why) of what the store has nothing for, and so stays.
        kept: how many numbers are as they were.
    """

    baseline: Baseline
    changed: list[tuple[str, str, float | None, float]]
    missing: list[tuple[str, str, str]]
    kept: int


def accept(old: Baseline, store: Store) -> Accepted:
    """A baseline with the numbers of a store where these are others, better or worse, or not comparable any more.

    Numbers that pass the gate stay those of the baseline, though rounding moved them. Cells that only the store has
    come to it.

    Raises:
        BaselineError: for a store that none can be made of, or a cell of which some numbers would be of one run and
            some of another that are not comparable.
    """
    both = [*check(store, old), *check(store, old, strict=True)]  # strict has half of the level on each side
    other = {(found.cell, found.metric): found.why for found in both if found.verdict != "pass"}
    made = baseline_of(store)
    fresh = {(_text(entry), entry.seed): entry for entry in made.cells}
    known = {_text(entry) for entry in old.cells}
    entries, changed, missing, kept = [], list[tuple[str, str, float | None, float]](), list[tuple[str, str, str]](), 0
    for entry in old.cells:
        cell = _text(entry)
        new = fresh.get((cell, entry.seed))
        names = [name for name in entry.metrics if (cell, name) in other]
        taken = [name for name in names if new and name in new.metrics]
        for name in names:
            if name not in taken:
                missing.append((cell, name, other[cell, name] or f"the store has nothing of seed {entry.seed}"))
        kept += len(entry.metrics) - len(taken)
        if new and taken:
            changed += [(cell, name, entry.metrics[name].value, new.metrics[name].value) for name in taken]
            entry = _merged(entry, new, taken)
        entries.append(entry)
    for (cell, _), entry in fresh.items():
        if cell not in known:
            entries.append(entry)
            changed += [(cell, name, None, figure.value) for name, figure in entry.metrics.items()]
    if not changed:
        return Accepted(old, changed, missing, kept)
    return Accepted(made.model_copy(update={"cells": tuple(entries)}), changed, missing, kept)


def _text(entry: Entry) -> str:
    key: tuple[Any, ...] = tuple(getattr(entry, name) for name in CELL)
    return cell_text(key)


def _merged(old: Entry, new: Entry, taken: list[str]) -> Entry:
    """An entry with some numbers of another run."""
    metrics = {name: (new if name in taken else old).metrics[name] for name in old.metrics}
    if len(taken) == len(metrics):
        return new.model_copy(update={"metrics": metrics})
    whole = {"nfe": str(old.nfe), "samples": str(old.samples)} | old.facts
    for field, text in ({"nfe": str(new.nfe), "samples": str(new.samples)} | new.facts).items():
        if field != FINGERPRINT and not all(name in new.metrics for name in metrics) and whole.get(field, text) != text:
            stale = ", ".join(name for name in metrics if name not in new.metrics)
            raise BaselineError(
                f"{_text(old)}: {field.removeprefix('protocol.')} is {shortened(whole[field])} in the baseline and "
                f"{shortened(text)} in the store, which has no {stale}: run bench with all metrics of the baseline"
            )
    facts = old.facts | new.facts
    if FINGERPRINT in old.facts and not any(judged(name) for name in taken):
        facts[FINGERPRINT] = old.facts[FINGERPRINT]
    return old.model_copy(update={"metrics": metrics, "facts": facts})
