"""What `fastsample verify` leaves as it was: the process is the caller's."""

import io
import logging
from importlib import reload

import matplotlib
import torch
from rich.console import Console

from fastsample.bench import sweep
from fastsample.bench.cli.verify import run_verification


def test_verification_keeps_threads_and_the_backend_of_pictures(tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    backend = matplotlib.get_backend()
    matplotlib.use("svg")
    told = io.StringIO()
    try:
        assert run_verification(("ddim",), tmp_path, tmp_path / "orders.png", Console(file=told))
        assert torch.get_num_threads() == 3
        assert matplotlib.get_backend() == "svg"
    finally:
        torch.set_num_threads(threads)
        matplotlib.use(backend)
    assert "no golden cases" in told.getvalue()
    assert (tmp_path / "orders.png").read_bytes().startswith(b"\x89PNG")


def test_an_import_changes_no_log_level():
    logger = logging.getLogger("torch_fidelity")
    before = logger.level
    logger.setLevel(logging.DEBUG)
    try:
        reload(sweep)
        assert logger.level == logging.DEBUG
    finally:
        logger.setLevel(before)
