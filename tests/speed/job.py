"""The job: what it costs beside the network, and what shared evaluations save."""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from printer import Line
from rich.console import Console

from fastsample.bench.cells import plan_cells
from fastsample.bench.request import Request, read_request
from fastsample.bench.sweep import run_sweep
from fastsample.bench.timing import TimedNetwork
from fastsample.bench.tree import Tree

__all__ = ["lines"]

_README = dict(
    model="cifar10-tiny-flow", solver=("scire", "dpmpp-2m", "unipc", "deis", "ipndm", "flow-solver", "ddim", "heun"),
    nfe=(5, 6, 8, 10, 12, 15, 20),
)  # fmt: skip
_SEARCH = Path(__file__).parents[2] / "docs" / "search.toml"


def lines() -> Iterator[Line]:
    """Wall clock of sweeps with their reference solutions at hand, and evaluations as if each took a second."""
    for metrics in (("psnr",), ("psnr", "fd")):
        whole, network = _beside(model="cifar10-tiny-vp", solver="scire", nfe=10, samples=128, metrics=metrics)
        yield Line(f"bench, NFE 10, {' and '.join(metrics)}", whole, "its network alone", network, "ratio 0.98")
    for what, request in (("the README's sweep", Request(**_README)), ("docs/search.toml", read_request(_SEARCH))):
        cells, _ = plan_cells(request, ())
        groups = {cell.group: [one for one in cells if one.group == cell.group] for cell in cells}
        made = sum(len(Tree([one.rows for one in group], torch.float32).times) for group in groups.values())
        needed = sum(cell.rows.nfe for cell in cells)
        yield Line(f"evaluations of {what}", made, "cell by cell", needed)
    few = _README | {"nfe": (5, 8), "samples": 32, "metrics": ("psnr",)}
    together, _ = _beside(**few)
    alone = sum(_beside(**few | {"solver": s, "nfe": n})[0] for s in few["solver"] for n in few["nfe"])
    yield Line("8 solvers at NFE 5 and 8", together, "cell by cell", alone)


def _beside(**asked: object) -> tuple[float, float]:
    """Wall clock of a sweep from its first call on, and of its network calls."""
    seconds, forward, first = 0.0, TimedNetwork.forward, 0.0

    def timed(self: TimedNetwork, *given: object) -> object:
        nonlocal seconds, first
        begin = time.perf_counter()
        first = first or begin
        out = forward(self, *given)
        seconds += time.perf_counter() - begin
        return out

    with tempfile.TemporaryDirectory() as folder:
        run_sweep(Request(**asked, seed=1, out=Path(folder) / "solved"), Console(file=io.StringIO()))
        TimedNetwork.forward = timed
        try:
            run_sweep(Request(**asked, seed=1, out=Path(folder) / "timed"), Console(file=io.StringIO()))
            return time.perf_counter() - first, seconds
        finally:
            TimedNetwork.forward = forward
