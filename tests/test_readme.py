"""The README's solver of ten lines shows up everywhere by registration alone."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fastsample.bench.cli.model_page import model_page

README = Path(__file__).parents[1] / "README.md"
EXAMPLE = re.search(r"```python\n(.*?)```", README.read_text("utf-8").split("## Add a solver\n")[1], re.S)[1]
OWN = README.read_text("utf-8").split("## Your own model")[1].split("\n## ")[0]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["list", "solvers", "--long"], "Adams-Bashforth 3"),
        (["verify", "--solver", "ab3", "--golden", ".", "--picture", "orders.png"], "ab3"),
        (["bench", "--model", "gmm2d", "--solver", "ab3", "--nfe", "8", "--samples", "4", "--metrics", "psnr"], "ab3"),
    ],
)
def test_the_example_solver_is_everywhere(words, expected, tmp_path):
    (tmp_path / "ab3.py").write_text(EXAMPLE)
    code = f"import sys, ab3; sys.argv[1:] = {words!r}; from fastsample.bench.cli.app import main; main()"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert expected in result.stdout


def test_the_example_is_documented_by_registration(tmp_path):
    (tmp_path / "ab3.py").write_text(EXAMPLE)
    code = "import ab3; from fastsample.bench.cli.listing import solver_page; print(solver_page())"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "| ab3 | Adams-Bashforth 3 |" in result.stdout


def test_the_own_model_solver_and_metric_run_as_they_stand(tmp_path):
    (tmp_path / "mine.py").write_text(re.search(r"```python\n(.*?)```", OWN, re.S)[1], "utf-8")
    for line in re.findall(r"^fastsample .*$", OWN, re.M):
        run = [sys.executable, "-m", "fastsample.bench", *shlex.split(line)[1:]]
        env = {**os.environ, "FASTSAMPLE_HOME": str(tmp_path / "home")}
        result = subprocess.run(run, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
    assert "mine.py:step" in result.stdout
    assert "mine.py:roughness" in result.stdout


def test_the_page_of_models_is_what_the_code_says():
    page = README.parent / "docs" / "models.md"
    assert page.read_text("utf-8") == model_page()
