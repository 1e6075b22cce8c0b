"""Whatever a command line says, it ends as it should: with 0, 1, 2 or 130, one message, and nothing left behind."""

import re
import sys

import pytest
from rich.console import Console

from fastsample.bench import cli
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


def messages(out, error):
    """How often something is said to be wrong."""
    return len(re.findall(r"^(?:error|failed): ", error, re.M)) + len(BOX.findall(error)) + len(BOX.findall(out))


def play(words, world, monkeypatch, capsys):
    """Run one line and look at what it left."""
    monkeypatch.chdir(world.folder)
    monkeypatch.setenv("FASTSAMPLE_HOME", str(world.folder / "home"))
    monkeypatch.setattr(sys, "argv", ["fastsample", *words])
    before = {row.cell for row in Store("store").rows()}
    with pytest.raises(SystemExit) as end:
        cli.main()
    code, (out, error) = end.value.code or 0, capsys.readouterr()
    said = f"{words}: exit {code}\n{out[-2000:]}\n{error[-2000:]}"
    assert code in (0, 1, 2, 130), said
    assert "Traceback" not in out + error, said
    assert "Aborted" not in out + error, said
    if code in (1, 2) and words[:1] not in (["check"], [""]):
        many = words[0] == "bench" and code == 1  # a failing cell each
        assert messages(out, error) == 1 or (many and messages(out, error) > 1), said
    if code == 0:
        assert messages(out, error) == 0, said
    after = {row.cell for row in Store("store", create=False).rows()}
    assert before <= after, said
    if code == 2:
        assert before == after, said
    assert not [file for file in world.folder.rglob("*.part")], said
    assert not [file for file in world.folder.glob("*/partial/*")], said


def test_forty_lines(world, monkeypatch, capsys):
    for words in lines(world, 40, seed=1):
        play(words, world, monkeypatch, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_five_hundred_lines(seed, world, monkeypatch, capsys):
    for words in lines(world, 50, seed=1000 + seed):
        play(words, world, monkeypatch, capsys)
