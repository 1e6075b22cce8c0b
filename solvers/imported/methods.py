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
    "dyweight": Method("DyWeight", "2603.11607"),
    "epd": Method("EPD-Solver", "2507.14797"),
    "epd-ipndm": Method("EPD-Plugin on iPNDM", "2507.14797"),
    "adasde": Method("AdaSDE-Solver", "2510.23285"),
    "gas": Method("Generalized Adversarial Solver", "2510.17699"),
    "ld3": Method("LD3", "2405.15506"),
}
