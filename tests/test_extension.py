"""What CONTRIBUTING says is one file is one file: its examples, run as they stand beside the installed package."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from fastsample.models.networks.registry import build_network
from fastsample.results.store import Store

from .command import command

PAGE = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text("utf-8")


def example(heading, language="python"):
    return re.search(rf"```{language}\n(.*?)```", PAGE.split(f"## {heading}\n")[1], re.S)[1]


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


def test_a_data_set_of_one_file_is_listed_and_trained_on(tmp_path):
    (tmp_path / "checkers.py").write_text(example("Add a data set"), "utf-8")
    listed = run(tmp_path, "checkers", "list", "datasets")
    assert "64 boards 8x8 of random squares" in listed.stdout, listed.stderr
    words = ("train", "flow", "digits-flow", "--dataset", "checkers", "--images", "64", "--batch", "32", "--out", "run")
    trained = run(tmp_path, "checkers", *words)
    assert trained.returncode == 0, trained.stderr
    assert list((tmp_path / "run").glob("*.safetensors"))


def test_a_card_of_one_file_is_a_model(tmp_path):
    text = example("Add a public model", "toml")
    (tmp_path / "card.toml").write_text(text, "utf-8")
    network = tomllib.loads(text)["my-flow"]["network"]
    torch.manual_seed(0)
    torch.save(build_network(network["name"], network["config"]).state_dict(), tmp_path / "weights.pt")
    model = ("--model", tmp_path / "card.toml", "--checkpoint", tmp_path / "weights.pt")
    store = tmp_path / "store"
    assert command("bench", *model, "--nfe", 3, "--samples", 2, "--metrics", "psnr", "--out", store).code == 0
    assert Store(store).frame()["model"].str.startswith("my-flow").all()
