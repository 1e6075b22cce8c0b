"""Rows of pipelines: the commands that make them again, and the commands that read them."""

import shlex
from pathlib import Path

import pytest

from fastsample.results.commands import bench_command, export_command
from fastsample.results.store import Store

from ..command import command
from ..pipelines import saved


@pytest.mark.slow
def test_a_row_is_made_again_and_read_by_all_commands(tmp_path, monkeypatch, coarse):
    monkeypatch.chdir(tmp_path)
    for name, called in (("sd1", "sd15"), ("flux", "flux")):
        saved(name, tmp_path / "made")[1].rename(tmp_path / called)
    Path("prompts.txt").write_text("a boat\ntwo dogs\n", "utf-8")
    few = ("--samples", 2, "--metrics", "psnr")
    text = ("--cfg", 7.5, "--prompts", "prompts.txt", "--negative", "blurry, grey")
    asked = ("--nfe", 8, "--embedded-guidance", 3.5, "--size", 16, "--tiling")
    assert command("bench", "--model", "diffusers:sd15", "--solver", "ddim", "--nfe", 10, *text, *few).code == 0
    assert command("bench", "--model", "diffusers:flux", "--solver", "euler", *asked, *few).code == 0
    row, flux = Store(Path("results-store")).rows()
    again = shlex.split(bench_command(row))[1:]
    assert again[again.index("--prompts") :][:4] == ["--prompts", "prompts.txt", "--negative", "blurry, grey"]
    assert command(*again).code == 0
    assert Store(Path("results-again")).rows()[0].metrics == row.metrics
    assert "--size 16 --embedded-guidance 3.5 --tiling" in bench_command(flux)
    assert export_command(flux).startswith("fastsample export --model diffusers:flux")
    assert command("check", "results-store").code == 2  # without a baseline
    assert command("baseline", "results-store", "-o", "baseline.json").code in (0, 2)
    assert command("report", "results-store", "--images", 0, "-o", "page.html").code == 0
    ended = command("explain", "ddim", "--model", "diffusers:sd15", "--nfe", 3)
    assert ended.code == 0
    assert "vp-discrete" in ended.out
