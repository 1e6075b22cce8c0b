"""Whatever a command line says, it ends as it should: with 0, 1, 2 or 130, one message, and nothing left behind."""

import re
import sys

import pytest
from rich.console import Console

from fastsample.bench.cli import app as cli
from fastsample.bench.request import Request
from fastsample.bench.sweep import run_sweep
from fastsample.results.store import Store

from .campaign import World, lines

BOX = re.compile(r"^╭─ Error ─+╮$", re.M)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder of traps, with one good store whose reference solutions are cached."""
    folder = tmp_path_factory.mktemp("campaign")
    found = World(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTSAMPLE_HOME", str(folder / "home"))
        asked = Request(
            model="gmm2d", solver=("euler", "heun"), nfe=(2, 4), samples=8, metrics=("psnr", "curvature"),
            out=folder / "store",
        )  # fmt: skip
        assert run_sweep(asked, Console(quiet=True)) == []
    return found


def play(words, world, monkeypatch, capsys):
    """What is wrong with the end of one line; "" if nothing is."""
    monkeypatch.chdir(world.folder)
    monkeypatch.setenv("FASTSAMPLE_HOME", str(world.folder / "home"))
    monkeypatch.setattr(sys, "argv", ["fastsample", *words])
    before = {row.cell for row in Store("store").rows()}
    try:
        cli.main()
        code: object = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException as error:
        code = repr(error)
    out, error = capsys.readouterr()
    after = {row.cell for row in Store("store", create=False).rows()}
    said = len(re.findall(r"^(?:error|failed): ", error, re.M)) + len(BOX.findall(error))
    helped = "Usage: " in out and code in (0, 2) and not said  # a group without a command
    each_cell = words[:1] == ["bench"] and code == 1 and said > 1
    verdict = words[:1] == ["check"] and code in (1, 2) and not said  # of the gate
    wrong = {
        "exit code": code not in (0, 1, 2, 130),
        "messages": not (said == (code in (1, 2)) or helped or each_cell or verdict),
        "traceback": "Traceback" in out + error,
        "nothing said": "Aborted" in out + error or "No objects to concatenate" in error,
        "rows lost": not before <= after,
        "row of a refused line": code == 2 and before != after,
        "left behind": [*world.folder.rglob("*.part"), *world.folder.glob("*/partial/*")],
    }
    found = [name for name, is_so in wrong.items() if is_so]
    return f"{found} {words}: exit {code}\n{out[-1000:]}\n{error[-1000:]}" if found else ""


def campaign(count, seed, *arguments):
    problems = list(filter(None, (play(words, *arguments) for words in lines(arguments[0], count, seed))))
    assert not problems, "\n\n".join(problems)


def test_forty_lines(world, monkeypatch, capsys):
    campaign(40, 1, world, monkeypatch, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_five_hundred_lines(seed, world, monkeypatch, capsys):
    campaign(50, 1000 + seed, world, monkeypatch, capsys)
