"""What a distillation keeps while it runs: the state of each fit and its cost, so that the same command goes on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastsample.datasets.files import json_bytes, read_facts, write_atomically
from fastsample.datasets.home import keep
from fastsample.solvers.learned.fit import Fit

__all__ = ["Cost", "Kept", "finite"]


@dataclass(frozen=True)
class Cost:
    seconds: float = 0.0
    evaluations: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.seconds + other.seconds, self.evaluations + other.evaluations)


def finite(history: Sequence[tuple[int, float, float]]) -> tuple[tuple[int, float | None, float], ...]:
    """With None for the training PSNR that is not measured."""
    return tuple((i, None if np.isnan(a) else a, b) for i, a, b in history)


class Kept:
    """The starting points of a run and the state of each fit on disk, so that the same command goes on after a kill."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.starts: list[str] = []
        self._fits: dict[str, Any] = {}
        if facts := read_facts(file):
            self.starts, self._fits = facts["starts"], facts["fits"]

    def read(self, start: str) -> tuple[Fit | None, Cost]:
        if start not in self._fits:
            return None, Cost()
        facts = self._fits[start]
        arrays = {name: np.array(facts["fit"][name]) for name in ("theta", "best")}
        history = tuple((i, np.nan if a is None else a, b) for i, a, b in facts["fit"]["history"])
        return Fit(**facts["fit"] | arrays | {"history": history}), Cost(**facts["cost"])

    def write(self, start: str, state: Fit, cost: Cost) -> None:
        arrays = {"theta": state.theta.tolist(), "best": state.best.tolist(), "history": finite(state.history)}
        self._fits[start] = {"fit": dataclasses.asdict(state) | arrays, "cost": dataclasses.asdict(cost)}
        facts = {"starts": self.starts, "fits": self._fits}
        keep(self.file, lambda file: write_atomically(file, lambda stream: stream.write(json_bytes(facts))))
