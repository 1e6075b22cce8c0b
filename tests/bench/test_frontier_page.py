"""docs/frontier.md: its runs can be asked for, and its tables are those that its program makes."""

import importlib.util
import re
import sys
from pathlib import Path

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
    made = Store(tmp_path / "results-frontier")
    for place, (solver, said) in enumerate((("heun", ""), ("euler", ""), ("bns", "squared error"))):
        facts = {"trained on": said, "found with": "5 pairs of seed 7, 99 evaluations"} if said else {}
        row = row_of(solver, model=model, solver=solver, title=solver.title(), metrics={"psnr": 20.0 + place},
                     protocol={"noise": "philox", **facts})  # fmt: skip
        made.finish(row, {})
    (tmp_path / "frontier.toml").write_text('out = "results-frontier"\n')
    (tmp_path / "frontier-transfer.toml").write_text('out = "nowhere"\n')
    monkeypatch.setattr(program, "DOCS", tmp_path)
    page = program.filled(
        "a\n<!-- vp_psnr -->\n<!-- end -->\n<!-- learned -->\n<!-- end -->\n<!-- transfer -->\nold\n<!-- end -->\n"
    )
    assert "| Heun | 20.00 |" in page
    assert "trained on squared error: 5 pairs of seed 7, 99 evaluations" in page
    assert "| Euler, nsr | 21.00 |" in page
    assert "<!-- transfer -->\nold\n<!-- end -->" in page
    assert "nowhere is not there" in capsys.readouterr().out
