"""The audit of published numbers: which of them can be run here, by which command, and why a measured one differs."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from fastsample.datasets.names import number as written
from fastsample.results.comparable import what_decides
from fastsample.results.evidence import Comparison
from fastsample.results.forms.sheet import Entry, Footnotes, Sheet, plain
from fastsample.results.metrics import METRICS, metric_of
from fastsample.results.papers.stated import MEANINGS, Delta, Suite, deltas, kind_of, nfe_words, stated
from fastsample.results.published import disagreements, printed, source_of
from fastsample.results.store import Store

__all__ = ["audit", "command_of", "why_not"]

Record = Mapping[Any, Any]


def audit(numbers: pd.DataFrame, suite: Suite, store: Store | None = None) -> Sheet:
    """Published numbers that can be run, each with its command and what its protocol has otherwise than `bench` by
    default; or with a store those that were measured, each with the difference and a verdict.

    Where none was measured the commands are listed, and where none can be run the numbers with the reasons.

    A verdict is `agrees` (the published number is in the 95 % interval of the measured one, to the digits that tables
    print, and no field that decides is another), `another protocol (fields)` (it is there, but the two are not of one
    protocol), `differs (what could explain it)`, or `no interval` for want of per-sample data.

    Args:
        numbers: of `results.published.published`.
        suite: what the registries know.
        store: of measured rows.

    Raises:
        ValueError: for a store without rows.
    """
    apart = _disagreeing()
    told = [(one | {"others": apart.get(_cell(one), "")}, why_not(one, suite)) for one in numbers.to_dict("records")]
    here = [one for one, reason in told if not reason]
    measured = list(_measured(here, suite, store)) if store else []
    notes = ["±: half-width of the 95 % interval of the measured number; no paper prints one."] if measured else []
    if store and len(measured) < len(here):
        notes.append(f"Not measured: {len(here) - len(measured):,} that can be run; without a store all are listed.")
    notes += [f"Not to be run: {count:,} published, {reason}." for reason, count in _counted(told)]
    return _sheet(measured or [_listed(one, suite) for one in here] or [_refused(*pair) for pair in told], notes)


def why_not(number: Record, suite: Suite) -> str:
    """Why a published number cannot be run here; "" if it can."""
    if number["quoted_from"] and not number["fastsample_solver"]:
        return f"quoted from: {number['quoted_from']}"
    if metric_of(number["metric"]).kind not in METRICS:
        return f"no such metric: {number['metric']}"
    if not number["model"]:
        return "no model of the suite"
    if not number["fastsample_solver"]:
        return f"no solver of the suite: {number['method'] or number['solver']}"
    if pd.isna(number["calls"]):
        meaning = number["nfe_meaning"]
        return f"its NFE is {meaning} and its calls are not known" if meaning in MEANINGS else "its calls are not known"
    return suite.refusal(number["model"], number["fastsample_solver"], number["grid"], int(number["calls"]))


def command_of(number: Record, suite: Suite) -> str:
    """The `bench` command that runs a published number under its own protocol, as far as that is stated."""
    told, model = stated(number), number["model"]
    words = ["fastsample", "bench", "--model", model, "--solver", number["fastsample_solver"]]
    words += ["--grid", number["grid"]] if number["grid"] else []
    words += ["--nfe", str(number["calls"]), "--samples", str(told.samples), "--metrics", number["metric"]]
    words += [] if math.isnan(number["guidance"]) else ["--guidance", written(number["guidance"])]
    words += [
        word for guide in suite.guides(model) if "guided by" in number["checkpoint"] for word in ("--guide", guide)
    ]
    words += ["--labels", "random"] if suite.labelled(model) else []
    return shlex.join(words + told.options(suite.interval(model)))


def _listed(one: Record, suite: Suite) -> dict[str, Any]:
    return {
        "paper": one["paper"], "model": one["model"], "solver": one["fastsample_solver"], "NFE": nfe_words(one),
        "metric": one["metric"], "published": one["value"], "source": source_of(one), "others": one["others"],
        "other than here": "; ".join(map(str, deltas(one, {}, suite))) or "nothing that is stated",
        "protocol": one["protocol"] or "not stated", "command": command_of(one, suite),
    }  # fmt: skip


def _refused(one: Record, reason: str) -> dict[str, Any]:
    return {
        "paper": one["paper"], "model": one["model"] or one["checkpoint"], "solver": one["solver"],
        "NFE": nfe_words(one), "metric": one["metric"], "published": one["value"], "source": source_of(one),
        "others": one["others"], "not to be run": reason,
    }  # fmt: skip


def _measured(numbers: Sequence[Record], suite: Suite, store: Store) -> Iterator[dict[str, Any]]:
    """A line for each number that was measured: beside the rows, equal but for their seed, whose protocol is next."""
    comparison = Comparison(store)
    rows = comparison.rows()
    solvers = (rows["solver"] + rows["options"].map(lambda text: f":{text}" if text else "")).map(suite.same)
    names = [str(name)[8:] for name in rows if str(name).startswith("metrics.")]
    for one in numbers:
        fits = rows[
            (rows["model"] == one["model"]) & (solvers == suite.same(one["fastsample_solver"]))
            & (rows["nfe"] == one["calls"]) & (rows["guidance"] == _weight(one))
            & (rows["grid"].eq(one["grid"]) if one["grid"] else True) & (rows["classifier_scale"] == 0)
        ]  # fmt: skip
        groups: dict[str, list[Record]] = {}
        for row in fits.to_dict("records"):
            for name in (name for name in names if kind_of(name) == one["metric"] and pd.notna(row[f"metrics.{name}"])):
                key = str((name, row["grid"], what_decides(row, name)))
                groups.setdefault(key, []).append(row | {"metric": name})
        judged = [(deltas(one, group[0], suite), group) for group in groups.values()]
        if judged:
            other, group = min(judged, key=lambda pair: (sum(delta.decides for delta in pair[0]), -len(pair[1])))
            yield _judged(one, other, group, comparison)


def _judged(one: Record, other: list[Delta], group: list[Record], comparison: Comparison) -> dict[str, Any]:
    name = group[0]["metric"]
    seeds = {row["seed"]: row for row in group}
    value = sum(row[f"metrics.{name}"] for row in seeds.values()) / len(seeds)
    known = comparison.interval([row["cell"] for row in seeds.values()], name)
    low, high = (known.low, known.high) if known else (math.nan, math.nan)
    half = 0.5 * 10.0 ** -metric_of(name).digits
    return {
        "paper": one["paper"], "model": one["model"], "solver": one["fastsample_solver"], "NFE": nfe_words(one),
        "metric": name, "measured": value, "low": low, "high": high, "published": one["value"],
        "difference": value - one["value"],
        "verdict": _verdict(low - half <= one["value"] <= high + half, known, other),
        "source": source_of(one), "others": one["others"],
    }  # fmt: skip


def _verdict(inside: bool, known: object, other: list[Delta]) -> str:
    deciding = [delta for delta in other if delta.decides]
    if not known:
        return "no interval" + (f" ({'; '.join(map(str, other))})" if other else "")
    if inside:
        return f"another protocol ({'; '.join(map(str, deciding))})" if deciding else "agrees"
    first = sorted(other, key=lambda delta: not delta.decides)
    return f"differs ({'; '.join(map(str, first)) or 'nothing that is known explains it'})"


def _disagreeing() -> dict[tuple[Any, ...], str]:
    """What papers print that disagree on a cell, by `_cell` of its numbers."""
    groups = disagreements().fillna({"guidance": 0.0}).groupby(["model", "method", "calls", "metric", "guidance"])
    return {key: f"papers disagree: {printed(cell)}; likely: {cell['reason'].iloc[0]}" for key, cell in groups}


def _cell(one: Record) -> tuple[Any, ...]:
    where = one["model"] or f"{one['dataset']} {one['resolution']} {one['checkpoint']}"
    return where, one["method"], one["nfe"] if pd.isna(one["calls"]) else one["calls"], one["metric"], _weight(one)


def _weight(one: Record) -> float:
    return 0.0 if math.isnan(one["guidance"]) else float(one["guidance"])


def _counted(told: Sequence[tuple[Record, str]]) -> list[tuple[str, int]]:
    """The reasons for which numbers cannot be run, the commonest first; what is named behind a colon stays together."""
    reasons = [reason.partition(": ") for _, reason in told if reason]
    found = []
    for head, count in Counter(head for head, _, _ in reasons).most_common():
        named = Counter(rest for first, _, rest in reasons if first == head and rest).most_common()
        found.append((head + (f" ({', '.join(f'{name} {n}' for name, n in named)})" if named else ""), count))
    return found


def _sheet(lines: list[dict[str, Any]], notes: list[str]) -> Sheet:
    data = pd.DataFrame(lines)
    hidden = [name for name in ("source", "others", "low", "high", "protocol") if name in data]
    shown, letters = data.drop(columns=hidden), Footnotes()
    frame = plain(shown).frame
    for at, name in enumerate(shown):
        if name in ("measured", "published", "difference"):
            column = [_entry(name, entry, line, letters) for entry, line in zip(frame.iloc[:, at], lines, strict=True)]
            frame.isetitem(at, column)
    notes_of_all = tuple(("", note) for note in notes)
    return Sheet(frame, data, notes=(*letters.texts, *notes_of_all), settings=("paper", "model", "metric"))


def _entry(name: str, entry: Entry, line: Record, letters: Footnotes) -> Entry:
    """A number with its sources, or with its interval."""
    if name == "published":
        return letters.on(entry, filter(None, (line["source"], line["others"])))
    digits = metric_of(line["metric"]).digits
    half = max(line["measured"] - line["low"], line["high"] - line["measured"])
    return Entry(f"{line[name]:.{digits}f}", "" if name == "difference" or math.isnan(half) else f"{half:.{digits}f}")
