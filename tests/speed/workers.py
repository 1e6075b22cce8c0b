"""Two workers against one: wall clock of a sweep of 8 cells on a CPU, one thread each. Takes some minutes.

    python tests/speed/workers.py

Each command is run with the reference solutions in the cache. It prints the ratio, which should be at most 0.65.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_SWEEP = (
    "bench", "--model", "cifar10-tiny-vp", "--solver", "euler,heun,scire,unipc", "--nfe", "10,20", "--samples", "256",
    "--metrics", "psnr", "--reference-steps", "20", "--device", "cpu",
)  # fmt: skip


def seconds(home: Path, *words: str) -> float:
    """Wall clock of the sweep into a new store."""
    with tempfile.TemporaryDirectory() as store:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "FASTSAMPLE_HOME": str(home)}
        begin = time.monotonic()
        command = [sys.executable, "-m", "fastsample", *_SWEEP, "--out", store, *words]
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        return time.monotonic() - begin


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        seconds(Path(folder), "--nfe", "1", "--solver", "euler", "--samples", "256")  # solves the references
        one, two = (seconds(Path(folder), *words) for words in ((), ("--workers", "2")))
    print(f"one process {one:.1f} s, two workers {two:.1f} s, ratio {two / one:.2f}")
