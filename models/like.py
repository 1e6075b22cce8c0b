"""Tables of TOML files that take over from each other: `like = "NAME"`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import inf
from typing import Any

__all__ = ["resolved"]

Tables = Mapping[str, Mapping[str, Any]]


def resolved(
    name: str, tables: Tables, missing: str, *, depth: float = inf, own: Collection[str] = ()
) -> dict[str, Any]:
    """The table of that name with all that it takes over.

    Args:
        missing: what is said of a name in `like` that no table has, with {} for it.
        depth: tables in tables down to here are changed value by value, unless the two differ in `kind`; deeper
            ones are replaced.
        own: keys that are never taken over.

    Raises:
        ValueError: for a `like` that no table has, or that goes in a circle.
    """
    chain = [name]
    while "like" in tables[chain[-1]]:
        like = tables[chain[-1]]["like"]
        if like not in [*tables] or like in chain:  # a list, for `like` may be anything
            raise ValueError(f"`like`: {like!r} goes in a circle" if like in chain else missing.format(repr(like)))
        chain.append(like)
    found: dict[str, Any] = {}
    for one in reversed(chain):
        found = _changed({key: value for key, value in found.items() if key not in own}, tables[one], depth)
    return {key: value for key, value in found.items() if key != "like"}


def _changed(base: Mapping[str, Any], changes: Mapping[str, Any], depth: float) -> dict[str, Any]:
    both = {key for key in changes if isinstance(base.get(key), dict) and isinstance(changes[key], dict)}
    same = {key for key in both if changes[key].get("kind", base[key].get("kind")) == base[key].get("kind")}
    return {**base, **changes, **{key: _changed(base[key], changes[key], depth - 1) for key in same if depth}}
