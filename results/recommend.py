"""Which sampler to use: the best of a store's rows under a condition, its lead, and how sure that lead is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from fastsample.results.commands import export_command, sample_command
from fastsample.results.evidence import Comparison
from fastsample.results.layout import Difference
from fastsample.results.metrics import MAIN, metric_of
from fastsample.results.statistics import Interval
from fastsample.results.store import Store

__all__ = ["Candidate", "Recommendation", "number", "recommend", "recommendations", "with_seconds"]


@dataclass(frozen=True)
class Candidate:
    """A sampler at one budget.

    Attributes:
        solver: with its options, as `--solver` takes it; title: as a table calls it.
        grid, nfe: as asked; made: evaluations that it really makes.
        value: of the metric; low, high: its 95 % interval, or None without per-sample data.
        cells: the rows of the store behind it, one for each seed.
        trained_on: of `results.training`; training: what is to be known of it, and whether it has the metric's judge.
    """

    solver: str
    title: str
    grid: str
    nfe: int
    made: int
    value: float
    low: float | None
    high: float | None
    cells: tuple[str, ...]
    trained_on: str = "nothing"
    training: tuple[str, ...] = ()

    def __str__(self) -> str:
        trained = "" if self.trained_on == "nothing" else f" (trained on {self.trained_on})"
        return f"{self.title} on grid {self.grid}, NFE {self.made}{trained}"


@dataclass(frozen=True)
class Recommendation:
    """The sampler to use for a model.

    Attributes:
        model, metric: what was asked; condition: the same in words; samples: that each number is from.
        choice: the sampler to use.
        second: the best other sampler that meets the condition, or None.
        lead: by how much the choice is better than the second, in units of the metric and positive where it is, with
            its paired 95 % interval; None without a second, or without per-sample data.
        tied: samplers that the choice cannot be told from. With a target: of those that need as few evaluations.
        fewest: fewer evaluations win, and the metric only among equals.
        free: where the choice is trained, the best sampler that is not; gain: the lead over it, as `lead` is.
    """

    model: str
    metric: str
    condition: str
    samples: int
    choice: Candidate
    second: Candidate | None
    lead: Interval | None
    tied: tuple[Candidate, ...]
    fewest: bool
    free: Candidate | None = None
    gain: Interval | None = None

    @property
    def unit(self) -> str:
        """Of the metric, with a space before it; "" where it has none."""
        return f" {unit}" if (unit := metric_of(self.metric).unit) else ""

    @property
    def called(self) -> str:
        """The metric in a sentence."""
        return metric_of(self.metric).called(self.metric)

    @property
    def verdict(self) -> str:
        """How the choice compares with the other samplers, in one sentence."""
        other = self.second
        if other is None:
            return "No other sampler of the store meets the condition."
        if self.fewest and other.made > self.choice.made:
            return f"The next, {other}, needs {other.made - self.choice.made} more."
        if self.tied:
            others = "; ".join(map(str, self.tied))
            return f"Level with it (95 %, {self.samples:,} samples): {others}. Any of them will do."
        if self.lead is None:
            behind = number(abs(self.choice.value - other.value))
            return (
                f"The second, {other}, is {behind}{self.unit} behind; without per-sample data nobody knows how surely."
            )
        low, value, high = map(number, (self.lead.low, self.lead.value, self.lead.high))
        sure = f"95 % sure: {low} to {high}; {self.samples:,} samples"
        return f"Better by {value}{self.unit} than the second, {other} ({sure})."

    def __str__(self) -> str:
        said = f"{self.model}, {self.condition}: {self._valued(self.choice)}."
        return " ".join([said, self.verdict, *self.untrained, *self.training])

    def _valued(self, one: Candidate) -> str:
        return f"{one}, {self.called} {self._value(one)}"

    def _value(self, one: Candidate) -> str:
        interval = "" if one.low is None or one.high is None else f" [{number(one.low)}, {number(one.high)}]"
        return f"{number(one.value)}{interval}{self.unit}"

    @property
    def untrained(self) -> list[str]:
        """The best sampler without training, in a sentence, where the choice is trained; with what training gains."""
        if self.free is None:
            return []
        if self.free == self.second and not self.tied:
            return [f"The second is the best without training: {self.called} {self._value(self.free)}."]
        gain = ""
        if self.gain:
            low, value, high = map(number, (self.gain.low, self.gain.value, self.gain.high))
            gain = f": {self.choice.title} gains {value}{self.unit} on it ({low} to {high})"
        return [f"Without training the best is {self._valued(self.free)}{gain}."]

    @property
    def training(self) -> list[str]:
        """Of each trained sampler that it names what that was trained on, in a sentence."""
        named = [self.choice, *(self.tied or [self.second] * (self.second is not None))]
        return [f"{one.title} is {'; '.join(one.training)}." for one in named if one and one.training]


def number(value: float) -> str:
    """A value of a metric with two decimals, or two digits where it is small."""
    return f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}"


def recommend(
    found: pd.DataFrame,
    difference: Difference,
    *,
    budget: int | None = None,
    target: float | None = None,
    max_seconds: float | None = None,
) -> Recommendation:
    """The sampler to use among evidence about one model and one metric.

    Without a target the best value wins. With a target the fewest evaluations win whose whole 95 % interval reaches
    it, so that the target is met and not only met by luck.

    Args:
        found: of `results.layout.evidence`; for `max_seconds` with the column of `with_seconds`.
        difference: first minus second of two rows, with its paired interval.
        budget: evaluations that may be made at most.
        target: value of the metric to reach.
        max_seconds: sampling time of one image at most.

    Raises:
        ValueError: without a condition, or where no row meets it; the message says what comes nearest.
    """
    metric, model = found["metric"].iloc[0], found["model"].iloc[0]
    found = found[~found["stated"]]  # no sampler here makes images from elsewhere
    if found.empty:
        raise ValueError(f"all rows of {model} are of images from elsewhere, which no sampler here makes")
    sign, unit = (1, "at least") if metric_of(metric).higher else (-1, "at most")
    fits, conditions = found, []
    if budget is not None:
        conditions.append(f"at most {budget} evaluations")
        fits = fits[fits["made"] <= budget]
    if max_seconds is not None:
        conditions.append(f"at most {max_seconds:g} s per image")
        fits = fits[fits["seconds"] <= max_seconds]
    if target is not None:
        one = metric_of(metric)
        wanted = f"{one.called(metric)} of {unit} {target:g}" + (f" {one.unit}" if one.unit else "")
        conditions.append(f"{wanted} in the whole of its 95 % interval")
        worst = (fits["low"] if sign > 0 else fits["high"]).fillna(fits["value"])
        fits = fits[sign * worst >= sign * target]
    condition = ", ".join(conditions)
    if not conditions:
        raise ValueError("give a condition: --budget of evaluations, --target-psnr in dB, or --max-seconds of an image")
    if fits.empty:
        raise ValueError(f"no row of {model} has {condition}; {_reach(found, metric, sign)}")
    keys = [*(["made"] if target is not None else []), "worse"]
    order = fits.assign(worse=-sign * fits["value"]).sort_values(keys, kind="stable")
    first, *others = (line for _, line in order.drop_duplicates(["solver", "grid"]).iterrows())
    leads = [_towards(difference(first["cells"], other["cells"], metric), sign) for other in others]
    tied = [
        other for other, lead in zip(others, leads, strict=True)
        if (target is None or other["made"] == first["made"])
        and (not lead.excludes_zero if lead else other["value"] == first["value"])
    ]  # fmt: skip
    spared = [pair for pair in zip(others, leads, strict=True) if pair[0]["trained_on"] == "nothing"]
    free, gain = spared[0] if spared and first["trained_on"] != "nothing" else (None, None)
    return Recommendation(
        model, metric, condition, int(first["samples"]), _candidate(first), _candidate(others[0]) if others else None,
        leads[0] if leads else None, tuple(map(_candidate, tied)), target is not None,
        None if free is None else _candidate(free), gain,
    )  # fmt: skip


def with_seconds(found: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Evidence with the column `seconds`: network and solver time of one image, the mean over seeds.

    Args:
        found: of `results.layout.evidence`.
        rows: of `results.row.frame_of`, that it was made of.

    Raises:
        ValueError: where the rows were timed on several devices.
    """
    rows = rows[rows["cell"].isin(found["cells"].explode())].set_index("cell")
    seconds = (rows["seconds.network"] + rows["seconds.solver"]).replace(0, math.nan) / rows["samples"]
    if rows["device"][seconds.notna()].nunique() > 1:
        raise ValueError(
            f"times of different devices cannot be compared: {' and '.join(sorted(rows['device'].unique()))}; "
            "choose one with --where device=..."
        )
    return found.assign(seconds=[float(seconds[list(cells)].mean()) for cells in found["cells"]])


