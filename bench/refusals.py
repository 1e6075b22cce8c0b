"""What a cell cannot have, and why; known before anything is sampled."""

from __future__ import annotations

from functools import cache

from fastsample.bench.cells import Cell
from fastsample.bench.metrics.error import FEWEST, Metric
from fastsample.bench.metrics.extractors import refusal
from fastsample.bench.metrics.features import REFERENCES
from fastsample.models.checkpoints import embedded_models, load_checkpoint, model_file
from fastsample.models.public.cards import cards

__all__ = ["data_set", "metric_refusal"]


def metric_refusal(metric: Metric, cell: Cell) -> tuple[str, str]:
    """(of what, why): the model, solver or number of samples for which a metric says nothing; ("", "") if it does.

    A metric with a reference set is for models of that set's data. The exact models have no data, and are compared with
    any.
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
    if metric.kind != "is" and model.network is not None and data_set(model.data) != data:
        return model.id, f"it is a model of {model.data}, and the reference set of {metric.extractor} is {data}"
    if cell.samples < FEWEST.get(metric.kind, 0):
        return f"{cell.samples} samples", f"it needs at least {FEWEST[metric.kind]}"
    return "", ""


@cache
def data_set(data: str) -> str:
    """The data set that a model's `data` names, as "cifar10-jpeg train" does; of a reflow's pairs the teacher's.

    "" where the teacher is not known here.
    """
    if not data.startswith("pairs of "):
        return data.partition(" ")[0]
    teacher = data.split()[2]
    if teacher in embedded_models():
        return data_set(load_checkpoint(model_file(teacher))[1].data)
    return cards()[teacher].data if teacher in cards() else ""
