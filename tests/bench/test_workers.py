"""Several workers, killed ones and killed drivers end with the numbers of one process, bit for bit."""

import io
import os
import random
import re
import shutil
import signal
import time
from dataclasses import replace

import pytest
from rich.console import Console

from fastsample.bench.jobs.messages import Ready, Refused, order_of
from fastsample.bench.jobs.station import Station
from fastsample.bench.local import Processes
from fastsample.bench.request import Request
from fastsample.bench.run import Runner
from fastsample.bench.sweep import prepare, run_sweep
from fastsample.results.store import Store

from .working import Sweep, alive, children, numbers, until

SWEEP = (
    "--model", "gmm2d,cifar10-tiny-flow", "--solver", "euler,heun", "--nfe", "4", "--metrics", "psnr,fd,logged",
    "--samples", "40", "--batch-size", "8", "--reference-steps", "20",
)  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def alone(home, tmp_path_factory):
    """The numbers of one process."""
    folder = tmp_path_factory.mktemp("alone")
    Sweep(folder, home, *SWEEP).run(folder / "store")
    return numbers(folder / "store")


@pytest.fixture
def sweep(home, tmp_path):
    return Sweep(tmp_path, home, *SWEEP)


def test_workers_end_with_the_numbers_of_one_process(sweep, alone, tmp_path):
    sweep.run(tmp_path / "store", "--workers", 2)
    assert numbers(tmp_path / "store") == alone
    assert not list((tmp_path / "store" / "partial").iterdir())


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_a_killed_worker_changes_no_number(seed, sweep, alone, tmp_path):
    draws, before = random.Random(seed), sweep.measured.total()
    with sweep.start(tmp_path / "store", "--workers", 2, SLOW="0.02") as driver:
        kill_at = before + draws.randrange(1, 16)
        assert until(lambda: sweep.measured.total() >= kill_at)
        os.kill(draws.choice(children(driver.pid)), signal.SIGKILL)
        out, err = driver.communicate(timeout=300)
    assert driver.returncode == 0, out + err
    assert "a worker was lost: killed by SIGKILL" in out
    assert numbers(tmp_path / "store") == alone


def test_a_cell_that_ends_its_worker_fails_alone(sweep, alone, tmp_path):
    fatal = "gmm2d heun nsr NFE 4"
    told = sweep.run(tmp_path / "store", "--workers", 2, code=1, FATAL=fatal)
    failed = [line for line in told.splitlines() if line.startswith("failed:")]
    assert failed == [f"failed: {fatal}: 3 workers were lost at it: ended with exit code 3; no row was written"]
    found = numbers(tmp_path / "store")
    assert found.items() <= alone.items()
    assert {(row["model"], row["solver"]) for row, _ in found.values()}.isdisjoint({("gmm2d", "heun")})
    assert len(found) == 3


def jobs(before, after):
    """The jobs of which cells were measured that had been measured before."""
    return {tuple(line.split()[:2]) for line in before if after[line] > before[line]}


def kill(sweep, store, seconds, *words):
    """Kill a driver some time after its first result; nobody of it lives on."""
    before = sweep.measured.total()
    with sweep.start(store, *words, SLOW="0.02") as driver:
        assert until(lambda: sweep.measured.total() > before or driver.poll() is not None)
        time.sleep(seconds)
        at_work = children(driver.pid)
        driver.kill()
    assert until(lambda: not any(map(alive, at_work)), 10), "a worker lives on"


@pytest.mark.parametrize(
    ("kills", "workers"),
    [(1, 2), pytest.param(20, 1, marks=pytest.mark.slow), pytest.param(20, 2, marks=pytest.mark.slow)],
)
def test_a_killed_driver_repeats_a_job_of_each_worker_at_most(kills, workers, sweep, alone, tmp_path):
    draws, words, store = random.Random(kills), ("--workers", workers), tmp_path / "store"
    for _ in range(kills):
        before = sweep.measured
        kill(sweep, store, draws.random(), *words)
        assert len(jobs(before, sweep.measured)) <= workers
        assert numbers(store).items() <= alone.items()
        if len(numbers(store)) == len(alone):
            shutil.rmtree(store)
            sweep.log.unlink()
    before = sweep.measured
    sweep.run(store, *words)
    assert len(jobs(before, sweep.measured)) <= workers
    assert numbers(store) == alone
    assert not list((store / "partial").iterdir())


