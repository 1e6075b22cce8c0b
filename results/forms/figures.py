"""Figures like those of papers: readable without colour, by markers and line styles, and to the colour-blind.

Each function takes numbers and returns a matplotlib figure; `save` writes it as PNG or SVG.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from fastsample.datasets.files import write_atomically
from fastsample.results.forms.escaping import visible
from fastsample.results.forms.looks import STYLE, looks_of
from fastsample.results.metrics import metric_of

__all__ = ["Place", "curvature", "errors", "front", "image_matrix", "picture_bytes", "quality", "save", "series_names"]

_PANEL = (4.4, 3.1)  # inches
_DOTS = 200  # of an inch

_styled = matplotlib.rc_context(STYLE)  # pictures look the same whatever the reader's own settings


@dataclass(frozen=True)
class Place:
    """One place of a matrix of images: the images, uint8 [n, height, width, channels], and a line under them."""

    images: np.ndarray
    caption: str = ""


@_styled
def quality(found: pd.DataFrame, *, against: str = "nfe") -> Figure:
    """Metrics against evaluations or seconds: a column of panels for each model, a row for each metric.

    Bars are 95 % intervals. Rings mark what is worth its cost: the points of a panel's Pareto front (no other is as
    good at as low a cost) that gain more over the ring before them than their interval leaves open, but none that
    made fewer evaluations than were asked and is not the best of those asked for as many. Against seconds the points of
    a solver are joined, and ringed, where more evaluations took longer; else timing was too coarse.

    Args:
        found: of `results.layout.evidence`; against seconds with the column of `results.recommend.with_seconds`.
        against: `nfe`, the evaluations really made, or `seconds` of network and solver for one image.

    Raises:
        ValueError: for another `against`.
    """
    axis_names = {"nfe": ("made", "NFE"), "seconds": ("seconds", "seconds per image")}
    if against not in axis_names:
        raise ValueError(f"quality is drawn against {' or '.join(axis_names)}, not {against!r}")
    found, (cost, cost_title) = _words(found), axis_names[against]
    models, metrics, looks = found["model"].unique(), found["metric"].unique(), _looks(found)
    figure, panels = _panels(len(metrics), len(models))
    for (metric, model), axis in zip(((m, n) for m in metrics for n in models), panels, strict=True):
        here = found[(found["model"] == model) & (found["metric"] == metric)]
        joined: dict[str, bool] = {}
        for name, line in _series(here, looks):
            points = line.sort_values([cost])
            ends = points["value"] - points["low"], points["high"] - points["value"]
            bars = np.nan_to_num(np.stack(ends)).clip(0)  # a point without an interval has none
            joined[name] = against == "nfe" or line.sort_values("made")[cost].is_monotonic_increasing
            look = looks[name] if joined[name] else looks[name] | {"linestyle": "none"}
            axis.errorbar(
                points[cost], points["value"], yerr=bars, label=name, capsize=2, elinewidth=0.8, **look,
            )  # fmt: skip
        rings = here.iloc[_wanted(here, cost, metric_of(metric).higher)]
        rings = rings[series_names(here)[rings.index].map(joined).astype(bool)]
        if len(rings):
            look = {"facecolors": "none", "edgecolors": "black", "linewidths": 0.8, "zorder": 3}
            axis.scatter(rings[cost], rings["value"], s=95, label="Pareto front", **look)
        axis.set(title="\n".join([model, *_own_judge(here)]), xlabel=cost_title, ylabel=_title(metric))
        _logarithmic(axis, "x", here[cost])
        if against == "nfe":
            budgets = sorted({*here["nfe"], here["made"].max()})  # the last one for adaptive solvers
            axis.set_xticks(budgets, labels=[str(nfe) for nfe in budgets])
        if not metric_of(metric).bound:  # its values are no logarithms
            _logarithmic(axis, "y", here["value"])
    _legend(figure, panels)
    return figure


def _own_judge(here: pd.DataFrame) -> list[str]:
    """A line for each solver of a panel that was trained on the network of its metric."""
    if "training" not in here:
        return []
    judged = here[here["training"].map(len) > 1]
    return [f"no evidence: {name} was trained on what judges here" for name in dict.fromkeys(judged["title"])]


def front(cost: np.ndarray, value: np.ndarray, higher: bool) -> np.ndarray:
    """Indices of the Pareto front of points (cost [n], value [n]): no other is as cheap and as good, or better."""
    gain = value if higher else -value
    order = np.lexsort((-gain, cost))
    best_before = np.concatenate([[-np.inf], np.maximum.accumulate(gain[order])[:-1]])
    return np.asarray(order[gain[order] > best_before])


def _wanted(here: pd.DataFrame, cost: str, higher: bool) -> list[int]:
    """Places of the points of the front that gain more over the one before than half of their interval."""
    values = here["value"].to_numpy() * (1 if higher else -1)
    slack = ((here["high"] - here["low"]) / 2).fillna(0.0).to_numpy()
    found: list[int] = []
    beaten = (here["made"] < here["nfe"]) & (
        values < here.assign(value=values).groupby("nfe")["value"].transform("max")
    )
    for place in front(here[cost].to_numpy(), here["value"].to_numpy(), higher):
        if not beaten.iloc[place] and (not found or values[place] > values[found[-1]] + slack[place]):
            found.append(int(place))
    return found


@_styled
def image_matrix(places: Mapping[tuple[str, str], Place | None], title: str = "") -> Figure:
    """Images in rows and columns, by (row name, column name) in the order given; None is left white.

    Every place shows its images as a block; all images are of one size, and every place has as many. The picture is
    large enough to see them: a place is some whole number of times its pixels, at least 240 wide, and wider where there
    are few columns.
    """
    rows, columns = list(dict.fromkeys(row for row, _ in places)), list(dict.fromkeys(column for _, column in places))
    first = next(place.images for place in places.values() if place)
    across = int(np.ceil(np.sqrt(len(first))))
    down = -(-len(first) // across)
    height, width = first.shape[1] * down, first.shape[2] * across
    factor = -(-max(240, 1080 // len(columns)) // width)
    size = factor * width / _DOTS  # inches of one place
    tall = 0.7 + (size * height / width + 0.17) * len(rows)
    layout = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.02, wspace=0, hspace=0)
    figure = Figure(figsize=(1.8 + size * len(columns), tall), layout=layout)
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            axis = axes[i, j]
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            if place := places.get((row, column)):
                axis.imshow(_block(place.images, across, down), interpolation="none", cmap="gray")
                axis.set_xlabel(place.caption, fontsize=7, labelpad=1.5)
            if i == 0:
                axis.set_title(_shown(column), fontsize=9)
            if j == 0:
                axis.set_ylabel(_shown(row), rotation=0, ha="right", va="center", fontsize=8.5)
    figure.suptitle(_shown(title), fontsize=9.5)
    return figure


@_styled
def errors(points: pd.DataFrame) -> Figure:
    """Error along the trajectory: a column of panels for each model, a row for each budget.

    Args:
        points: columns model, nfe, title, grid, time and error, as `bench.pictures.errors_of` measures them; those
            of a line are in the order of time, and its first, before any step is made, is left out.
    """
    points = _words(points)
    models, budgets, looks = points["model"].unique(), sorted(points["nfe"].unique()), _looks(points)
    figure, panels = _panels(len(budgets), len(models))
    for (nfe, model), axis in zip(((n, m) for n in budgets for m in models), panels, strict=True):
        for name, line in _series(points[(points["model"] == model) & (points["nfe"] == nfe)], looks):
            axis.semilogy(line["time"][1:], line["error"][1:], label=name, **looks[name])
        axis.set(title=f"{model}, NFE {nfe}", xlabel=_TIME, ylabel="RMS distance to the reference", xlim=(0, 1.01))
    _legend(figure, panels)
    return figure


@_styled
def curvature(profiles: pd.DataFrame) -> Figure:
    """Where the trajectories of models bend; the area under a line is the curvature.

    Args:
        profiles: columns model, time, value, low and high (95 % interval), and total, low_total and high_total of
            the model, as `bench.pictures.curvature_of` measures them.
    """
    profiles, (figure, [axis]) = _words(profiles), _panels(1, 1)
    looks = _looks(profiles.assign(title=profiles["model"], grid=""))
    for model, line in profiles.groupby("model", sort=False):
        total = line.iloc[0]
        half = max(total["high_total"] - total["total"], total["total"] - total["low_total"])
        look = looks[str(model)] | {"markevery": max(1, len(line) // 10)}
        axis.plot(line["time"], line["value"], label=f"{model}: curvature {total['total']:.3g} ± {half:.1g}", **look)
        axis.fill_between(line["time"], line["low"], line["high"], color=look["color"], alpha=0.2, linewidth=0)
    axis.set(xlabel=_TIME, ylabel=r"$\|(z_1 - z_0) - dz/dt\|^2$ per dimension", xlim=(0, 1), ylim=(0, None))
    _legend(figure, [axis], across=1)
    return figure


@_styled
def picture_bytes(figure: Figure, form: str) -> bytes:
    """A figure as `png` or `svg`; the same figure gives the same bytes."""
    stream = io.BytesIO()
    figure.savefig(stream, format=form, dpi=_DOTS, metadata={"Date": None} if form == "svg" else None)
    return stream.getvalue()


def save(figure: Figure, file: Path) -> None:
    """Write a figure as PNG or SVG, by the ending of the file's name.

    Raises:
        ValueError: for another ending, or a file that cannot be written.
    """
    form = file.suffix[1:].lower()
    if form not in ("png", "svg"):
        raise ValueError(f"pictures are written as .png or .svg, not {file.name!r}")
    try:
        picture = picture_bytes(figure, form)
        write_atomically(file, lambda stream: stream.write(picture))
    except OSError as error:
        raise ValueError(f"cannot write {file}: {error.strerror}") from None


_TIME = r"time of the linear path, $\alpha / (\alpha + \sigma)$ (noise 0, data 1)"


def _shown(text: str) -> str:
    """Text of a store for matplotlib: no character steers, and no dollar begins a formula."""
    return visible(text).replace("$", r"\$")


def _words(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with its texts as `_shown`."""
    names = [name for name in ("model", "title", "grid", "metric") if name in frame]
    return frame.assign(**{name: frame[name].map(_shown) for name in names})


