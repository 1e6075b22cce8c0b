"""Every block of docs/diffusers.md, as it stands but for the number of samples."""

import re
import shlex
from pathlib import Path

import pytest

from fastsample.bench.learning import distillation
from fastsample.results.commands import bench_command, export_command
from fastsample.results.store import Store

from ..command import command
from ..pipelines import saved

PAGE = (Path(__file__).parents[2] / "docs" / "diffusers.md").read_text("utf-8")


@pytest.mark.slow
def test_the_page_runs(tmp_path, monkeypatch, coarse):
    monkeypatch.setattr(distillation, "BATCH", 8)
    monkeypatch.chdir(tmp_path)
    for name, called in (("sd1", "sd15"), ("flux", "flux"), ("ddpm", "ddpm")):
        saved(name, tmp_path / "made")[1].rename(tmp_path / called)
    Path("prompts.txt").write_text("a boat\ntwo dogs\n", "utf-8")
    blocks = re.findall(r"```(\w*)\n(.*?)```", PAGE, re.S)
    assert [language for language, _ in blocks] == ["", "", "python"]
    lines = "".join(text for language, text in blocks if not language).splitlines()
    for line in lines:
        words = shlex.split(line.replace("--samples 64", "--samples 2"))
        assert words.pop(0) == "fastsample"
        fewer = ["--train", 32, "--validation", 32, "--steps", 1, "--initial", "euler"] if words[0] == "distill" else []
        table = ["--solver", "ddim"] if words[0] == "table" else []
        ended = command(*words, *fewer, *table)
        assert ended.code == 0, f"{line}: {ended.err}"
    exec(blocks[-1][1], found := {})
    assert found["image"].size == (16, 16)
    assert Path("images.png").is_file()
    rows = Store(Path("results-store")).rows()
    row = next(row for row in rows if row.negative)
    again = shlex.split(bench_command(row))[1:]
    assert again[again.index("--prompts") :][:4] == ["--prompts", "prompts.txt", "--negative", "blurry, grey"]
    assert command(*again).code == 0
    assert Store(Path("results-again")).rows()[0].metrics == row.metrics
    flux = next(row for row in rows if row.tiling)
    told = bench_command(flux)
    assert "--size 16 --embedded-guidance 3.5 --tiling" in told
    assert command("check", "results-store").code == 2  # without a baseline
    assert command("baseline", "results-store", "-o", "baseline.json").code in (0, 2)
    assert command("report", "results-store", "--images", 0, "-o", "page.html").code == 0
    assert export_command(flux).startswith("fastsample export --model diffusers:flux")
    ended = command("explain", "ddim", "--model", "diffusers:sd15", "--nfe", 3)
    assert ended.code == 0
    assert "vp-discrete" in ended.out
