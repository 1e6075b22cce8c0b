"""Sweeps of several workers: what they end with, and who is at work."""

import hashlib
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from fastsample.results.store import Store

# A metric of an own file, which logs each part of a cell that is measured and may end the process that does it.
OWN = """
import os
import time
from pathlib import Path

from fastsample.bench.metrics.measure import Measure, measures
from fastsample.results.metrics import Metric, add_metric

add_metric(Metric("logged", "root mean square of x", digits=4, needs="images", decided_by=(), mean=True))


@measures("logged")
class Logged(Measure):
    def per_sample(self, batch):
        with Path(os.environ["LOG"]).open("a") as stream:
            stream.write(f"{batch.cell.group} {batch.indices[0]} {batch.cell}\\n")
        if str(batch.cell) == os.environ.get("FATAL"):
            os._exit(3)
        time.sleep(float(os.environ.get("SLOW", 0)))
        return {"logged": batch.x.double().square().flatten(1).mean(1).sqrt().cpu().numpy()}
"""


def numbers(folder):
    """All that is not time, with the bytes of the arrays."""
    return {
        row.cell: (row.model_dump(exclude={"seconds", "created"}), hashlib.sha256(arrays.read_bytes()).hexdigest())
        for row in Store(folder, create=False).rows()
        if (arrays := folder / "per_sample" / f"{row.cell}.npz")
    }


class Sweep:
    """Commands of one sweep in a folder with the own metric."""

    def __init__(self, folder, home, *words):
        self.folder, self.home, self.words = folder, home, [*map(str, words)]
        (folder / "own.py").write_text(OWN, "utf-8")

    def start(self, store, *words, **environment):
        """The command, just begun."""
        code = "import sys, own; from fastsample.bench.cli.app import main; main()"
        words = [sys.executable, "-c", code, "bench", *self.words, "--out", str(store), *map(str, words)]
        given = {"FASTSAMPLE_HOME": str(self.home), "LOG": str(self.log), "OMP_NUM_THREADS": "1"}
        given |= {"RAY_USAGE_STATS_ENABLED": "0", "COLUMNS": "200"} | environment
        return subprocess.Popen(
            words, cwd=self.folder, env=os.environ | given, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def run(self, store, *words, code=0, **environment):
        """The command, ended; what it printed."""
        with self.start(store, *words, **environment) as process:
            out, err = process.communicate(timeout=300)
        assert process.returncode == code, out + err
        return out + err

    @property
    def log(self):
        return self.folder / "log"

    @property
    def measured(self):
        """How often each "group first-sample cell" was measured."""
        return Counter(self.log.read_text("utf-8").splitlines() if self.log.exists() else [])


def children(pid, word="station"):
    """The processes of a driver that have a word in their command line."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            if parent == pid and word in (stat.parent / "cmdline").read_text():
                found.append(int(stat.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def alive(pid):
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(condition, seconds=120):
    """Wait for something to be true; it, or what it is at the end."""
    begin = time.monotonic()
    while not (found := condition()) and time.monotonic() < begin + seconds:
        time.sleep(0.02)
    return found
