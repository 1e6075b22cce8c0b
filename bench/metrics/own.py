"""Metrics of one's own: `FILE.py:NAME`, `package.module:NAME`, or the name under which an installed package offers one.

A function whose parameters say what it gets of each batch, as tensors on the device of the samples:

    images, reference_images    what samples, and the reference solutions of the same noise, decode to
    states, references          the same as the model has them, which are latents where it decodes them

It returns a number for each sample, [n], whose mean stands in tables; or an array [n, ...] of which its attribute
`estimate` makes an `Estimate` or a number once all samples are there. Its attributes `title`, `unit`, `higher` (is
better) and `digits` say what tables need to know, as in `results.metrics.Metric`. An installed package may also offer
a `Measure` that registers itself under the name.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from fastsample.bench.cells import Cell
from fastsample.bench.metrics.measure import MEASURES, Batch, Measure, Summary
from fastsample.bench.metrics.measures.solution import solution_facts
from fastsample.datasets.own.code import Code, code_named, fault, is_code, offered
from fastsample.results.metrics import METRICS, OWN, own_metric
from fastsample.results.statistics import Estimate, mean_of

__all__ = ["OwnMetricError", "add_own_metrics"]

_GIVEN = {
    "images": lambda batch: batch.images,
    "reference_images": lambda batch: batch.solution_images,
    "states": lambda batch: batch.x,
    "references": lambda batch: batch.solution,
}
_AGAINST = {"reference_images", "references"}


class OwnMetricError(ValueError):
    """A function that is no metric, or did not return what one returns."""


def add_own_metrics(texts: Sequence[str]) -> None:
    """Register those of the metrics, and of their extractors, that are one's own.

    Raises:
        ValueError: for Python that cannot be had, or is no metric.
    """
    if any(is_code(name) or name in offered("extractors") for name in re.findall(r"\[(.+?)\]", " ".join(texts))):
        from fastsample.bench.metrics.own_extractors import add_own_extractors  # with torch-fidelity: seconds to import

        add_own_extractors(texts)
    for text in texts:
        if is_code(text) or (text in offered("metrics") and text not in METRICS):
            code = code_named(text, "metrics")
            assert code
            if text not in MEASURES:  # a package's measure registers itself when it is imported
                _add(text, code)


def _add(name: str, code: Code) -> None:
    """Register a function, in the place of what the file held before."""
    try:
        wanted = list(inspect.signature(code.value).parameters)
    except (TypeError, ValueError):
        wanted = []
    if inspect.isclass(code.value) or not wanted or not {*wanted} <= _GIVEN.keys():
        raise OwnMetricError(f"{code.name} is no metric: it is a function of some of {', '.join(_GIVEN)}")
    facts: dict[str, Any] = {"needs": "solution" if _AGAINST & {*wanted} else "images"}
    facts |= {
        key: getattr(code.value, key) for key in ("title", "unit", "higher", "digits") if hasattr(code.value, key)
    }
    METRICS[name] = own_metric(name, **facts)

    class Own(_Own):
        function, told, parameters, about = staticmethod(code.value), code.told, wanted, facts

    MEASURES[name] = Own


class _Own(Measure):
    function: Callable[..., Any]
    told: str
    parameters: Sequence[str]
    about: Mapping[str, Any]

    def protocol(self, cell: Cell) -> dict[str, str]:
        made = {OWN.format(self.asked.metric.kind): f"{self.told} {json.dumps(self.about)}"}
        return made | (solution_facts(self.tools, cell) if self.asked.metric.needs == "solution" else {})

    def arrays(self, cell: Cell) -> dict[str, int]:
        against = self.asked.metric.needs == "solution"
        return {self.asked.metric.kind: (cell.compared if against else 0) or cell.samples}

    def name_of(self, cell: Cell) -> str:
        return self.asked.name(cell.samples, *self.arrays(cell).values())

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        kind, n = self.asked.metric.kind, len(batch.head(*self.arrays(batch.cell).values()))
        if not n:
            return {}
        try:
            given = (_GIVEN[name](batch)[:n] for name in self.parameters)
            found = np.asarray(torch.as_tensor(self.function(*given)).cpu())
        except Exception as error:  # of a user's code
            raise OwnMetricError(f"{kind} fails: {fault(error)}") from error
        if found.shape[:1] != (n,) or (found.ndim > 1 and not hasattr(self.function, "estimate")):
            raise OwnMetricError(f"{kind} returns {found.shape} for {n} samples, not a number for each")
        return {kind: found.astype(np.float64)}

    def estimate(self, cell: Cell, arrays: dict[str, np.ndarray]) -> Summary:
        kind = self.asked.metric.kind
        try:
            found = getattr(self.function, "estimate", mean_of)(arrays[kind])
            if not isinstance(found, Estimate):
                return Summary({self.name_of(cell): float(found)})
        except Exception as error:  # of a user's code
            raise OwnMetricError(f"the estimate of {kind} fails: {fault(error)}") from error
        return Summary({self.name_of(cell): found.value}, {self.name_of(cell): found})
