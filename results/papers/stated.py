"""The protocol under which a published number was made, as far as it is stated, and how a measured row's differs."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from fastsample.datasets.levels import UINT8_RULES
from fastsample.results.metrics import INCEPTION, extractor_of, metric_of

__all__ = ["MEANINGS", "Delta", "Stated", "Suite", "bare", "deltas", "kind_of", "nfe_words", "stated"]

MEANINGS = {
    "calls": "evaluations of the (guided) denoiser",
    "steps": "steps of the solver, which makes more calls, or twice as many forwards",
    "nominal": "an upper bound, or an average of an adaptive solver",
    "depth": "evaluations in sequence: parallel ones count as one",
}  # of a printed NFE
_USUAL = 50_000  # samples of an FID whose number is not stated
_LEAST = {"2206.00364", "2312.02696", "2406.02507"}  # EDM, EDM2, autoguidance: FID three times, the least is reported
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e-?\d+)?")
# What tells a publisher's statistics: in a paper's protocol, and at the head of an id of datasets/references.toml.
_PUBLISHERS = {"EDM2": "edm2-", "EDM": "edm-", "guided-diffusion": "adm-", "ADM": "adm-", "Score-SDE": "score-sde-"}


@dataclass(frozen=True)
class Suite:
    """What the registries know of models and solvers, which results cannot ask.

    Attributes:
        same: the complete form of `name:option=value,...`, by which two solvers are known to be the same.
        interval: the usual first and last time of a model's path, None where they are not known.
        t_of_nsr: the time at which a model's path has a noise-to-signal ratio.
        reference: the id of a model's published statistics, "" for none.
        labelled: whether a model takes classes.
        guides: the models that guide a model, as its card says.
        refusal: why `bench` could not run a model with a solver, on a grid ("" for its own), at a number of calls; ""
            if it can.
    """

    same: Callable[[str], str]
    interval: Callable[[str], tuple[float, float] | None]
    t_of_nsr: Callable[[str, float], float]
    reference: Callable[[str], str]
    labelled: Callable[[str], bool]
    guides: Callable[[str], Collection[str]]
    refusal: Callable[[str, str, str, int], str]


@dataclass(frozen=True)
class Stated:
    """What is stated of how a number was made.

    Attributes:
        samples: 50,000 where no number is stated.
        uint8: `round` or `floor`; "" where that is not stated, as below.
        threshold: the quantile of dynamic thresholding, None for none.
        t_end: the times at which sampling ends, as printed; several where it is not stated which.
        statistics: code of the metric and reference set.
        least: the least of several runs is reported.
    """

    samples: int
    uint8: str
    threshold: float | None
    t_end: tuple[str, ...]
    statistics: str
    least: bool

    def options(self, interval: tuple[float, float] | None) -> list[str]:
        """The words for `bench` that set what it does not do by default; `interval` is the model's usual one."""
        words = ["--uint8", self.uint8] if self.uint8 == "floor" else []
        words += ["--threshold", f"{self.threshold:g}"] if self.threshold else []
        usual = (0, interval[1]) if interval else (0,)  # 0 is the end of denoise=true
        other = len(self.t_end) == 1 and float(self.t_end[0]) not in usual
        return words + (["--t-end", self.t_end[0]] if other else [])


def stated(number: Mapping[Any, Any]) -> Stated:
    """Read the `protocol` of a published number (fields `name=value; ...`) and what else tells of it."""
    parts = [part.strip() for part in number["protocol"].split(";")]
    fields = dict(part.split("=", 1) for part in parts if "=" in part)
    quantile = re.search(r"quantile ([\d.]+)", fields.get("thresholded", ""))
    code = [
        part.removeprefix("fid=") for part in parts if re.match("fid=|[^=]*(reference|fid|evaluator|statistics)", part)
    ]
    return Stated(
        samples=int(fields.get("samples", _USUAL) if pd.isna(number["samples"]) else number["samples"]),
        uint8=fields.get("uint8", ""),
        threshold=float(quantile[1]) if quantile else None,
        t_end=tuple(_NUMBER.findall(re.sub(r"\(.*?\)", "", fields.get("t_end", "")))),
        statistics="; ".join(code),
        least=number["paper"] in _LEAST or "a minimum is reported" in number["note"],
    )


class Delta(NamedTuple):
    """A field in which the protocol of a published number and that of a measured one differ.

    With `decides` the two are not to be compared; without it the field may explain a small difference.
    """

    field: str
    there: str
    here: str
    decides: bool

    def __str__(self) -> str:
        return f"{self.field} {self.there}" + (f", here {self.here}" if self.here else "")


