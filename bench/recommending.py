"""Which sampler of a store to use, with the commands that play it."""

from __future__ import annotations

from collections.abc import Sequence

from fastsample.results.commands import export_command, sample_command
from fastsample.results.evidence import Comparison
from fastsample.results.recommend import Recommendation, recommend, with_seconds
from fastsample.results.store import Store
from fastsample.solvers.solver import solvers

__all__ = ["recommendations"]


def recommendations(
    store: Store,
    *,
    budget: int | None = None,
    target_psnr: float | None = None,
    max_seconds: float | None = None,
    metric: str = "psnr",
    models: Sequence[str] | None = None,
    where: Sequence[str] | None = None,
) -> list[tuple[Recommendation, list[str]]]:
    """A recommendation for each model, with commands: one that draws its samples, and one that exports its table.

    Args:
        budget, max_seconds: as `results.recommend.recommend` takes them.
        target_psnr: PSNR in dB to reach.
        metric: full name, or a kind that stands for one metric.
        models, where: for `results.overview.select`.

    Raises:
        ValueError: as `recommend`; and for a target of PSNR beside another metric, or a kind with several metrics.
    """
    if target_psnr is not None and metric != "psnr":
        raise ValueError(f"--target-psnr is a condition on psnr; it cannot be given with --metric {metric}")
    comparison, given = Comparison(store), []
    rows = comparison.rows(models, None, where)
    found = comparison.evidence(rows, [metric])
    if found["metric"].nunique() > 1:
        raise ValueError(f"{metric} is several metrics here; name one: {', '.join(found['metric'].unique())}")
    found = with_seconds(found, rows) if max_seconds is not None else found
    for _, mine in found.groupby("model", sort=False):
        one = recommend(mine, comparison.difference, budget=budget, target=target_psnr, max_seconds=max_seconds)
        row = store.row(one.choice.cells[0])
        adaptive = row.solver in solvers() and solvers()[row.solver].adaptive
        given.append((one, [sample_command(row), *([] if adaptive else [export_command(row)])]))
    return given
