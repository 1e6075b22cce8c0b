"""What a run of paper size costs, counted: 50,000 samples of a network, with the metrics of every run."""

import io
import re

import pytest
import torch
from rich.console import Console

from fastsample.bench import sweep
from fastsample.bench.request import Request
from fastsample.bench.sweep import run_sweep
from fastsample.models.checkpoints import DenoiserMetadata, save_checkpoint
from fastsample.models.networks.mlp import ResidualMLP
from fastsample.results.store import Store

MOST = 610_000  # network calls of a cell of NFE 10: its own, and a tenth of them for 1,024 reference solutions
PAPER = dict(solver="scire", nfe=10, samples=50_000, metrics=("psnr", "fd"))


def test_a_cell_of_paper_size_is_foretold_to_cost_little(tmp_path):
    screen = Console(file=io.StringIO(), width=200)
    asked = Request(model="cifar10-tiny-vp", **PAPER, batch_size=2, seed=77, out=tmp_path)
    assert run_sweep(asked, screen, plan=True) == []
    (line,) = (line.split("│") for line in screen.file.getvalue().splitlines() if line.startswith("│ cifar10"))
    needed, made, references = (int(word.replace(",", "")) for word in line[3:6])
    assert needed == made == 500_000
    assert references == 1024 * 101 + 16 * 150
    assert made + references <= MOST
    *_, total, _ = screen.file.getvalue().splitlines()
    assert re.fullmatch(rf"In all about [\d,]+ (hours|minutes), {made + references:,} network calls, 1.6 MB\.", total)


@pytest.mark.slow
def test_a_cell_of_paper_size_costs_what_is_foretold(tmp_path, monkeypatch):
    arguments = dict(img_resolution=32, in_channels=3, out_channels=3, width=8, blocks=1)
    torch.manual_seed(0)
    metadata = DenoiserMetadata(
        id="quick", title="quick", network="ResidualMLP", network_args=arguments, image_shape=(3, 32, 32),
        data="cifar10-jpeg", data_sha256="", images_seen=0, ema_halflife_images=0, optimizer={}, loss="none",
        precision="float32", storage="float32", path="vp-linear", prediction="eps", time_scale=1000.0, times="uniform",
    )  # fmt: skip
    file = tmp_path / "quick.safetensors"
    save_checkpoint(file, ResidualMLP(**arguments).state_dict(), metadata)
    ledgers, prepare = [], sweep.prepare

    def prepared(*given):
        ready = prepare(*given)
        ledgers.append(ready.worker.tools.ledger)
        return ready

    monkeypatch.setattr(sweep, "prepare", prepared)
    asked = Request(model=str(file), **PAPER, batch_size=500, out=tmp_path / "s")
    assert run_sweep(asked, Console(file=io.StringIO())) == []
    assert sum(ledgers[0].calls.values()) == 500_000 + 1024 * 101 + 16 * 150 <= MOST
    (row,) = Store(asked.out).rows()
    assert {"psnr@1024", "fd[cifar10-resnet]@50000"} < {*row.metrics}
    assert sum(one.stat().st_size for one in asked.out.rglob("*") if one.is_file()) < 10_000_000
