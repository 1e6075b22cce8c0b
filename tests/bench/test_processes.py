"""Several processes on one store, with equal process ids as in containers, and killed ones."""

import hashlib
import os
import random
import subprocess
import sys
import textwrap
import time

import pandas as pd
import pytest

from fastsample.results.store import Store

WORDS = ["bench", "--model", "gmm2d", "--metrics", "psnr", "--samples", "300", "--seed", "3", "--out"]
SWEEP = ["--solver", "ddim,heun", "--nfe", "4,6"]
FORKS = textwrap.dedent("""
    import os, sys
    from fastsample.bench.cli.app import main
    from fastsample.bench import sweep  # what a command imports
    os.getpid = lambda: 7
    children = []
    for _ in range(int(sys.argv.pop(1))):
        child = os.fork()
        if not child:
            code = 1
            try:
                main()
            except SystemExit as end:
                code = end.code or 0
            finally:
                sys.stdout.flush()
                os._exit(code)
        children.append(child)
    print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children], file=sys.stderr)
""")


def command(*words, count=1):
    return [sys.executable, "-c", FORKS, str(count), *map(str, words)]


def numbers(folder):
    """All that is not time, with the bytes of the arrays."""
    return {
        row.cell: (row.model_dump(exclude={"seconds", "created"}), hashlib.sha256(arrays.read_bytes()).hexdigest())
        for row in Store(folder, create=False).rows()
        if (arrays := folder / "per_sample" / f"{row.cell}.npz")
    }


def is_clean(folder):
    left = [*folder.rglob("*.part"), *(folder / "partial").iterdir(), *folder.glob("damaged/*")]
    return not left and len(pd.read_csv(folder / "rows.csv")) == len(pd.read_parquet(folder / "rows.parquet"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The store of one process."""
    folder = tmp_path_factory.mktemp("alone")
    environment = os.environ | {"FASTSAMPLE_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    subprocess.run(command(*WORDS, folder / "store", *SWEEP), env=environment, check=True, capture_output=True)
    return folder / "store"


@pytest.fixture
def environment(tmp_path):
    return os.environ | {"FASTSAMPLE_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("count", [pytest.param(2, marks=pytest.mark.slow), 3, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_on_one_store_end_with_the_numbers_of_one(count, alone, environment, tmp_path):
    words = command(*WORDS, tmp_path / "store", *SWEEP, count=count)
    told = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert str([0] * count) in told.stderr.splitlines(), told.stdout
    assert numbers(tmp_path / "store") == numbers(alone)
    assert is_clean(tmp_path / "store")
    assert len(pd.read_csv(tmp_path / "store" / "rows.csv")) == 4


def test_kills_at_any_moment_leave_a_store_that_goes_on(alone, environment, tmp_path):
    """What a killed process left is taken up or swept by the next."""
    draws, store = random.Random(0), tmp_path / "store"
    for _ in range(2):
        words = [sys.executable, "-m", "fastsample.bench", *WORDS, str(store), *SWEEP]
        with subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL) as process:
            begin = time.monotonic()
            while process.poll() is None and not (store / "rows").exists() and time.monotonic() < begin + 60:
                time.sleep(0.01)
            time.sleep(draws.random())
            process.kill()
        found = numbers(store)
        assert found.items() <= numbers(alone).items()
    subprocess.run(command(*WORDS, store, *SWEEP, count=2), env=environment, check=True, capture_output=True)
    assert numbers(store) == numbers(alone)
    assert is_clean(store)
