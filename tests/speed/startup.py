"""How long a command takes before it has something to do, beside the import of torch."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from printer import Line

__all__ = ["lines"]

_SCRIPT = Path(__file__).parents[1] / "first_call.py"
_TORCH = "import os, torch; t = os.times(); print('{\"seconds\": %f}' % (t.user + t.system))"


def lines() -> Iterator[Line]:
    """`--help`, `list solvers`, and `bench` to its first network call."""
    torch = _median("-c", _TORCH)
    with tempfile.TemporaryDirectory() as folder:
        bench = ("bench", "--solver", "euler", "--nfe", "2", "--samples", "2", "--metrics", "psnr", "--out", folder)
        for words, wanted in ((("--help",), ""), (("list", "solvers"), "1 s"), (bench, "2.5 s")):
            what = f"`fastsample {' '.join(words[:2])}`" if words is not bench else "`bench --metrics psnr`, first call"
            yield Line(what, _median(str(_SCRIPT), "[]", *words), "`import torch`", torch, wanted)


def _median(*words: str) -> float:
    def once() -> float:
        ended = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True)
        return float(json.loads(ended.stdout.splitlines()[-1])["seconds"])

    once()  # files of the page cache, compiled modules
    return statistics.median(once() for _ in range(5))
