"""Samplers walked together: a tree of their coefficient tables, in which equal rows are one evaluation.

A fixed-grid sampler is a table in x0 (`solvers.table`): row i says at which point and time the model is asked, as a
combination of the starting noise and of the earlier answers. Samplers that begin with equal rows share these
evaluations, as all do the first one, and part where their rows differ. Rows are equal if their times agree to 12 digits
and their coefficients after rounding to the state's dtype; a sampler alone plays the same rounded numbers, so what is
shared and what is not are the same arithmetic, bit for bit. The tree is walked depth first: there are as many states as
the longest sampler has evaluations, and two, however many samplers there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from fastsample.models.denoiser import Denoiser
from fastsample.solvers.table import Table

__all__ = ["Leaf", "Tree", "Walk"]

_DIGITS = 12  # of times: equal ones of two solvers differ in the last of 16, different ones in the 9th at the latest
_Key = tuple[float, bytes, bytes]


@dataclass
class _Row:
    """One row of tables: the point is `row` times (x, f_0, f_1, ...) and `noise` times (z_0, z_1, ...)."""

    row: np.ndarray
    noise: np.ndarray


@dataclass
class _Node(_Row):
    """A point at which the model is asked, at time t; with what follows on the answer."""

    t: float
    depth: int
    nodes: dict[_Key, _Node] = field(default_factory=dict)
    leaves: dict[_Key, Leaf] = field(default_factory=dict)

    def below(self) -> Iterator[Leaf]:
        """The results that need its answer."""
        yield from self.leaves.values()
        for node in self.nodes.values():
            yield from node.below()


@dataclass
class Leaf(_Row):
    """The result of samplers of one table; `cells` are their places among the tables of the tree."""

    cells: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Walk:
    """The evaluations that led to a result, on the model's path.

    Attributes:
        points: (t, x [batch, ...]) of each, in order.
        first: the data prediction of the first; None where alpha is 0.
    """

    points: list[tuple[float, torch.Tensor]]
    first: torch.Tensor | None


_Found = tuple[Leaf, torch.Tensor | Exception, Walk | None]


class Tree:
    """The tables of samplers of one model, started from the same noise.

    Args:
        tables: in x0.
        dtype: of the state, to which coefficients are rounded.
    """

    def __init__(self, tables: Sequence[Table], dtype: torch.dtype) -> None:
        self.dtype, self._kind = dtype, np.float64 if dtype == torch.float64 else np.float32
        self._roots: dict[_Key, _Node] = {}
        self._depth, self.times = 0, list[float]()  # times: of each evaluation that is made
        for place, table in enumerate(tables):
            self._add(place, table)

    def _add(self, place: int, table: Table) -> None:
        nodes, node = self._roots, None
        for i in range(table.nfe + 1):
            row = np.r_[table.a[i], table.b[i, :i]].astype(self._kind) + 0  # of zero there is one
            noise = np.trim_zeros(table.w[i].astype(self._kind), "b") + 0
            t = float(f"{table.times[i]:.{_DIGITS}g}") if i < table.nfe else 0.0
            key = t, row.tobytes(), noise.tobytes()
            if i == table.nfe:
                assert node
                node.leaves.setdefault(key, Leaf(row, noise)).cells.append(place)
            else:
                if key not in nodes:
                    nodes[key] = _Node(row, noise, t, i)
                    self.times.append(t)
                node = nodes[key]
                nodes = node.nodes
        self._depth = max(self._depth, table.nfe)

    @property
    def leaves(self) -> list[Leaf]:
        """The results, in the order in which a walk reaches them; those of one table are one."""
        return [leaf for node in self._roots.values() for leaf in node.below()]

    def walk(
        self,
        denoiser: Denoiser,
        x: torch.Tensor,
        noise: Callable[[int], torch.Tensor],
        *,
        recorded: bool = False,
        fatal: Callable[[Exception], bool] = lambda _: False,
    ) -> Iterator[_Found]:
        """Each leaf with its result [batch, ...] on the model's path, or with what was raised on the way to it.

        Args:
            denoiser: of the batch.
            x: the state at t_noise.
            noise: standard normal noise of step k of stochastic samplers.
            recorded: also give the evaluations that led to each result.
            fatal: which exceptions end the walk.
        """
        walker = _Walker(denoiser, x, noise, recorded, fatal, self._depth)
        for root in self._roots.values():
            yield from walker.below(root, Walk([], None))


class _Walker:
    """A walk: x and the answers on the way to where it is. It refers to nothing that refers to it, so that what it
    holds of a device is let go of at once."""

    def __init__(
        self,
        denoiser: Denoiser,
        x: torch.Tensor,
        noise: Callable[[int], torch.Tensor],
        recorded: bool,
        fatal: Callable[[Exception], bool],
        depth: int,
    ) -> None:
        self.denoiser, self.x, self.noise, self.recorded, self.fatal = denoiser, x, noise, recorded, fatal
        self.stack = torch.empty(depth + 1, x.numel(), dtype=x.dtype, device=x.device)
        self.stack[0] = x.reshape(-1)

    def point(self, row: _Row) -> torch.Tensor:
        """The combination of a row."""
        coefficients = torch.from_numpy(row.row).to(self.x.device)
        value = torch.mv(self.stack[: len(row.row)].t(), coefficients)
        for k in np.flatnonzero(row.noise):
            value.add_(self.noise(int(k)).reshape(-1), alpha=float(row.noise[k]))
        return value.view_as(self.x)

    def below(self, node: _Node, walk: Walk) -> Iterator[_Found]:
        """The leaves behind a node."""
        try:
            here = self.point(node)
            self.stack[node.depth + 1] = self.denoiser.x0(here, node.t).reshape(-1)
        except Exception as error:
            if self.fatal(error):
                raise
            yield from ((leaf, error, None) for leaf in node.below())
            return
        if self.recorded:
            known = not node.depth and self.denoiser.path.alpha(node.t) > 0
            walk = Walk([*walk.points, (node.t, here)], self.stack[1].view_as(here).clone() if known else walk.first)
        for leaf in node.leaves.values():
            yield leaf, self.point(leaf), walk if self.recorded else None
        for child in node.nodes.values():
            yield from self.below(child, walk)
