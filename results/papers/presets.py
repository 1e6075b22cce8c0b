"""Protocols of papers: what `bench --protocol NAME` sets together, as far as the sources tell; `protocols.toml`."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue

__all__ = ["Preset", "Rule", "presets", "protocol_lines"]

_LINES = ("protocol", "papers", "what it sets", "not known, or not met", "source")
_ENDS = ("t_end", "sigma_min", "sigma_max")
_EXPECTED = ("samples", "uint8", "labels", "reference")  # what is said to be unknown where no rule sets it


class Rule(BaseModel):
    """Fields, and the cells that have them: all, or those for which every condition that is given holds.

    Attributes:
        data, size: data set of the model, and width of its images in pixels.
        paths: names of the model's path.
        solvers: names.
        least_nfe, most_nfe: of the budget.
        set: fields of `results.protocol.Protocol`, `samples` and `seeds`.
        note: what cannot be met, or is not known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str = ""
    size: int | None = None
    paths: tuple[str, ...] = ()
    solvers: tuple[str, ...] = ()
    least_nfe: int | None = None
    most_nfe: int | None = None
    set: dict[str, JsonValue] = {}
    note: str = ""

    def holds(self, data: str, size: int, path: str, solver: str, nfe: int) -> bool:
        """Whether it is for such a cell."""
        return (
            self.data in ("", data)
            and self.size in (None, size)
            and (not self.paths or path in self.paths)
            and (not self.solvers or solver in self.solvers)
            and (self.least_nfe or 0) <= nfe <= (self.most_nfe or nfe)
        )

    @property
    def condition(self) -> str:
        """The cells in words; "" for all."""
        size = f" {self.size}" if self.size else ""
        words = [f"{self.data}{size}"] if self.data else []
        words += [f"path {' or '.join(self.paths)}"] if self.paths else []
        words += [", ".join(self.solvers)] if self.solvers else []
        words += [f"NFE to {self.most_nfe}"] if self.most_nfe else []
        words += [f"NFE from {self.least_nfe}"] if self.least_nfe else []
        return "; ".join(words)


class Preset(BaseModel):
    """The protocol of a paper, or of several by one code; `source` says where its fields were read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    papers: tuple[str, ...]
    source: str
    rules: tuple[Rule, ...]

    def fields(self, data: str, size: int, path: str, solver: str, nfe: int) -> tuple[dict[str, JsonValue], list[str]]:
        """What it sets for a cell, and its notes on it."""
        found = [rule for rule in self.rules if rule.holds(data, size, path, solver, nfe)]
        fields = {name: value for rule in found for name, value in rule.set.items()}
        return fields, [rule.note for rule in found if rule.note]

    @property
    def references(self) -> frozenset[str]:
        """Ids of all reference sets that it names."""
        return frozenset(str(rule.set["reference"]) for rule in self.rules if "reference" in rule.set)


@cache
def presets() -> dict[str, Preset]:
    """All protocols by name."""
    text = (Path(__file__).parent / "protocols.toml").read_text("utf-8")
    return {name: Preset.model_validate(facts) for name, facts in tomllib.loads(text).items()}


def protocol_lines() -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """(columns, lines) of all protocols."""
    return _LINES, [_line(name, preset) for name, preset in presets().items()]


def _line(name: str, preset: Preset) -> tuple[str, ...]:
    told = [
        f"{', '.join(f'{field}={value}' for field, value in rule.set.items())}"
        + (f" ({rule.condition})" if rule.condition else "")
        for rule in preset.rules
        if rule.set
    ]
    held = {field for rule in preset.rules for field in rule.set}
    unknown = [field for field in _EXPECTED if field not in held]
    unknown += [] if held & {*_ENDS} else ["ends of the interval"]
    notes = [rule.note + (f" ({rule.condition})" if rule.condition else "") for rule in preset.rules if rule.note]
    missing = ([f"not known: {', '.join(unknown)}"] if unknown else []) + notes
    return name, f"{preset.title} ({', '.join(preset.papers)})", "; ".join(told), "; ".join(missing), preset.source
