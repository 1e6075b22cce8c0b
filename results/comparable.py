"""Which numbers may stand in one column: those that differ in nothing but what is compared.

A metric's name tells its extractor and its number of samples, those of solvers neither; the rest is in the row. Each
metric has the fields that decide it, and rows that differ in one of them are not comparable.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from fastsample.results.metrics import extractor_of, metric_of
from fastsample.results.protocol import Protocol

__all__ = [
    "CELL", "FINGERPRINT", "STATED", "alike", "cell_text", "field_told", "incomparable", "judged", "moved",
    "shortened", "stated", "what_decides",
]  # fmt: skip

CELL = ("model", "solver", "options", "grid", "nfe_asked")  # rows that agree in these repeat one another
FINGERPRINT = "psnr reference fingerprint"  # of a row's protocol: signature of the integrator and eight projections
STATED = "stated"  # of a row's protocol: which images of another program it is of; what made them is not known here
MOVED = 2e-4  # root mean square move of reference solutions: float32 on other kernels moves them by some 1e-6
# Fields of a protocol that a fact of the row tells, with hashes or where they matter; `preset` decides nothing.
_TOLD = {"classifier_scale", "labels", "uint8", "reference", "reference_steps", "preset", "prompts"}
_ALWAYS = (
    "samples", *(name for name in Protocol.model_fields if name not in _TOLD), "protocol.classifier guidance",
    "protocol.guide", "protocol.prompts", "protocol.noise", "protocol.labels",
)  # fmt: skip
_ONE_EACH = {
    "checkpoint_sha256": "model", "protocol.model card": "model", "protocol.psnr reference": "model",
    "protocol.solver code": "solver",
}  # fmt: skip


def what_decides(row: Mapping[Any, Any], metric: str) -> dict[str, str]:
    """The fields that decide a metric, beside cell and seed, with their values; "" where the row has none.

    Args:
        row: of `results.row.frame_of`.
        metric: full name, such as `psnr` or `fd[cifar10-resnet]@1000`.
    """
    own = (f"protocol.{name.replace('*', extractor_of(metric))}" for name in metric_of(metric).decided_by)
    facts = {name: _text(row.get(name)) for name in ("checkpoint_sha256", "protocol.model card", *_ALWAYS, *own)}
    return facts | {"precision": _precision(row)}


def _precision(row: Mapping[Any, Any]) -> str:
    """A row's precision. Older rows tell what TF32 was allowed for, which counts in float32 on a GPU alone."""
    name, observed = _text(row.get("precision")), _text(row.get("protocol.tf32"))
    on_gpu = not _text(row.get("device")).startswith("cpu")
    return f"{name} with TF32 for {observed}" if name == "float32" and on_gpu and "True" in observed else name


def stated(row: Mapping[Any, Any]) -> str:
    """Which images of another program a row is of, whose solver and evaluations are as stated; "" for measured ones."""
    return _text(row.get(f"protocol.{STATED}"))


def alike(first: Mapping[Any, Any], second: Mapping[Any, Any], metric: str) -> bool:
    """Whether a metric of two rows differs in nothing but what is compared; of stated ones as far as they tell."""
    one, two = ({"model": row["model"]} | what_decides(row, metric) for row in (first, second))
    if stated(first) or stated(second):
        return all(_untold(name, one[name]) or _untold(name, two[name]) or one[name] == two[name] for name in one)
    return one == two


def _untold(name: str, value: str) -> bool:
    """Whether a row of images from elsewhere says nothing of a field: it has what they are compared with, no more."""
    return name not in ("model", "samples") and not (name.startswith("protocol.") and value)


def judged(metric: str) -> bool:
    """Whether a metric is a distance from the reference solutions."""
    return metric_of(metric).needs == "solution"


