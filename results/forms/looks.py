"""How series of a figure look: readable without colour, by markers and line styles, and to the colour-blind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import cycle
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

__all__ = ["STYLE", "colours", "darkened", "looks_of"]

# Okabe and Ito's colours without yellow, which is too light on white, and of Tol's muted scheme what is unlike them.
_COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9", "#332288", "#882255", "#999933",
    "#7F7F7F", "#661100", "#117733", "#AA4499",
)  # fmt: skip
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
_LINES = ("-", "--", ":", "-.")
STYLE: Any = {
    "font.size": 9, "axes.titlesize": 9.5, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "grid.alpha": 0.25, "grid.linewidth": 0.6, "lines.linewidth": 1.3, "lines.markersize": 4.5, "legend.frameon": False,
    "legend.fontsize": 8.5, "svg.hashsalt": "fastsample",
}  # fmt: skip


def colours(count: int) -> list[str]:
    """So many colours, none of them twice: of the list where it is long enough, else around the rainbow."""
    if count <= len(_COLOURS):
        return list(_COLOURS[:count])
    return [to_hex(0.9 * colour) for colour in matplotlib.colormaps["turbo"](np.linspace(0.02, 0.98, count))[:, :3]]


def looks_of(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour, marker and line style of each series, by name, in their order.

    No colour is used twice; the numbers of markers and of line styles have no common divisor, so that no two of the
    first 36 series look alike without colour.
    """
    known = list(dict.fromkeys(names))
    looks = zip(colours(len(known)), cycle(_MARKERS), cycle(_LINES))
    return {
        name: {"color": colour, "marker": marker, "linestyle": line}
        for name, (colour, marker, line) in zip(known, looks)  # noqa: B905
    }


@contextmanager
def darkened(figure: Figure, paper: str, ink: str) -> Iterator[None]:
    """A matrix of images as it is on a dark page: meanwhile it has another paper and ink around the same images."""
    before = figure.get_facecolor()
    texts = [(text, text.get_color()) for text in figure.findobj(Text)]
    figure.set_facecolor(paper)
    for text, _ in texts:
        text.set_color(ink)
    try:
        yield
    finally:
        figure.set_facecolor(before)
        for text, colour in texts:
            text.set_color(colour)
