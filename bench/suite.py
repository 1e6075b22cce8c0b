"""What the registries know of models and solvers, for published numbers: what is the same, and what can be run."""

from __future__ import annotations

import warnings
from functools import cache

from fastsample.models.catalogue import shipped_path
from fastsample.models.path import Path
from fastsample.models.public.cards import card_named, is_shipped
from fastsample.results.papers.stated import Suite
from fastsample.solvers.spec import Spec, complete

__all__ = ["suite"]


def suite() -> Suite:
    """The models of the package and the solvers that are registered; nothing is fetched for them."""
    return Suite(
        same=complete, interval=_interval, t_of_nsr=_t_of_nsr, reference=_reference, labelled=_labelled,
        guides=_guides, refusal=_refusal,
    )  # fmt: skip


_path = cache(shipped_path)


def _interval(model: str) -> tuple[float, float] | None:
    path = _path(model)
    return (path.t_noise, path.t_data) if path else None


def _t_of_nsr(model: str, nsr: float) -> float:
    path = _path(model)
    assert path
    return path.t_of_nsr(nsr)


@cache
def _reference(model: str) -> str:
    return card_named(model).reference if is_shipped(model) else ""


@cache
def _labelled(model: str) -> bool:
    return is_shipped(model) and card_named(model).labels.kind != "none"


@cache
def _guides(model: str) -> frozenset[str]:
    return frozenset(fid.guide for fid in card_named(model).fid if fid.guide) if is_shipped(model) else frozenset()


def _refusal(model: str, solver: str, grid: str, calls: int) -> str:
    path = _path(model)
    return _unspent(path, solver, grid, calls) if path else "no model of the suite"


@cache
def _unspent(path: Path, solver: str, grid: str, calls: int) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # such as a grid with more intervals than it was asked for
            plan = Spec.parse(f"{solver}@{grid}" if grid else solver).plan(path, calls)
        made = calls if plan.solver.adaptive else len(plan.asked())
    except (ValueError, UserWarning) as error:
        return str(error)
    return "" if made == calls else f"solver {solver} makes {made} calls of {calls}"
