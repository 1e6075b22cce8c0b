"""`make demo`: what its commands print, and the picture that they leave."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
RECIPE = (ROOT / "Makefile").read_text("utf-8").split("\ndemo:")[1].split("\n\n")[0]
COMMANDS = re.findall(r"^\t\$\(BIN\)/fastsample (.*)$", RECIPE, re.M)


def run(folder, words):
    line = [sys.executable, "-m", "fastsample.bench", *shlex.split(words)]
    env = {**os.environ, "FASTSAMPLE_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def test_it_begins_with_the_one_line_of_the_readme():
    assert COMMANDS[0] == "bench --solver scire --nfe 10"
    assert COMMANDS[-1].startswith("recommend ")


@pytest.mark.slow
def test_the_demo_ends_with_the_table_the_matrix_and_the_sentence(tmp_path):
    before = os.times()
    told = [run(tmp_path, words) for words in COMMANDS]
    after = os.times()
    for name in ("scire", "dpmpp-2m", "unipc", "ipndm", "ddim"):
        assert name in told[1]
    assert "PSNR" in told[0]
    with Image.open(tmp_path / "results-demo" / "samples.png") as picture:
        assert min(picture.size) >= 400
    (sentence,) = [
        line for line in told[-1].splitlines() if line.startswith("cifar10-tiny-vp, at most 10 evaluations: ")
    ]
    assert re.search(r": .+ on grid .+, NFE 10, PSNR \d\d\.\d\d \[", sentence)
    assert "Better by " in sentence or "Level with it" in sentence
    (untried,) = [line for line in told[-1].splitlines() if line.startswith("Not tried: ")]
    assert "bns for NFE 8" in untried
    assert "--search` tries them." in untried
    seconds = sum(getattr(after, name) - getattr(before, name) for name in ("children_user", "children_system"))
    assert seconds < 2 * 90  # of two cores
