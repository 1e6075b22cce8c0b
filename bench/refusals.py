"""What a cell cannot have, and why; known before anything is sampled."""

from __future__ import annotations

from fastsample.bench.cells import Cell
from fastsample.bench.extractors import refusal
from fastsample.bench.features import REFERENCES
from fastsample.bench.metrics import FEWEST, Metric

__all__ = ["metric_refusal"]


def metric_refusal(metric: Metric, cell: Cell) -> tuple[str, str]:
    """(of what, why): the model, solver or number of samples for which a metric says nothing; ("", "") if it does.

    A metric with a reference set is for models of the data that the set is of; the exact models have no data, and are
    compared with any.
    """
    model, shape = cell.model, cell.model.image_shape
    if metric.kind in ("curvature", "straightness") and (reason := cell.unbent):
        return cell.plan.solver.name, reason
    if not metric.extractor:
        return "", ""
    if len(shape) != 3:
        return model.id, f"its samples are no images: their shape is {shape}"
    if reason := refusal(metric.extractor, shape):
        return model.id, reason
    data = REFERENCES[metric.extractor][0][0]
    if metric.kind != "is" and model.data not in (data, "analytic"):
        known = f"the reference set of {metric.extractor} is {data}"
        return model.id, f"it is a model of {model.data or 'unknown data'}, and {known}"
    if cell.samples < FEWEST.get(metric.kind, 0):
        return f"{cell.samples} samples", f"it needs at least {FEWEST[metric.kind]}"
    return "", ""
