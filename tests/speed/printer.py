"""Lines of the page docs/speed.md, and the machine that they were measured on."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import torch

__all__ = ["Line", "page", "seconds"]


class Line(NamedTuple):
    """A measurement beside its anchor of the same run, both in CPU seconds.

    Attributes:
        what, anchor: in words.
        ours, theirs: seconds.
        wanted: what the ratio theirs / ours should reach, or the seconds that ours should keep to; in words.
    """

    what: str
    ours: float
    anchor: str
    theirs: float
    wanted: str = ""

    def __str__(self) -> str:
        ratio = f"{self.theirs / self.ours:.2f}"
        return (
            f"| {self.what} | {_short(self.ours)} | {self.anchor} | {_short(self.theirs)} | {ratio} | {self.wanted} |"
        )


def seconds(job: Callable[[], object], repeats: int = 5) -> float:
    """Median of the CPU seconds of a job; the first call, which warms up, does not count where there are others."""
    if repeats > 1:
        job()
    found = []
    for _ in range(repeats):
        begin = time.process_time()
        job()
        found.append(time.process_time() - begin)
    return statistics.median(found)


def page(lines: Iterable[Line]) -> str:
    """The page, in Markdown."""
    model = next((line.split(":")[1].strip() for line in _cpu() if line.startswith("model name")), "unknown")
    table = "\n".join(map(str, lines))
    return f"""# Speed

Written by `make speed`. CPU seconds (user and system), medians; each line has its anchor from the same run. `ratio` is
the anchor's time over fastsample's.

Machine: {model}, {os.cpu_count()} cores, {torch.get_num_threads()} thread of torch, torch {torch.__version__}.
GPU: not measured.

| what | fastsample | anchor | anchor's | ratio | wanted |
|---|---|---|---|---|---|
{table}
"""


def _cpu() -> list[str]:
    file = Path("/proc/cpuinfo")
    return file.read_text("utf-8").splitlines() if file.is_file() else []


def _short(value: float) -> str:
    return f"{value:.2f} s" if value >= 0.1 else f"{1e3 * value:.3f} ms"