def _candidate(line: pd.Series) -> Candidate:
    low, high = (None if pd.isna(line[end]) else float(line[end]) for end in ("low", "high"))
    return Candidate(
        line["solver"], line["title"], line["grid"], int(line["nfe"]), int(line["made"]), float(line["value"]),
        low, high, tuple(line["cells"]), line["trained_on"], tuple(line.get("training", ())),
    )  # fmt: skip


def _towards(difference: Interval | None, sign: int) -> Interval | None:
    """The difference as a lead, positive where the first is better."""
    if difference is None or sign > 0:
        return difference
    return Interval(-difference.value, -difference.high, -difference.low, difference.level)


def _reach(found: pd.DataFrame, metric: str, sign: int) -> str:
    """What the rows do reach."""
    best = sign * (sign * found["value"]).max()
    text = f"there are NFE {found['made'].min()} to {found['made'].max()}, {metric} to {number(best)}"
    return text + (f", {found['seconds'].min():.2g} s per image and more" if "seconds" in found else "")


def recommendations(
    store: Store,
    *,
    budget: int | None = None,
    target_psnr: float | None = None,
    max_seconds: float | None = None,
    metric: str = MAIN,
    models: Sequence[str] | None = None,
    where: Sequence[str] | None = None,
) -> list[tuple[Recommendation, list[str]]]:
    """A recommendation for each model, with commands: one that draws its samples, and those that export its table and
    that of the best sampler without training.

    Args:
        budget, max_seconds: as `results.recommend.recommend` takes them.
        target_psnr: PSNR in dB to reach.
        metric: full name, or a kind that stands for one metric.
        models, where: for `results.overview.select`.

    Raises:
        ValueError: as `recommend`; and for a target of PSNR beside another metric, or a kind with several metrics.
    """
    if target_psnr is not None and metric != MAIN:
        raise ValueError(f"--target-psnr is a condition on {MAIN}; it cannot be given with --metric {metric}")
    comparison, given = Comparison(store), []
    rows = comparison.rows(models, None, where)
    found = comparison.evidence(rows, [metric])
    if found["metric"].nunique() > 1:
        raise ValueError(f"{metric} is several metrics here; name one: {', '.join(found['metric'].unique())}")
    found = with_seconds(found, rows) if max_seconds is not None else found
    for _, mine in found.groupby("model", sort=False):
        one = recommend(mine, comparison.difference, budget=budget, target=target_psnr, max_seconds=max_seconds)
        rows_of = [store.row(each.cells[0]) for each in (one.choice, one.free) if each]
        tables = [export_command(row) for row in rows_of if row.tabled]
        given.append((one, [sample_command(rows_of[0]), *tables]))
    return given
