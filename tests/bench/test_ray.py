"""Workers on a Ray cluster end with the numbers of one process, bit for bit; a lost worker or node changes none.

The clusters are real: their nodes are processes of this machine.
"""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .working import Sweep, numbers, until

SWEEP = ("--model", "gmm2d", "--solver", "euler,heun", "--nfe", "4,6", "--metrics", "psnr,logged", "--batch-size", "8",
         "--samples", "64", "--reference-steps", "20")  # fmt: skip


def test_without_ray_one_sentence_says_what_is_missing(tmp_path):
    code = "import sys; sys.modules['ray'] = None; from fastsample.bench.cli.app import main; main()"
    words = [sys.executable, "-c", code, "bench", "--model", "gmm2d", "--nfe", "4", "--out", str(tmp_path), "--ray"]
    told = subprocess.run(words, capture_output=True, text=True, check=False)
    assert told.returncode == 2
    assert told.stderr == "error: --ray needs the package ray: pip install ray\n"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return Sweep(tmp_path_factory.mktemp("sweep"), tmp_path_factory.mktemp("home"), *SWEEP)


@pytest.fixture(scope="module")
def alone(sweep):
    """The numbers of one process."""
    sweep.run(sweep.folder / "alone")
    return numbers(sweep.folder / "alone")


@pytest.fixture(scope="module")
def cluster(sweep):
    """A head and two nodes of one core each."""
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    from ray.cluster_utils import Cluster

    given = {"FASTSAMPLE_HOME": str(sweep.home), "LOG": str(sweep.log), "PYTHONPATH": str(sweep.folder)}
    with pytest.MonkeyPatch.context() as patch:
        given |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", "SLOW": "0.05"}
        for name, value in given.items():
            patch.setenv(name, value)
        facts = {"object_store_memory": 100 * 2**20, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **facts})
        cluster.nodes = [cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20) for _ in range(2)]
        yield cluster
        cluster.shutdown()


def stations():
    """The processes that Ray has made workers of."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if file.read_text().startswith("ray::Station"):
                found.append(int(file.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def test_workers_on_ray_end_with_the_numbers_of_one_process(sweep, alone, cluster, tmp_path):
    sweep.run(tmp_path / "store", "--ray", cluster.address, "--workers", 2)
    assert numbers(tmp_path / "store") == alone
    assert not list((tmp_path / "store" / "partial").iterdir())


@pytest.mark.slow
def test_a_killed_worker_changes_no_number(sweep, alone, cluster, tmp_path):
    before = sweep.measured.total()
    with sweep.start(tmp_path / "store", "--ray", cluster.address) as driver:
        assert until(lambda: sweep.measured.total() > before + 4)
        os.kill(random.Random(0).choice(stations()), signal.SIGKILL)
        out, err = driver.communicate(timeout=300)
    assert driver.returncode == 0, out + err
    assert "a worker was lost" in out
    assert numbers(tmp_path / "store") == alone


@pytest.mark.slow
def test_a_lost_node_changes_no_number(sweep, alone, cluster, tmp_path):
    before = sweep.measured.total()
    with sweep.start(tmp_path / "store", "--ray", cluster.address) as driver:
        assert until(lambda: sweep.measured.total() > before + 4)
        cluster.remove_node(cluster.nodes.pop())
        out, err = driver.communicate(timeout=300)
    assert driver.returncode == 0, out + err
    assert "a worker was lost" in out
    assert numbers(tmp_path / "store") == alone
