"""The README's solver of ten lines shows up everywhere by registration alone."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.S)
EXAMPLE = next(block for block in BLOCKS if "@register" in block)


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
