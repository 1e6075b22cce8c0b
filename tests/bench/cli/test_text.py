"""Files, terminals and words as people have them: byte-order marks, any locale, blanks and doubles in lists, ~."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Annotated, get_args, get_origin, get_type_hints

import pytest

from fastsample.bench.cli.app import app
from fastsample.bench.cli.words import path
from fastsample.bench.lists import sentences
from fastsample.bench.request import RequestError, read_request
from fastsample.datasets.home import data_home
from fastsample.models.checkpoints import model_file
from fastsample.models.public.cards import card_named
from fastsample.models.training.recipe import read_recipe
from fastsample.results.baseline import Baseline, BaselineError
from fastsample.results.store import Store
from fastsample.solvers.grids import Grid, GridError
from fastsample.solvers.table_file import TableFileError, read_table

from ...command import command

SMALL = ["--samples", "20", "--metrics", "psnr"]
RECIPE = 'like = "gauss8-flow"\ntitle = "é"\n'
CARD = (
    '[mine]\nlike = "edm-cifar10-uncond-vp"\ntitle = "é ε"\nfile = "f.pkl"\nsize_mb = 1\npage = "https://example.org"\n'
)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The text of a file of each kind that a user brings, with how it is read and what it holds."""
    folder = tmp_path_factory.mktemp("written")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTSAMPLE_HOME", str(folder / "home"))
        bench = ["bench", "--model", "gmm2d", "--solver", "ddim", "--nfe", "4", *SMALL, "--out", folder / "store"]
        assert command(*bench).code == 0
        assert command("baseline", folder / "store", "-o", folder / "baseline.json").code == 0
        export = ["export", "--solver", "ddim", "--nfe", "4", "--model", "gmm2d", "--to", "json", "-o"]
        assert command(*export, folder / "table.json").code == 0
    return {
        "sweep.toml": ('solver = "ddim"  # é\n', read_request, lambda found: found.solver == ("ddim",), RequestError),
        "recipe.toml": (RECIPE, lambda file: read_recipe(str(file)), lambda found: found.title == "é", ValueError),
        "card.toml": (CARD, lambda file: card_named(str(file)), lambda found: found.title == "é ε", ValueError),
        "grid.txt": ("1.0\n0.5\n0.001\n", lambda file: Grid.parse(f"file:{file}"), lambda found: len(found.times) == 3,
                     GridError),
        "grid.json": ("[1.0, 0.5, 0.001]", lambda file: Grid.parse(f"file:{file}"), lambda found: len(found.times) == 3,
                      GridError),
        "baseline.json": ((folder / "baseline.json").read_text("utf-8"), Baseline.read,
                          lambda found: len(found.cells) == 1, BaselineError),
        "table.json": ((folder / "table.json").read_text("utf-8"), read_table, lambda found: found.nfe == 4,
                       TableFileError),
    }  # fmt: skip


COMMAND = [sys.executable, "-c", "from fastsample.bench.cli.app import main; main()"]