def _title(metric: str) -> str:
    better = "higher" if metric_of(metric).higher else "lower"
    return f"{metric_of(metric).head(metric)} ({better} is better)"


def _panels(rows: int, columns: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(_PANEL[0] * columns, _PANEL[1] * rows), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def _looks(frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """The looks of each series, by name, in the order of the frame."""
    return looks_of(series_names(frame))


def series_names(frame: pd.DataFrame) -> pd.Series:
    """What the legend calls each point's series: the title, with the grid where a solver has several on one model, and
    what it was trained on.
    """
    several = frame.groupby(["model", "title"])["grid"].transform("nunique") > 1
    names = frame["title"] + frame["grid"].map(lambda grid: f", {grid}").where(several, "")
    if "trained_on" not in frame:  # of models
        return names
    return names + frame["trained_on"].map(lambda said: "" if said == "nothing" else f", trained on {said}")


def _series(here: pd.DataFrame, looks: Mapping[str, Any]) -> list[tuple[str, pd.DataFrame]]:
    names = series_names(here)
    return [(name, here[names == name]) for name in looks if (names == name).any()]


def _logarithmic(axes: Axes, which: str, values: pd.Series) -> None:
    """Make the x or y axis logarithmic where its values are positive, with plain numbers at its ticks."""
    if not (values > 0).all():
        return
    axes.set(**{f"{which}scale": "log"})
    axis = getattr(axes, f"{which}axis")
    narrow = values.max() < 8 * values.min()
    axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]) if narrow else LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))


def _legend(figure: Figure, panels: Sequence[Axes], across: int = 0) -> None:
    """One legend for all panels, under them; `across` entries in a line, or as many as fit."""
    found: dict[str, Any] = {}
    for axis in panels:
        for handle, name in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(name, handle)
    if "Pareto front" in found:
        found["Pareto front"] = found.pop("Pareto front")  # last
    across = across or min(len(found), 2 * round(figure.get_figwidth() / _PANEL[0]))
    extra = 0.18 * -(-len(found) // across)
    figure.set_figheight(figure.get_figheight() + extra)
    figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=across)


def _block(images: np.ndarray, across: int, down: int) -> np.ndarray:
    """Images [n, h, w, c] side by side: [down h, across w, c], white where there is none."""
    n, h, w, c = images.shape
    whole = np.full((down * across, h, w, c), 255, np.uint8)
    whole[:n] = images
    return whole.reshape(down, across, h, w, c).transpose(0, 2, 1, 3, 4).reshape(down * h, across * w, c)
