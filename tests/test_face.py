"""fastsample from Python: what `import fastsample` gives, its price, its types, and the notebook about it."""

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

import fastsample as fs
from fastsample.bench.request import Request

from .pages import blocks

ROOT = Path(__file__).parents[1]
# What a request says in two words, or what is not of a request but of its command.
SHORTHANDS = {"protocol", "cfg", "guidance_interval", "config", "extractor_weights"}
SPELT = {"preset", "guidance_low", "guidance_high", "threshold_max"}


def test_the_import_brings_nothing_along():
    code = "import sys, fastsample; print(sorted(name for name in sys.modules if name.split('.')[0] in "
    code += "('torch', 'pandas', 'numpy', 'typer', 'rich', 'pydantic')), dir(fastsample) == fastsample.__all__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "[] True"


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'sampel'"):
        fs.sampel  # noqa: B018
    assert re.fullmatch(r"\d+\.\d+.*", fs.__version__)


def test_the_keywords_are_those_of_a_request_and_have_types():
    parameters = inspect.signature(fs.sweep).parameters
    assert {*parameters} - SHORTHANDS == {*Request.model_fields} - SPELT
    assert all(one.annotation != "Any" and one.kind is one.KEYWORD_ONLY for one in parameters.values())


def test_samples_are_those_of_the_seed_whatever_their_number():
    model = fs.open_model("gmm2d")
    three, five = (fs.sample(model, fs.sampler("heun"), nfe=4, samples=count, seed=3) for count in (3, 5))
    assert three.shape == (3, 2)
    assert three.dtype == torch.float32
    assert torch.equal(three, five[:3])
    assert torch.equal(fs.sample("gmm2d", "heun", 4, samples=1, seed=3), three[:1])
    with pytest.raises(ValueError, match="did you mean"):
        fs.sample("gmm2d", "huen", 4)


def test_a_sweep_is_the_rows_of_its_request(tmp_path, capsys):
    asked = dict(model="gmm2d", nfe=[4, 6], samples=16, metrics="curvature", out=tmp_path)
    first, again = fs.sweep(solver="heun", **asked), fs.sweep(solver=["heun", "euler"], **asked)
    assert first[["solver", "nfe"]].to_numpy().tolist() == [["heun", 4], ["heun", 6]]
    assert again["solver"].tolist() == ["heun", "heun", "euler", "euler"]
    pd.testing.assert_series_equal(again["metrics.curvature"][:2], first["metrics.curvature"])
    assert {*fs.open_store(tmp_path).frame()["cell"]} == {*again["cell"]}
    assert capsys.readouterr() == ("", "")  # neither is a terminal


def test_what_fails_in_a_sweep_is_warned_of_or_raised(tmp_path):
    asked = dict(model="gmm2d", nfe=4, samples=16, metrics="curvature", out=tmp_path)
    with pytest.warns(UserWarning, match="no row: gmm2d bns NFE 4"):
        assert fs.sweep(solver=["heun", "bns"], **asked)["solver"].tolist() == ["heun"]
    with pytest.raises(ValueError, match="nfe"):
        fs.sweep(**asked | {"nfe": 0})
    with pytest.raises(ValueError, match="no store"):
        fs.open_store(tmp_path / "none")


def test_a_proof_is_a_row():
    (row,) = fs.verify("euler").to_dict("records")
    assert (row["solver"], row["claimed"], row["holds"]) == ("euler", 1, True)
    assert row["made"] <= row["asked"]


def test_five_lines_give_a_frame():
    first = next(block.text for block in blocks("README.md") if "import fastsample as fs" in block.text)
    assert len(first.splitlines()) <= 5


def test_the_notebook_runs_and_uses_nothing_else(tmp_path, monkeypatch, coarse):
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((ROOT / "docs/quickstart.ipynb").read_text("utf-8"))
    assert notebook["nbformat"] == 4
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert re.findall(r"^\s*(?:import|from) .*", "\n".join(cells), re.M) == ["import fastsample as fs"]
    known = {}
    for cell in cells:
        exec(cell, known)
    assert known["images"].shape == (16, 3, 32, 32)
    assert {"solver", "metrics.psnr"} <= {*known["rows"].columns}


@pytest.mark.slow
def test_mypy_finds_no_fault_in_a_program_that_uses_it(tmp_path):
    (tmp_path / "fastsample").mkdir()
    for name in ("__init__.py", "py.typed", "bench", "datasets", "models", "results", "solvers"):
        (tmp_path / "fastsample" / name).symlink_to(ROOT / name)
    (tmp_path / "right.py").write_text((ROOT / "tests/data/face.py").read_text("utf-8"))
    (tmp_path / "wrong.py").write_text("import fastsample as fs\n\nfs.sweep(nef=3)\nfs.sample(3, nfe='4').foo\n")
    # An installed package's own files are not reported either.
    strict = ["--config-file", ROOT / "pyproject.toml", "--strict", "--follow-imports", "silent"]
    run = [sys.executable, "-m", "mypy", *strict, "right.py", "wrong.py"]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    errors = re.findall(r"^(.*?):(\d+): error: ", done.stdout, re.M)
    assert errors == [("wrong.py", "3"), *[("wrong.py", "4")] * 3], done.stdout
