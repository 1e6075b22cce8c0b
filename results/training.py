"""What a sampler was trained on, and which metrics have the same judge.

A sampler that was trained on the network of a metric is not judged by it, but by its own teacher: its values are
better than its samples, and a table says so where it ranks them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from fastsample.results.metrics import LPIPS, extractor_of

if TYPE_CHECKING:  # a list of solvers takes none
    import pandas as pd

__all__ = ["TrainedOn", "trained_on", "training_notes", "training_remarks"]

# Its coefficients or times come from: the path alone; statistics of the model; the loss of that name. FID: a checkpoint
# of the training was chosen by it; reward: of human preference.
TrainedOn = Literal[
    "nothing", "statistics", "squared error", "LPIPS", "Inception", "FID", "classifier", "GAN", "reward"
]


def trained_on(row: Mapping[Any, Any]) -> str:
    """What the sampler of a row was trained on; learned ones of older rows on squared error.

    Args:
        row: of `results.row.frame_of`.
    """
    said, teacher = row.get("protocol.trained on"), row.get("protocol.trained against")
    return said if isinstance(said, str) else "squared error" if isinstance(teacher, str) else "nothing"


def training_remarks(row: Mapping[Any, Any], metric: str) -> tuple[str, ...]:
    """What a reader of a value of a metric has to know of it: the training, and whether the metric has its judge."""
    said, how = trained_on(row), row.get("protocol.found with")
    if said == "nothing":
        return ()
    told = f"trained on {said}" + (f": {how}" if isinstance(how, str) else "")
    return (told, f"{said} is what {metric} is made of: no evidence for its rank") if _judges(metric, said) else (told,)


def training_notes(rows: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Sentences under a list of rows: of each trained sampler what it was trained on, and what has the same judge.

    Args:
        rows: of `results.row.frame_of`; names: full names of the metrics that are listed.
    """
    found: dict[str, list[str]] = {}
    for row in rows.to_dict("records"):
        which = f"{row['model']}, {row['solver']}" + (f":{row['options']}" if row["options"] else "")
        said = [remark for name in names for remark in training_remarks(row, name)]
        for remark in dict.fromkeys(said):
            found.setdefault(remark, []).append(f"{which} on {row['grid']} at NFE {row['nfe_asked']}")
    return [f"{'; '.join(dict.fromkeys(which))}: {remark}." for remark, which in found.items()]


def _judges(metric: str, said: str) -> bool:
    extractor = extractor_of(metric)
    return {
        "LPIPS": extractor == LPIPS,
        "Inception": extractor.startswith("inception"),
        "FID": extractor.startswith("inception"),
    }.get(said, False)
