"""docs/frontier.md: its runs can be asked for, and its tables are those that its program makes."""

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from fastsample.bench.request import read_request
from fastsample.results.store import Store
from fastsample.solvers.solver import solvers
from fastsample.solvers.spec import Spec

from ..rows import row_of

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def program(monkeypatch):
    spec = importlib.util.spec_from_file_location("frontier_page", DOCS / "frontier_page.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "frontier_page", module)
    spec.loader.exec_module(module)
    return module


def test_the_runs_are_of_what_there_is():
    wide, transfer = (read_request(DOCS / name) for name in ("frontier.toml", "frontier-transfer.toml"))
    assert wide.nfe == tuple(range(3, 11))
    named = {Spec.parse(text).name for text in wide.solver}
    assert len(named) == len(wide.solver)
    assert not [name for name in named if name in solvers() and solvers()[name].adaptive]
    assert {Spec.parse(text).options.get("transfer") for text in transfer.solver} == {None, "cifar10-tiny-flow"}


def test_each_table_of_the_page_is_made_and_each_that_is_made_is_there(program):
    page = (DOCS / "frontier.md").read_text("utf-8")
    assert sorted(re.findall(r"<!-- (\w+) -->\n", page.replace("<!-- end -->", ""))) == sorted(program.TABLES)


def test_tables_are_filled_from_stores(program, tmp_path, monkeypatch, capsys):
    model = "cifar10-tiny-vp"
    for folder in ("results-frontier", "results-frontier-learned"):
        made, noise = Store(tmp_path / folder), np.random.default_rng(0).normal(size=64)
        for place, (solver, said) in enumerate((("heun", ""), ("euler", ""), ("bns", "squared error"))):
            facts = {"trained on": said, "found with": "5 pairs of seed 7, 9,999 evaluations"} if said else {}
            row = row_of(solver, model=model, solver=solver, title=solver.title(), metrics={"psnr": 20.0 + place},
                         samples=64, protocol={"noise": "philox", **facts})  # fmt: skip
            made.finish(row, {"psnr": 20.0 + place + noise})
    (tmp_path / "frontier.toml").write_text('out = "results-frontier"\n')
    (tmp_path / "frontier-learned.toml").write_text('out = "results-frontier-learned"\n')
    (tmp_path / "frontier-transfer.toml").write_text('out = "nowhere"\n')
    monkeypatch.setattr(program, "DOCS", tmp_path)
    page = program.filled(
        "".join(f"<!-- {name} -->\nold\n<!-- end -->\n" for name in ("vp_psnr", "learned_vp", "cost"))
    )
    assert "| Heun | 20.0" in page
    assert "| NFE | best training-free | PSNR | Bns |" in page
    assert "| Euler, nsr | 21.00 | 22.00, +1.00 (+1.00 to +1.00) |" in page
    assert "| cifar10-tiny-vp | 10 | 9,999 |" in page
    assert program.filled("<!-- transfer -->\nold\n<!-- end -->\n") == "<!-- transfer -->\nold\n<!-- end -->\n"
    assert "nowhere is not there" in capsys.readouterr().out