def ended(words, folder, **environment):
    """(exit code, stdout and stderr) of the command line in a process of its own."""
    done = subprocess.run([*COMMAND, *words], cwd=folder, env={**os.environ, **environment}, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
    return done.returncode, done.stdout.decode("utf-8", "replace")


KINDS = ["sweep.toml", "recipe.toml", "card.toml", "grid.txt", "grid.json", "baseline.json", "table.json"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_mark_and_line_ends_of_windows_do_not_matter(kind, written, tmp_path):
    text, read, right, _ = written[kind]
    for content in (text.encode("utf-8-sig"), text.replace("\n", "\r\n").encode("utf-8-sig")):
        (tmp_path / kind).write_bytes(content)
        assert right(read(tmp_path / kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf_16_is_told(kind, encoding, written, tmp_path):
    text, read, _, error = written[kind]
    (tmp_path / kind).write_bytes(text.encode(encoding))
    with pytest.raises(error, match=r"is UTF-(16|32) text; save it as UTF-8"):
        read(tmp_path / kind)


@pytest.mark.parametrize("kind", ["sweep.toml", "recipe.toml", "card.toml"])
def test_another_encoding_is_told_with_its_line(kind, written, tmp_path):
    text, read, _, error = written[kind]
    (tmp_path / kind).write_bytes(b"# one\n" + text.encode("cp1252", "replace"))
    line = next(i for i, one in enumerate(text.splitlines(), 2) if "é" in one)
    with pytest.raises(error, match=f"byte 0xe9 in line {line} is not UTF-8; save it as UTF-8"):
        read(tmp_path / kind)


@pytest.mark.parametrize("name", ["zeiten-ä.txt", os.fsdecode(b"zeiten-\xe4.txt")])
def test_a_name_of_a_file_that_is_not_utf_8(name, tmp_path):
    (tmp_path / name).write_text("1.0\n0.5\n0.001\n", "utf-8")
    words = ["--model", "gmm2d", "--solver", "ddim", "--nfe", "2", "--grid", f"file:{tmp_path / name}", *SMALL]
    assert command("bench", *words, "--out", tmp_path / "s").code == 0
    (row,) = Store(tmp_path / "s").rows()
    assert row.grid.startswith(("file:zeiten-ä.txt@", "file:zeiten-\\xe4.txt@"))


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_pipe_of_few_letters_gets_tables_without_boxes(encoding, tmp_path):
    code, out = ended(["--help"], tmp_path, PYTHONIOENCODING=encoding)
    assert (code, out.isascii()) == (0, True)
    code, out = ended(["show", "läger-ε"], tmp_path, PYTHONIOENCODING=encoding)
    assert (code, out.count("\n")) == (2, 1)
    assert "ger-\\u03b5 is no store" in out


@pytest.mark.parametrize(
    ("words", "ends"), [("--help", {0, 1}), ("published --format csv", {0, 1}), ("show nowhere", {2, 1})]
)
def test_nobody_listens(words, ends, tmp_path):
    call = shlex.join([*COMMAND, *words.split()])
    for shell in ("{} >&-", "{} >&- 2>&-", "{} <&- >&-", "{} 2>&1 | true"):
        line = f"set -o pipefail; {shell.format(call)}"
        done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode in (ends if "|" in shell else ends - {1}), (shell, done)
        assert len(done.stderr.splitlines()) <= (2 in ends), (shell, done.stderr)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["ddim, scire"], ("ddim", "scire")),
        (["ddim,,scire,", "ddim"], ("ddim", "scire")),
        (["scire:order=3, mode=multistep , ddim"], ("scire:order=3,mode=multistep", "ddim")),
        (["scire: order = 3"], ("scire:order=3",)),
        (["vp-time:rho=2,eps=0.01, karras:rho=5"], ("vp-time:rho=2,eps=0.01", "karras:rho=5")),
        ([" , "], ()),
    ],
)
def test_lists_with_parameters_blanks_and_doubles(texts, found, tmp_path):
    assert sentences(texts) == found
    file = tmp_path / "sweep.toml"
    file.write_text(f"solver = {json.dumps(', '.join(texts))}\n", "utf-8")
    if found:
        assert read_request(file).solver == found


def test_a_list_in_one_text_of_a_file(tmp_path):
    file = tmp_path / "sweep.toml"
    file.write_text('nfe = "5, 10, 05,"\nmodel = [" gmm2d ", "gmm2d"]\nmetrics = "psnr, fd,"\ngrid = "a:b=1, c=2, d"\n')
    asked = read_request(file)
    assert (asked.nfe, asked.model, asked.metrics, asked.grid) == (
        (5, 10), ("gmm2d",), ("psnr", "fd"), ("a:b=1,c=2", "d")
    )  # fmt: skip


def test_doubles_are_one_cell(tmp_path):
    words = ["--solver", "ddim, ddim", "--nfe", "4, 04,4", "--grid", "karras,karras:rho=7, karras"]
    done = command("bench", "--model", "gmm2d,gmm2d", *words, *SMALL, "--out", tmp_path / "s")
    assert done.code == 0
    assert "\n1 rows in" in done.out
    assert len(Store(tmp_path / "s").rows()) == 1
    shown = [
        command("table", tmp_path / "s", "--metric", "psnr, psnr,", "--columns", text) for text in ("nfe", "nfe, nfe,")
    ]
    assert shown[0].out == shown[1].out


def test_every_path_knows_the_home_folder(tmp_path, monkeypatch):
    """Of a command's options that are paths, of words that may be files, of TOML files, and of FASTSAMPLE_HOME."""

    def callbacks(app):
        yield from (command.callback for command in app.registered_commands)
        for group in app.registered_groups:
            yield from callbacks(group.typer_instance)

    hints = [hint for call in callbacks(app) for hint in get_type_hints(call, include_extras=True).values()]
    found = [
        hint.__metadata__[0].parser
        for hint in hints
        if get_origin(hint) is Annotated and Path in (get_args(hint)[0], *get_args(get_args(hint)[0]))
    ]
    assert Path not in hints
    assert len(found) > 25
    assert set(found) == {path}
    monkeypatch.setenv("HOME", str(tmp_path))
    assert path("~nobody-here/x") == Path("~nobody-here/x")
    for name, text in (
        ("s.toml", 'out = "~/store"\ngrid = "file:~/g.txt"\n'),
        ("g.txt", "1.0 0.5 0.001"),
        ("card.toml", CARD),
        ("r.toml", RECIPE),
    ):
        (tmp_path / name).write_text(text, "utf-8")
    words = ["--model", "gmm2d", "--solver", "ddim", "--nfe", "2", *SMALL]
    assert command("bench", "--config=~/s.toml", *words).code == 0
    assert len(Store(tmp_path / "store", create=False).rows()) == 1
    assert command("show", "~/store", "-o", "~/rows.csv").code == 0
    assert (tmp_path / "rows.csv").is_file()
    assert command("models", "info", "~/card.toml").code == 0
    assert read_recipe("~/r.toml").title == "é"
    (tmp_path / "m.safetensors").touch()
    assert model_file("~/m.safetensors") == tmp_path / "m.safetensors"
    monkeypatch.setenv("FASTSAMPLE_HOME", "~/kept")
    assert data_home() == tmp_path / "kept"
