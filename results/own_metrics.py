"""Metrics of a user's own: a row tells what a table must know of them, and nothing of them is run to read it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from fastsample.results.metrics import METRICS, Metric

__all__ = ["OWN", "own_metric", "remember"]

OWN = "metric[{}]"  # of a row's protocol: the file of a metric of a user's own, its hash and its facts


def own_metric(name: str, **facts: Any) -> Metric:
    """A metric of a user's own, with what is said of it."""
    solution = ("psnr reference",) if facts.get("needs") == "solution" else ()
    return Metric(name, "a metric of one's own", decided_by=(OWN.format(name), *solution), **facts)


def remember(protocol: Mapping[str, str]) -> None:
    """Know the metrics of a user's own that a row has, as it tells them; nothing of them is run."""
    for field, told in protocol.items():
        name, facts = field.removeprefix("metric[")[:-1], re.search(r" (\{.*\})$", told)
        if field == OWN.format(name) and name not in METRICS and facts:
            said = json.loads(facts[1])
            METRICS[name] = own_metric(
                name, **{key: said[key] for key in _SAID if isinstance(said.get(key), _SAID[key])}
            )


_SAID = {"title": str, "unit": str, "higher": bool, "digits": int, "needs": str}
