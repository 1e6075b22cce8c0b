"""Heat maps with their numbers in the cells, so that they are read without colour."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from fastsample.results.forms.escaping import visible

__all__ = ["Panel", "heat"]

Panel = tuple[str, Sequence[str], Sequence[str], np.ndarray]


@matplotlib.rc_context({"font.size": 9, "svg.hashsalt": "fastsample"})
def heat(panels: Sequence[Panel], digits: int, *, higher: bool, signed: bool = False) -> Figure:
    """A column of heat maps; a place without a number has a dash. The darker, the better: the number says how good.

    Args:
        panels: of each the title, the names of rows and of columns, and the values [rows, columns].
        digits: behind the point.
        higher: values are better; signed: they have a sign.
    """
    tall = [0.34 * len(rows) + 1.8 for _, rows, _, _ in panels]
    wide = max(0.62 * len(columns) for _, _, columns, _ in panels) + 3.0
    figure = Figure(figsize=(wide, sum(tall)), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=tall)[:, 0]
    for axis, (title, rows, columns, values) in zip(axes, panels, strict=True):
        known = values[np.isfinite(values)]
        low, high = (known.min(), known.max()) if len(known) else (0.0, 1.0)
        share = (values - low) / (high - low or 1.0)
        shade = 0.85 * (share if higher else 1 - share)
        axis.imshow(np.ma.masked_invalid(shade), cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for (i, j), value in np.ndenumerate(values):
            text = f"{value:{'+' if signed else ''}.{digits}f}" if np.isfinite(value) else "-"
            ink = "white" if shade[i, j] > 0.55 else "black"
            axis.text(j, i, text, ha="center", va="center", color=ink, fontsize=8)
        axis.set_yticks(range(len(rows)), labels=map(_shown, rows))
        axis.set_xticks(range(len(columns)), labels=map(_shown, columns), rotation=35, ha="right")
        axis.set(title=_shown(title), xlabel="run on", ylabel="trained on")
    return figure


def _shown(text: str) -> str:
    return visible(text).replace("$", r"\$")
