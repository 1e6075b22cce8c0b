"""The report: one HTML file that needs no network, with what a store says and where each of its numbers comes from."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

import pandas as pd
from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure

from fastsample.results.commands import bench_command
from fastsample.results.evidence import Comparison
from fastsample.results.forms.escaping import visible
from fastsample.results.forms.figures import picture_bytes, quality
from fastsample.results.forms.looks import darkened
from fastsample.results.forms.sheet import Sheet, linked_html
from fastsample.results.layout import metrics_named, sheet_of
from fastsample.results.metrics import metric_of
from fastsample.results.recommend import Candidate, Recommendation, number, recommend, with_seconds
from fastsample.results.row import Row
from fastsample.results.store import Store
from fastsample.results.tables import notes_of

__all__ = ["Picture", "Table", "attempt", "page", "report_of", "summary"]

_DOTS_PER_INCH = 96  # of CSS
_DARK = ("#14171b", "#e6e9ed")  # --paper and --ink of the dark page
_NUMBERS = {
    "cell", "model", "solver", "title", "options", "grid", "times", "nfe_asked", "nfe", "forwards", "metrics",
    "standard_errors", "seconds", "created",
}  # fmt: skip  # what the page shows of each row by itself


@dataclass(frozen=True)
class Table:
    """A table of the report, or why it is not there."""

    title: str
    sheet: Sheet | None
    reason: str = ""

    @property
    def html(self) -> str:
        """The table without its caption and notes, which the page sets outside of what scrolls."""
        assert self.sheet
        return linked_html(replace(self.sheet, caption="", notes=()))


@dataclass(frozen=True)
class Picture:
    """A picture of the report, or why it is not there.

    Attributes:
        title: above it; text: under it; alt: what it shows, for those who do not see it.
        figure: None where it could not be made; then `text` says why.
        wide: images at their own size, in a box that scrolls; otherwise a chart that fits the page.
    """

    title: str
    text: str
    alt: str = ""
    figure: Figure | None = None
    wide: bool = False

    @property
    def source(self) -> str:
        """The picture as a data URI: PNG for images, SVG for charts."""
        assert self.figure
        form, kind = ("png", "png") if self.wide else ("svg", "svg+xml")
        return f"data:image/{kind};base64,{base64.b64encode(picture_bytes(self.figure, form)).decode()}"

    @property
    def dark(self) -> str:
        """Images on the paper of a dark page, in its ink."""
        assert self.figure
        with darkened(self.figure, *_DARK):
            return f"data:image/png;base64,{base64.b64encode(picture_bytes(self.figure, 'png')).decode()}"

    @property
    def width(self) -> int:
        """In CSS pixels."""
        assert self.figure
        return round(self.figure.get_figwidth() * _DOTS_PER_INCH)


def page(
    name: str,
    rows: Sequence[Row],
    verdicts: Sequence[Recommendation],
    tables: Sequence[Table],
    pictures: Sequence[Picture],
) -> str:
    """The report as HTML.

    Args:
        name: of the store.
        rows: that it speaks of, at least one.
        verdicts: what is best for each model, metric and budget.
        tables, pictures: in their order on the page.
    """
    text, script = ((files("fastsample.results") / name).read_text("utf-8") for name in ("report.html.j2", "report.js"))
    settings = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=_visible,
    )  # fmt: skip
    facts = {row.cell: _flat(row) for row in rows}
    shared = _common(facts.values())
    models = []
    for model in dict.fromkeys(row.model for row in rows):
        mine = sorted((row for row in rows if row.model == model), key=lambda row: (row.title, row.nfe_asked, row.seed))
        models.append((model, _common(facts[row.cell] for row in mine), mine))
    return settings.from_string(text).render(
        script=script, digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        name=name, models=models, facts=facts, shared=shared, verdicts=verdicts, summary=summary(verdicts),
        tables=tables, pictures=pictures, command=bench_command, number=number, count=len(rows),
        first=min(row.created for row in rows)[:10], last=max(row.created for row in rows)[:10],
    )  # fmt: skip


def report_of(
    store: Store,
    *,
    models: Sequence[str] | None = None,
    solvers: Sequence[str] | None = None,
    where: Sequence[str] | None = None,
    again: Callable[[pd.DataFrame], list[Picture]] = lambda _: [],
    tell: Callable[[str], None] = lambda _: None,
) -> str:
    """The report as one HTML page.

    A metric whose numbers cannot be compared gets the reason instead of a table.

    Args:
        models, solvers, where: for `results.overview.select`.
        again: draws pictures of evidence by sampling again; it gets that on the first metric that can be compared.
        tell: called with the part of the page that is begun.

    Raises:
        ValueError: where nothing is left to report.
    """
    comparison = Comparison(store)
    rows = comparison.rows(models, solvers, where)
    verdicts: list[Recommendation] = []
    tables: list[Table] = []
    pictures: list[Picture] = []
    first: pd.DataFrame | None = None
    for metric in _main_metrics(rows):
        title = metric_of(metric).called(metric)
        tell(f"table of {title}")
        try:
            found = comparison.evidence(rows, [metric])
        except ValueError as error:
            tables.append(Table(title, None, str(error)))
            continue
        for model, mine in found.groupby("model", sort=False):
            sheet = sheet_of(mine, notes=notes_of(rows[rows["model"] == model], mine))
            tables.append(Table(f"{title} on {model}", sheet))
            ours = mine[~mine["stated"]]
            budgets = sorted(set(ours["nfe"][ours["nfe"] >= ours["made"].min()]))
            verdicts += [recommend(ours, comparison.difference, budget=budget) for budget in budgets]
        pictures += _of_quality(found, rows, title, tell)
        first = found if first is None else first
    if first is not None:
        pictures += again(first)
    kept = [store.row(cell) for cell in rows["cell"]]
    tell("the page")
    return page(store.folder.resolve().name, kept, verdicts, tables, pictures)


def _main_metrics(rows: pd.DataFrame) -> list[str]:
    """Every metric of the rows but what is stored beside one."""
    names = [name.removeprefix("metrics.") for name in rows.columns if name.startswith("metrics.")]
    return metrics_named(rows, [name for name in names if name not in metric_of(name).summaries])


def _of_quality(found: pd.DataFrame, rows: pd.DataFrame, title: str, tell: Callable[[str], None]) -> list[Picture]:
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
            pictures.append(attempt(heading, text, alt, _quality, mine, rows, against, tell=tell))
    return pictures


def _quality(found: pd.DataFrame, rows: pd.DataFrame, against: str) -> Figure:
    return quality(with_seconds(found, rows) if against == "seconds" else found, against=against)


def attempt(
    title: str, text: str, alt: str, draw: Callable[..., Figure], *arguments: Any, wide: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Picture:  # fmt: skip
    """The picture, or the reason why it cannot be drawn here; `tell` hears its title before."""
    tell(title)
    try:
        return Picture(title, text, alt, draw(*arguments), wide)
    except Exception as error:  # of a row from elsewhere anything may be wrong
        return Picture(title, f"Not drawn: {error}.")


def _visible(value: object) -> object:
    """A value as text, also such as is HTML already, without characters that steer."""
    text = value if isinstance(value, str) else str(value)
    return type(text)("\n".join(map(visible, text.split("\n"))))


def summary(verdicts: Iterable[Recommendation]) -> list[tuple[str, list[str]]]:
    """What leads at which budgets: for each model and metric a heading and sentences."""
    found: dict[str, dict[tuple[str, ...], list[Recommendation]]] = {}
    for verdict in verdicts:
        leaders = (_short(verdict.choice), *sorted(map(_short, verdict.tied)))
        key = tuple(sorted(leaders)) if verdict.tied else leaders
        found.setdefault(f"{verdict.model}, by {verdict.called}", {}).setdefault(key, []).append(verdict)
    return [(heading, [_sentence(key, group) for key, group in groups.items()]) for heading, groups in found.items()]


def _sentence(leaders: tuple[str, ...], group: list[Recommendation]) -> str:
    budgets = _listed([one.condition.removeprefix("at most ").removesuffix(" evaluations") for one in group])
    if len(leaders) > 1:
        return f"{budgets} evaluations: {_listed(leaders)} are level."
    leads = [one.lead.value for one in group if one.lead]
    if not leads:
        return f"{budgets} evaluations: {leaders[0]}."
    by = " to ".join(dict.fromkeys(map(number, (min(leads), max(leads)))))
    return (
        f"{budgets} evaluations: {leaders[0]}, by {by}{group[0].unit} over the second; "
        f"{'the' if len(group) == 1 else 'each'} 95 % interval excludes zero."
    )


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)


def _short(one: Candidate) -> str:
    trained = "" if one.trained_on == "nothing" else f", trained on {one.trained_on}"
    return f"{one.title} ({one.grid}{trained})"


def _flat(row: Row) -> dict[str, str]:
    """What decides the row's numbers, as text."""
    facts: dict[str, Any] = row.model_dump(exclude=_NUMBERS)
    nested = {f"{kind}: {name}": value for kind in ("protocol", "versions") for name, value in facts.pop(kind).items()}
    return {name: str(value) or "none" for name, value in (facts | nested).items()}


def _common(several: Iterable[dict[str, str]]) -> dict[str, str]:
    """The facts that are the same in all."""
    first, *others = several
    return {name: value for name, value in first.items() if all(facts.get(name) == value for facts in others)}
