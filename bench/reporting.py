"""The report of a store: its tables, verdicts and figures, and pictures sampled again where the models are here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from fastsample.bench.pictures import IMAGES, Replay, curvature_of, errors_of, matrix_of
from fastsample.bench.tables import notes_of
from fastsample.results import figures
from fastsample.results.evidence import Comparison
from fastsample.results.layout import metrics_named, sheet_of
from fastsample.results.recommend import Recommendation, recommend, with_seconds
from fastsample.results.report import Picture, Table, page
from fastsample.results.store import Store

__all__ = ["report_of"]


def report_of(
    store: Store,
    *,
    models: Sequence[str] | None = None,
    solvers: Sequence[str] | None = None,
    where: Sequence[str] | None = None,
    images: int = 4,
    device: str = "auto",
    checkpoints: Sequence[str] | None = None,
) -> str:
    """The report as one HTML page.

    A metric whose numbers cannot be compared gets the reason instead of a table.

    Args:
        models, solvers, where: for `results.overview.select`.
        images: in each place of a matrix of samples; 0 samples nothing again.
        device, checkpoints: for `bench.pictures.Replay`.

    Raises:
        ValueError: where nothing is left to report.
    """
    replay, comparison = Replay(store, device, checkpoints), Comparison(store)
    rows = comparison.rows(models, solvers, where)
    verdicts: list[Recommendation] = []
    tables: list[Table] = []
    pictures: list[Picture] = []
    again: pd.DataFrame | None = None  # what is sampled again: the rows of the first metric that can be compared
    for metric in _main_metrics(rows):
        title = "PSNR" if metric == "psnr" else metric
        try:
            found = comparison.evidence(rows, [metric])
        except ValueError as error:
            tables.append(Table(title, None, str(error)))
            continue
        for model, mine in found.groupby("model", sort=False):
            sheet = sheet_of(mine, notes=notes_of(rows[rows["model"] == model], mine))
            tables.append(Table(f"{title} on {model}", sheet))
            budgets = sorted(set(mine["nfe"][mine["nfe"] >= mine["made"].min()]))
            verdicts += [recommend(mine, comparison.difference, budget=budget) for budget in budgets]
        pictures += _of_quality(found, rows, title)
        again = found if again is None else again
    if images and again is not None:
        pictures += _sampled(again, replay, images)
    kept = [store.row(cell) for cell in rows["cell"]]
    return page(store.folder.resolve().name, kept, verdicts, tables, pictures)


def _main_metrics(rows: pd.DataFrame) -> list[str]:
    """Every metric of the rows but other summaries of the same PSNR."""
    names = [name.removeprefix("metrics.") for name in rows.columns if name.startswith("metrics.")]
    return metrics_named(rows, [name for name in names if not name.startswith("psnr_")])


def _of_quality(found: pd.DataFrame, rows: pd.DataFrame, title: str) -> list[Picture]:
    """The quality of each model's solvers against evaluations and seconds."""
    pictures = []
    for model, mine in found.groupby("model", sort=False):
        solvers = ", ".join(dict.fromkeys(mine["title"]))
        for against, cost in (("nfe", "evaluations"), ("seconds", "time")):
            heading = f"{title} against {cost} on {model}"
            text = "Bars: 95 % intervals. Rings: the Pareto front." + (
                "" if against == "nfe" else f" Network and solver of one image, on {rows['device'].iloc[0]}."
            )
            alt = f"Line chart of {title} against {cost} for {solvers}; the tables hold the numbers."
            pictures.append(_attempt(heading, text, alt, _quality, mine, rows, against))
    return pictures


def _sampled(found: pd.DataFrame, replay: Replay, images: int) -> list[Picture]:
    """Samples, errors along the way and curvature of each model."""
    pictures = []
    for model, mine in found.groupby("model", sort=False):
        budgets = sorted(mine["nfe"].unique())
        here = mine[mine["nfe"] == budgets[len(budgets) // 2]]
        solvers = ", ".join(dict.fromkeys(mine["title"]))
        pictures += [
            _attempt(
                f"Samples of {model}",
                "The same noise everywhere; last the reference solution. Under each: PSNR of these images against it.",
                f"Images of the same noise; rows: {solvers}; columns: NFE {', '.join(map(str, budgets))}, reference.",
                matrix_of, mine, replay, images, wide=True,
            ),
            _attempt(
                f"Errors along the way on {model}",
                "Where each solver evaluates the model: root mean square distance per dimension to the fine reference, "
                "on the linear path.",
                f"Line chart of the distance to the reference trajectory for {solvers}.",
                lambda *of: figures.errors(errors_of(*of)), here, replay, IMAGES["error"],
            ),
            _attempt(
                f"Curvature of {model}",
                "Deviation of the slope from the chord along the reference trajectory, on the linear path; its mean is "
                "the curvature of arXiv 2301.12003. Zero: one Euler step is exact.",
                "Line chart of the curvature against time.",
                lambda *of: figures.curvature(curvature_of(*of)), mine, replay, IMAGES["error"],
            ),
        ]  # fmt: skip
    return pictures


def _quality(found: pd.DataFrame, rows: pd.DataFrame, against: str) -> Figure:
    return figures.quality(with_seconds(found, rows) if against == "seconds" else found, against=against)


def _attempt(
    title: str, text: str, alt: str, draw: Callable[..., Figure], *arguments: Any, wide: bool = False
) -> Picture:
    """The picture, or the reason why it cannot be drawn here."""
    try:
        return Picture(title, text, alt, draw(*arguments), wide)
    except Exception as error:  # of a row from elsewhere anything may be wrong
        return Picture(title, f"Not drawn: {error}.")
