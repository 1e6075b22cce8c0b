"""What a command imports before it has something to do: nothing whose second nobody asked for."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "first_call.py"
# What takes a second and more: torch's compiler with its algebra, torchvision, and torch-fidelity, which imports both.
HEAVY = ["torch_fidelity", "torchvision", "torch._dynamo", "sympy", "matplotlib", "diffusers"]


def imported(watched, *words):
    """(Watched modules that a fresh process has imported at its first network call or its end, its output)."""
    command = [sys.executable, SCRIPT, json.dumps(watched), *map(str, words)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])["imported"], ended.stdout


@pytest.mark.parametrize("words", [("--help",), ("list", "solvers"), ("list", "solvers", "--long"), ("list", "grids")],
                         ids=" ".join)  # fmt: skip
def test_a_printed_list_takes_no_torch(words):
    found, told = imported([*HEAVY, "torch", "pandas", "scipy"], *words)
    assert found == []
    assert {"--help": "bench", "list": "logsnr"}[words[0]] in told


def test_a_psnr_comes_to_its_first_call_without_what_only_features_need(tmp_path):
    words = ("--solver", "euler", "--nfe", 2, "--samples", 2, "--metrics", "psnr")
    found, told = imported(["torch", *HEAVY], "bench", *words, "--out", tmp_path / "store")
    assert found == ["torch"]
    assert "overhead" not in told  # the table was not reached