def moved(then: str, now: str, *, same_noise: bool) -> str:
    """How two fingerprints of reference solutions differ beyond rounding; "" where they do not, or one is not given.

    Args:
        same_noise: the solutions are of one seed; of others only the integrators can be compared.
    """
    (before, *old), (after, *new) = (text.split() or [""] for text in (then, now))
    if not before or not after:
        return ""
    if before != after:
        return f"the integrator of the reference solutions is {after} in the store and {before} in the baseline"
    size = float(np.sqrt(np.mean(np.square(np.array(new, float) - np.array(old, float)))))
    if same_noise and not size <= MOVED:
        return f"the reference solutions are {size:.1g} (root mean square) from those of the baseline"
    return ""


def incomparable(rows: pd.DataFrame, metric: str) -> str:
    """Why these rows' values of a metric cannot stand in one column; "" if they can.

    Rows that repeat a cell with other seeds belong together; every cell then needs the same seeds.

    Args:
        rows: of `results.row.frame_of`; those without the metric do not count.
        metric: full name, such as `psnr` or `fd[cifar10-resnet]@1000`.
    """
    if f"metrics.{metric}" not in rows:
        return ""
    rows = rows[rows[f"metrics.{metric}"].notna()]
    facts = pd.DataFrame([what_decides(row, metric) for row in rows.to_dict("records")], index=rows.index)
    # Not one of the facts above, since a gate compares across versions of the code on purpose.
    for field in ("protocol.numerics", "protocol.solver code"):
        facts[field] = [_text(row.get(field)) for row in rows.to_dict("records")]
    elsewhere = pd.Series([bool(stated(row)) for row in rows.to_dict("records")], index=rows.index, dtype=bool)
    for name in facts:
        facts[name] = facts[name].mask(elsewhere & facts[name].map(lambda value, name=name: _untold(name, value)))
        of = rows[_ONE_EACH[name]] if name in _ONE_EACH else rows[f"metrics.{metric}"].notna()
        for _, values in facts[name].groupby(of):
            kinds = [shortened(value) for value in values.dropna().unique()]
            if len(kinds) > 1:
                field = field_told(str(name), rows.loc[values.index[-1]])
                return f"{metric}: {field} is {kinds[0]} in one row and {kinds[1]} in another"
    rows = rows[~elsewhere]
    seeds = rows.groupby(list(CELL))["seed"].agg(lambda seeds: ", ".join(map(str, sorted(set(seeds)))))
    versions = rows.groupby([*CELL, "seed"])["versions.fastsample"].agg(lambda found: " and ".join(sorted(set(found))))
    if seeds.nunique() > 1:
        (first, some), (second, others), *_ = seeds.drop_duplicates().items()
        return f"{metric}: {cell_text(first)} has seed {some} and {cell_text(second)} seed {others}"
    for cell, several in versions.items():
        if " and " in several:
            return f"{metric}: {cell_text(cell)} was computed by fastsample {several}"
    return ""


def field_told(field: str, row: Mapping[Any, Any]) -> str:
    """What a message calls a field of a row. A model that is code of one's own has no card: its file is named.

    Args:
        row: of `results.row.frame_of`.
    """
    code = re.match(r"returned by (.*):", _text(row.get("protocol.weights")))
    if field == "protocol.model card" and code:
        return f"{code[1]}, the code of the model, has changed: its hash"
    return field.removeprefix("protocol.")


def shortened(value: str) -> str:
    """A field's value for a message: hashes cut, none told as such."""
    return f"{value[:12]}..." if re.fullmatch("[0-9a-f]{64}", value) else repr(value) if value else "not given"


def cell_text(key: Any) -> str:
    """The values of `CELL` in words."""
    model, solver, options, grid, nfe, *_ = key
    return f"{model} {solver}{':' if options else ''}{options} {grid} NFE {nfe}"


def _text(value: Any) -> str:
    """A field as text. The hash at the end of a reference solution's name holds the seed, which is a field itself.

    What is not asked for is as in rows and baselines that do not know of it.
    """
    off = pd.isna(value) or (isinstance(value, bool | np.bool_) and not value)
    return "" if off else re.sub(r" \([0-9a-f]{16}\)$", "", str(value))
