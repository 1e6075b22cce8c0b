"""What a shell offers for options whose values are names: the last one of a list, as it is typed."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterable
from importlib.resources import files

__all__ = ["datasets", "grids", "metrics", "models", "solvers"]


def _last(names: Callable[[], Iterable[str]], ends: str = ",") -> Callable[[str], list[str]]:
    """Completes what stands behind the last comma, or another sign that ends a name."""

    def completed(incomplete: str) -> list[str]:
        place = max(incomplete.rfind(sign) for sign in ends) + 1
        return [incomplete[:place] + name for name in names() if name.startswith(incomplete[place:])]

    return completed


def _models() -> list[str]:
    """Read off the files of the package: without torch, which takes seconds."""
    room = files("fastsample.models")
    embedded = json.loads((room / "embedded" / "index.json").read_text("utf-8"))
    public = [
        tomllib.loads(card.read_text("utf-8")) for card in (room / "cards").iterdir() if card.name.endswith(".toml")
    ]
    exact = ["gmm2d", "gmm2d-flow", "gmm2d-flow-mean", "gmm-image"]
    return (
        [name for name, facts in embedded.items() if facts["kind"] == "denoiser"]
        + exact
        + [name for table in public for name in table]
    )


def _solvers() -> list[str]:
    from fastsample.solvers.learned.kinds import LEARNED
    from fastsample.solvers.solver import solvers as registered

    return [*map(str, registered()), *LEARNED]


def _grids() -> list[str]:
    from fastsample.solvers.grids import FOUND, GRIDS

    return [*GRIDS, *FOUND]


def _metrics() -> list[str]:
    from fastsample.results.metrics import METRICS

    return list(METRICS)


def _datasets() -> list[str]:
    from fastsample.datasets.images import dataset_names
    from fastsample.datasets.points import POINTS

    return [*dataset_names(), *POINTS]


models, grids, metrics, datasets = map(_last, (_models, _grids, _metrics, _datasets))


def solvers(incomplete: str) -> list[str]:
    """Solvers, and behind an @ grids; options are typed."""
    last = incomplete.rpartition(",")[2]
    return _last(_grids, "@")(incomplete) if "@" in last else _last(_solvers)(incomplete)
