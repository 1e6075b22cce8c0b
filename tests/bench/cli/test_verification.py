"""What `fastsample verify` leaves as it was: the process is the caller's."""

import io
import logging
from importlib import reload

import matplotlib
import torch
from matplotlib.figure import Figure
from rich.console import Console

from fastsample.bench import sweep
from fastsample.bench.cli.verify import draw_orders, run_verification
from fastsample.solvers.own import solver_named
from fastsample.solvers.proofs.claims import BUDGETS, PROBLEMS, Proof, claims, golden_summary
from fastsample.solvers.proofs.golden import SHIPPED


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
    assert "no golden file is of ddim" in told.getvalue()
    assert (tmp_path / "orders.png").read_bytes().startswith(b"\x89PNG")


def test_the_picture_of_orders_has_a_panel_for_each_family(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    proofs = [
        Proof(claim, {name: [(n, n**-2.0) for n in BUDGETS] for name in PROBLEMS}, {}, 0.0, 12, 12)
        for claim in claims([solver_named(name) for name in ("dpmpp-2m", "dpmpp-3m", "unipc", "scire")])
    ]
    draw_orders(proofs, tmp_path / "orders.png")
    panels = {axis.get_title(): axis for axis in drawn[0].axes}
    assert list(panels) == ["dpm multistep", "unipc", "scire"]
    for axis in panels.values():
        whole = [line for line in axis.lines if line.get_linestyle() == "-"]
        assert len(axis.lines) == len(PROBLEMS) * len(whole)
        assert len({line.get_color() for line in whole}) == len(whole)
        assert [text.get_text() for text in axis.get_legend().get_texts()] == [line.get_label() for line in whole]


def test_parity_is_of_the_solvers_named_and_told_file_by_file():
    lines = []
    summary = golden_summary(SHIPPED, ("rx-euler", "ab3"), lines.append)
    assert list(summary) == ["rx_euler"]
    assert summary["rx_euler"][:2] == (len(lines), 0)
    assert set(lines) == {"parity: golden file 1 of 1, rx_euler"}
    assert golden_summary(SHIPPED, ("ab3",)) == {}


def test_an_import_changes_no_log_level():
    logger = logging.getLogger("torch_fidelity")
    before = logger.level
    logger.setLevel(logging.DEBUG)
    try:
        reload(sweep)
        assert logger.level == logging.DEBUG
    finally:
        logger.setLevel(before)
