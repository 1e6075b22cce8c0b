"""The learned solvers whose published files are read: by the name that `bench` calls them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PUBLISHED", "Method"]


@dataclass(frozen=True)
class Method:
    """A published learned solver: its title and its arXiv id."""

    title: str
    paper: str


PUBLISHED = {
    name.lower(): Method(title, paper)
    for name, title, paper in (
        ("DyWeight", "DyWeight", "2603.11607"),
        ("EPD", "EPD-Solver", "2507.14797"),
        ("EPD-iPNDM", "EPD-Plugin on iPNDM", "2507.14797"),
        ("AdaSDE", "AdaSDE-Solver", "2510.23285"),
        ("GAS", "Generalized Adversarial Solver", "2510.17699"),
        ("LD3", "LD3", "2405.15506"),
    )
}
