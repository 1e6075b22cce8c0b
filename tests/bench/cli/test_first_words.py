"""What is answered to someone who does not know the tool yet: what there is to choose from, and how it is typed."""

import io
import re

import pytest
from rich.text import Text
from typer.main import get_command

from fastsample.bench.cli.app import app
from fastsample.bench.cli.words import Screen
from fastsample.bench.request import RequestError, read_request
from fastsample.results.overview import select
from fastsample.results.row import frame_of
from fastsample.results.storage.writable import check_file, check_folder

from ...command import command
from ...rows import row_of


def told(*words):
    """What a refused command says, in one line without a frame."""
    ended = command(*words)
    assert ended.code == 2
    return " ".join(re.sub("[│─╭╮╰╯]", " ", ended.err).split())


def test_a_folder_that_takes_no_file_is_not_called_missing(tmp_path, monkeypatch):
    def none(**_):
        raise FileNotFoundError(2, "No such file or directory")  # as in /proc

    monkeypatch.setattr("tempfile.TemporaryFile", none)
    with pytest.raises(ValueError, match=f"output folder {tmp_path}/x: no file can be made in {tmp_path}$"):
        check_folder(tmp_path / "x")
    with pytest.raises(ValueError, match=f"there is no folder {tmp_path / 'nowhere'}$"):
        check_file(tmp_path / "nowhere" / "y" / "x.png")


SEVERAL = "several are separated by commas: 5,10"


@pytest.mark.parametrize("word", ["ten", "5-10", "0", "5.5"])
@pytest.mark.parametrize(
    "words",
    [
        ("bench",), ("time",), ("encode",), ("plot", "s"), ("distill", "bns"), ("find", "gits"), ("sample",),
        ("explain", "ddim"), ("export", "--solver", "ddim", "--to", "json"), ("score", "x", "--name", "x"),
        ("published",),
    ],
    ids=lambda words: words[0],
)  # fmt: skip
def test_every_command_says_the_same_of_an_nfe_that_is_none(words, word):
    most = 256 if words[0] in ("distill", "find", "explain", "export") else 10000
    most = 100000 if words[0] == "published" else most
    one = words[0] in ("sample", "explain", "export", "score", "published")
    end = "this command takes one" if one else SEVERAL
    assert told(*words, "--nfe", word) == f"error: --nfe takes whole numbers from 1 to {most}, not {word}; {end}"


def test_a_file_of_a_sweep_says_it_too(tmp_path):
    for text in ('"ten"', "[5, 0]", "true"):
        (tmp_path / "s.toml").write_text(f"nfe = {text}\n", "utf-8")
        with pytest.raises(RequestError, match=f"^nfe takes whole numbers from 1 to 10000, not .*; {SEVERAL}$"):
            read_request(tmp_path / "s.toml")
    assert read_request(None, nfe=8).nfe == (8,)
    assert read_request(None, nfe=range(4, 6)).nfe == (4, 5)


def test_a_number_that_stands_alone_is_perhaps_one_of_several():
    assert "(10); several numbers are separated by commas: --nfe 5,10" in told("bench", "--nfe", "5", "10")
    assert "separated" not in told("bench", "scire")


def test_what_is_missing_is_named_with_what_there_is():
    assert "Missing argument 'what'. solvers, tables, models," in told("list")
    assert "gits, oss or dmn" in told("find")
    assert "NAME [:OPTION=VALUE,...]" in told("explain")
    assert "What made them" in told("score", "images")


COMMANDS = get_command(app)


def commands(group=COMMANDS, *names):
    """(names, command) of every command, with those of groups."""
    for name, one in group.commands.items():
        yield (*names, name), one
        if hasattr(one, "commands"):
            yield from commands(one, *names, name)


def test_both_spellings_of_metrics_are_taken_everywhere():
    found = {names: one for names, one in commands() for param in one.params if param.name in ("metric", "metrics")}
    assert {("bench",), ("score",), ("table",), ("plot",), ("recommend",), ("audit",)} <= found.keys()
    whole = COMMANDS.make_context("fastsample", ["bench"])
    for (name,), one in found.items():
        given = {"score": ["x", "--name", "x", "--nfe", "1"]}.get(name, [])
        for word in ("--metric", "--metrics"):
            params = one.make_context(name, [*given, word, "fd"], parent=whole).params
            assert params.get("metric", params.get("metrics")) in ("fd", ["fd"]), (name, word)


@pytest.mark.parametrize(
    ("names", "one"), [*commands()], ids=lambda words: " ".join(words) if isinstance(words, tuple) else ""
)
def test_nothing_is_cut_in_the_help_of_a_narrow_terminal(names, one, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = command(*names, "--help")
    assert shown.code == 0
    assert "…" not in shown.out
    assert "docs/" not in shown.out  # which only a clone has


def test_numbers_that_there_are_stand_in_their_order():
    rows = frame_of([row_of(f"c{nfe}", nfe_asked=nfe) for nfe in (10, 4, 5)])
    with pytest.raises(ValueError, match=r"no row fits '7'; there are 4, 5, 10$"):
        select(rows, where=["nfe_asked=7"])


def test_sentences_are_wrapped_on_a_terminal_alone_and_no_number_in_them_is_coloured():
    long = "a sentence of 42 words, which is longer than a narrow terminal is wide"
    seen = {}
    for terminal in (True, False):
        screen = Screen(file=io.StringIO(), width=30, force_terminal=terminal, color_system="truecolor")
        screen.print(long)
        screen.print(Text(long))
        seen[terminal] = screen.file.getvalue()
    assert seen[False] == f"{long}\n{long}\n"
    assert seen[True].count("\n") > 4
    assert "\x1b" not in seen[True]


def test_a_table_is_written_in_a_format_that_is_known(tmp_path):
    assert "tables are written as .md, .tex, .html, .csv, .txt, not 't.xyz'" in told(
        "published", "-o", tmp_path / "t.xyz"
    )
    assert not (tmp_path / "t.xyz").exists()
    assert command("published", "--paper", "2308.07896", "-o", tmp_path / "t.xyz", "--format", "csv").code == 0
    words = ["published", "--paper", "2308.07896", "-o", tmp_path / "t.txt"]
    assert command(*words).code == 0


def test_verify_draws_a_picture_only_when_one_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command("verify", "--solver", "ddim", "--golden", tmp_path).code == 0
    assert list(tmp_path.iterdir()) == []
