"""What a command imports before it has something to do: nothing whose second nobody asked for."""

import json
import subprocess
import sys

import pytest

# What takes a second and more: torch's compiler with its algebra, torchvision, and torch-fidelity, which imports both.
HEAVY = ["torch_fidelity", "torchvision", "torch._dynamo", "sympy", "matplotlib", "diffusers"]

CODE = """
import importlib.abc, json, os, sys
watched = json.loads(sys.argv.pop(1))

def tell(*_):
    print(json.dumps([name for name in watched if name in sys.modules]), flush=True)
    os._exit(0)

class Hook(importlib.abc.MetaPathFinder):
    def find_spec(self, name, *_):
        if name == "fastsample.bench.sweep":
            from torch.nn.modules.module import register_module_forward_pre_hook
            register_module_forward_pre_hook(tell)

sys.meta_path.insert(0, Hook())
from fastsample.bench.cli.app import main
try:
    main()
finally:
    tell()
"""


def imported(watched, *words):
    """Those of the watched modules that a fresh process has imported at the end, or when a network is first called."""
    command = [sys.executable, "-c", CODE, json.dumps(watched), *map(str, words)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1]), ended.stdout


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
