"""What CONTRIBUTING says is one file is one file: its examples, run as they stand beside the installed package."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text("utf-8")


def example(heading):
    return re.search(r"```python\n(.*?)```", PAGE.split(f"## {heading}\n")[1], re.S)[1]


def run(folder, module, *words):
    code = f"import sys, {module}; sys.argv[1:] = {words!r}; from fastsample.bench.cli.app import main; main()"
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def metric(tmp_path_factory):
    folder = tmp_path_factory.mktemp("metric")
    (folder / "clipped.py").write_text(example("Add a metric"), "utf-8")
    asked = ("--model", "cifar10-tiny-flow", "--solver", "euler,heun", "--nfe", "4", "--samples", "8")
    result = run(folder, "clipped", "bench", *asked, "--metrics", "clipped", "--out", "store")
    assert result.returncode == 0, result.stderr
    return folder


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("list", "metrics"), r"clipped +│ share of values beyond"),
        (("table", "store", "--metric", "clipped"), r"Heun \(RK2\) +│ +0\.\d+ ±"),
        (("show", "store"), "clipped"),
        (("recommend", "store", "--metric", "clipped", "--budget", "4"), r", clipped 0"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_metric_of_one_file_is_everywhere(words, expected, metric):
    result = run(metric, "clipped", *words)
    assert result.returncode == 0, result.stderr
    assert re.search(expected, result.stdout), result.stdout