def test_two_commands_share_the_work(sweep, alone, tmp_path):
    several = [sweep.start(tmp_path / "store", SLOW="0.05") for _ in range(2)]
    told = [command.communicate(timeout=300) for command in several]
    assert [command.returncode for command in several] == [0, 0], told
    assert numbers(tmp_path / "store") == alone
    assert set(sweep.measured.values()) == {1}
    assert sweep.measured.total() == 5 * len(alone)


def test_a_command_computes_what_another_leaves(sweep, alone, tmp_path):
    """It waits for a job that another has, and does it when the other has died."""
    with sweep.start(tmp_path / "store", SLOW="1000") as other:
        assert until(lambda: sweep.measured)
        os.kill(other.pid, signal.SIGSTOP)
        with sweep.start(tmp_path / "store") as command:
            assert until(lambda: sweep.measured.total() == 1 + 9 * 2)
            time.sleep(1)
            assert command.poll() is None
            other.kill()
            out, err = command.communicate(timeout=100)
    assert command.returncode == 0, out + err
    assert "1 job is at work in another process on this store, which is waited for" in out
    assert numbers(tmp_path / "store") == alone


@pytest.mark.slow
def test_ctrl_c_ends_all_and_loses_nothing(sweep, alone, tmp_path):
    with sweep.start(tmp_path / "store", "--workers", 2, SLOW="0.2") as driver:
        assert until(lambda: sweep.measured.total() > 8)
        at_work = children(driver.pid)
        driver.send_signal(signal.SIGINT)
        out, err = driver.communicate(timeout=60)
    assert driver.returncode == 130, out + err
    assert "Traceback" not in out + err
    assert len(at_work) == 2
    assert not any(map(alive, at_work))
    before = sweep.measured
    sweep.run(tmp_path / "store")
    assert len(jobs(before, sweep.measured)) <= 2
    assert numbers(tmp_path / "store") == alone


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": "0.0.9"}, "the sweep is of 0.0.9 with"),
        ({"numerics": 0}, "the sweep is of .* with 0: install that one"),
        ({"identities": {"another": "cell"}}, "a checkpoint, card or table differs"),
        ({"identities": None}, "gmm2d euler uniform NFE 10 would be measured otherwise here: an extractor or a ref"),
    ],
)
def test_a_worker_that_would_compute_something_else_refuses(changes, reason, tmp_path):
    request = Request(model="gmm2d", solver="euler", samples=4, metrics="curvature", out=tmp_path / "store")
    ready = prepare(request, Console(quiet=True))
    right = order_of(request, {}, Runner(Store(tmp_path / "store"), ready.worker), ready.cells)
    assert [type(said) for said in Station(right).open()] == [Ready]
    if changes == {"identities": None}:
        changes = {"identities": dict.fromkeys(right.identities, "0" * 16)}
    (refused,) = Station(replace(right, **changes)).open()
    assert isinstance(refused, Refused)
    assert re.search(reason, refused.reason)


def test_without_workers_that_agree_nothing_is_computed(tmp_path):
    request = Request(model="gmm2d", solver="euler", samples=4, metrics="curvature", out=tmp_path / "store")
    text = io.StringIO()
    with pytest.raises(RuntimeError, match=r"no worker is left: .* the sweep is of 0\.0\.9 with "):
        run_sweep(
            request, Console(file=text, width=200), hire=lambda order: Processes(replace(order, version="0.0.9"), 1)
        )
    assert text.getvalue().count("a worker refuses: ") == 1
    assert not list((tmp_path / "store" / "rows").iterdir())


@pytest.mark.parametrize("lost", ["dropped", "damaged"])
def test_no_row_is_made_of_parts_that_are_gone(lost, tmp_path):
    """Another process may finish a row of the same samples, and drop them."""
    request = Request(model="gmm2d", solver="euler", samples=16, batch_size=8, metrics="curvature", out=tmp_path)
    ready, store = prepare(request, Console(quiet=True)), Store(tmp_path)
    runner, (cell,) = Runner(store, ready.worker), ready.cells
    for part in runner.missing(cell):
        ((_, found),) = ready.worker.measure([cell], *part)
        runner.add(cell, part, found)
    file = tmp_path / "partial" / cell.sampling / "8-16.npz"
    if lost == "dropped":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-300] + bytes(300))
    assert runner.settle(cell) is None
    assert not list((tmp_path / "rows").iterdir())
    run_sweep(request, Console(quiet=True))
    assert len(store.rows()) == 1
