"""Learned tables where they were not learned: the matrices of a store, and why a place of one is empty."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from fastsample.datasets.home import data_home
from fastsample.models.catalogue import open_model, shipped_path
from fastsample.results.forms.heat import heat
from fastsample.results.metrics import metric_of
from fastsample.results.store import Store
from fastsample.results.transfer import Matrix, matrices
from fastsample.solvers.grids import BudgetError
from fastsample.solvers.spec import Spec

__all__ = ["transfer_of", "transfers"]


def transfers(
    store: Store,
    metrics: Sequence[str] | None = None,
    *,
    against: str = "nfe",
    models: Sequence[str] | None = None,
    solvers: Sequence[str] | None = None,
    nfe: Sequence[int] | None = None,
    where: Sequence[str] | None = None,
) -> list[Matrix]:
    """The transfer matrices of a store, with the reason why a table does not run somewhere.

    Args:
        metrics: one; against: `nfe` for its values, `best` for differences from the best training-free solver.
        models, solvers, nfe, where: as `picture` takes them.

    Raises:
        ValueError: as `results.transfer.matrices`, or for several metrics.
    """
    if against not in ("nfe", "best"):
        raise ValueError(f"transfer is drawn against nfe, as it is, or best, not {against!r}")
    if len(metrics or ()) > 1:
        raise ValueError(f"transfer is of one metric, not of {', '.join(metrics or ())}")
    return matrices(
        store, *(metrics or (None,)), difference=against == "best", models=models, solvers=solvers, nfe=nfe,
        where=where, why=_why_not,
    )  # fmt: skip


def transfer_of(found: Sequence[Matrix]) -> Figure:
    """The transfer matrices as heat maps."""
    first = metric_of(found[0].metric)
    panels = [
        (f"{one.title}, {_trained(one)}: {one.name}", _named(one.sources), _named(one.places), one.numbers[0])
        for one in found
    ]
    return heat(panels, first.digits, higher=first.higher, signed=bool(found[0].best))


def _trained(one: Matrix) -> str:
    return "trained on " + " and ".join(dict.fromkeys(said.partition(":")[0] for said in one.trained.values()))


def _named(places: Sequence[tuple[str, int]]) -> list[str]:
    return [f"{model}, NFE {nfe}" for model, nfe in places]


def _why_not(kind: str, trained: tuple[str, int], run: tuple[str, int]) -> str:
    """Why a table was not run somewhere: it cannot be, or nobody did."""
    (source, made), (model, nfe) = trained, run
    if shipped_path(model) is None:
        return "not measured"
    try:
        Spec.parse(f"{kind}:transfer={source},trained_nfe={made}").plan_for(open_model(model, home=data_home()), nfe)
    except BudgetError as error:
        return str(error)
    except ValueError:
        pass
    return "not measured"
