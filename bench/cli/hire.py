"""How `bench` is told of workers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand

if TYPE_CHECKING:
    from fastsample.bench.jobs.dispatch import Crew
    from fastsample.bench.jobs.messages import Order

__all__ = ["RayWord", "hire"]


class RayWord(TyperCommand):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """`--ray` without an address is `--ray auto`."""
        given = [
            f"{word}=auto" if word == "--ray" and (not after or after.startswith("-")) else word
            for word, after in zip_longest(args, args[1:])
        ]
        return super().parse_args(ctx, given)


def hire(workers: int | None, ray: str | None) -> Callable[[Order], Crew] | None:
    """What starts workers; None for this process alone."""
    if ray:
        from fastsample.bench.on_ray import OnRay

        return partial(OnRay, address=ray, count=workers)
    if workers:
        from fastsample.bench.local import Processes

        return partial(Processes, count=workers)
    return None