def deltas(number: Mapping[Any, Any], row: Mapping[Any, Any], suite: Suite) -> list[Delta]:
    """Where a published number was made otherwise than a measured row, as far as its source tells.

    Args:
        number: of `results.published.published`.
        row: of `results.row.frame_of`, with `metric` the full name of the one that is compared; or {} for what `bench`
            does by default.
        suite: what the registries know.
    """
    told, images = stated(number), metric_of(number["metric"]).needs == "features"
    found = []
    if number["nfe_meaning"] not in ("", "calls"):
        found.append(Delta("NFE", nfe_words(number), "calls", True))
    if number["quoted_from"]:
        found.append(Delta("source", f"quoted from {number['quoted_from']}", "", True))
    if row and row["samples"] != told.samples:
        found.append(Delta("samples", f"{told.samples:,}", f"{row['samples']:,}", True))
    if told.uint8 not in ("", rule := _rule(row)) and images:
        found.append(Delta("uint8", told.uint8, rule, True))
    if (threshold := _given(row, "threshold")) != told.threshold:
        found.append(Delta("threshold", _quantile(told.threshold), _quantile(threshold), True))
    found += _of_interval(number, told, row, suite)
    found += _of_guidance(number, row, suite) if row else []
    if (most := _given(row, "threshold_max")) is not None:
        found.append(Delta("threshold_max", "none", f"{most:g}", True))
    here = _told(row, f"protocol.reference[{extractor_of(row['metric'])}]") if row else suite.reference(number["model"])
    if row and images and here and bare(number["dataset"]) not in bare(here):
        found.append(Delta("reference", f"of {number['dataset']}", here, True))
    if told.statistics and images and not _of_one_publisher(told.statistics, here):
        found.append(Delta("statistics", told.statistics, here, False))
    if told.least:
        found.append(Delta("runs", "least of three", "one", False))
    if (precision := _told(row, "precision")) in ("tf32", "bf16", "fp16"):
        found.append(Delta("precision", "not stated", precision, False))
    return found


def _of_guidance(number: Mapping[Any, Any], row: Mapping[Any, Any], suite: Suite) -> list[Delta]:
    """The guide, where guidance acts, and classes that are not drawn, which no number here has."""
    _, _, there = number["checkpoint"].partition("guided by ")
    here = _told(row, "guide")
    found = []
    if here not in (suite.guides(number["model"]) if there else ("",)):
        found.append(Delta("guide", there or "none", here or "none", True))
    for name in ("guidance_low", "guidance_high"):
        if (end := _given(row, name)) is not None:
            found.append(Delta(name, "none", f"{end:g}", True))
    if (labels := _told(row, "labels")) not in ("", "random"):
        found.append(Delta("labels", "not stated", labels, True))
    return found


def _of_interval(number: Mapping[Any, Any], told: Stated, row: Mapping[Any, Any], suite: Suite) -> list[Delta]:
    model, usual = number["model"], suite.interval(number["model"])
    if usual is None:
        return [Delta("t_end", " or ".join(told.t_end), "not known", True)] if told.t_end else []
    first, last = usual
    if (sigma := _given(row, "sigma_max")) is not None:
        first = suite.t_of_nsr(model, sigma)
    if (sigma := _given(row, "sigma_min")) is not None:
        last = suite.t_of_nsr(model, sigma)
    if (t_end := _given(row, "t_end")) is not None:
        last = t_end
    found = [] if math.isclose(first, usual[0]) else [Delta("start", "not stated", f"{first:g}", True)]
    if not _ends(told.t_end or (str(usual[1]),), last, number["fastsample_solver"]):
        found.append(Delta("t_end", " or ".join(told.t_end) or "not stated", f"{last:g}", True))
    return found


def nfe_words(number: Mapping[Any, Any]) -> str:
    """The printed NFE, with what it counts and the calls that it stands for where these are not calls."""
    meaning, calls = number["nfe_meaning"], number["calls"]
    if meaning in ("", "calls"):
        return str(number["nfe_text"])
    other = "" if pd.isna(calls) or calls == number["nfe"] else f", {calls} calls"
    return f"{number['nfe_text']} ({meaning}{other})"


def kind_of(metric: str) -> str:
    """What papers call a full name: its kind, with the extractor where that is not the one of papers."""
    facts = metric_of(metric)
    return facts.kind if extractor_of(metric) in ("", INCEPTION) else metric.partition("@")[0]


def _rule(row: Mapping[Any, Any]) -> str:
    """The name of a row's uint8 rule; rows that do not tell it are of versions that had one."""
    return "round" if _told(row, "protocol.uint8") in ("", UINT8_RULES["round"]) else "floor"


def bare(text: str) -> str:
    """A name without case, spaces, hyphens and underscores."""
    return re.sub(r"[\s_-]", "", text.lower())


def _told(row: Mapping[Any, Any], name: str) -> str:
    value = row.get(name, "")
    return "" if pd.isna(value) else str(value)


def _given(row: Mapping[Any, Any], name: str) -> float | None:
    value = row.get(name)
    return None if value is None or math.isnan(value) else float(value)


def _quantile(value: float | None) -> str:
    return f"quantile {value:g}" if value else "none"


def _ends(there: tuple[str, ...], here: float, solver: str) -> bool:
    if [float(text) for text in there] == [0.0]:  # reached by a last data prediction
        return "denoise=true" in solver
    return len(there) == 1 and math.isclose(float(there[0]), here)


def _of_one_publisher(there: str, here: str) -> bool:
    head = next((head for name, head in _PUBLISHERS.items() if name in there), None)
    return head is not None and here.startswith(head) and "tfgan" not in there
