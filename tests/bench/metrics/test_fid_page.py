"""docs/fid.md prints what its own code prints."""

import contextlib
import io
import re
from pathlib import Path

import pytest
import torch

from fastsample.bench.metrics.extractors import efficientnet_weights

PAGE = (Path(__file__).parents[3] / "docs" / "fid.md").read_text("utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", PAGE, re.S)
NUMBER = re.compile(r"-?\d+\.\d+")


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def runnable(code):
    try:
        efficientnet_weights()
    except FileNotFoundError:
        return "efficientnet" not in code
    return True


def numbers(text):
    return [float(number) for number in NUMBER.findall(text)]


@pytest.mark.slow
def test_the_page_tells_what_its_code_prints():
    assert sum(bool(told) for _, told in BLOCKS) == 6
    names = {}
    for code, told in (block for block in BLOCKS if runnable(block[0])):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, names)
        assert NUMBER.sub("", printed.getvalue()).split() == NUMBER.sub("", told).split()
        assert numbers(printed.getvalue()) == pytest.approx(numbers(told), rel=2e-3, abs=2e-4)
