"""A store from elsewhere: readers read that store only, and show its words without obeying them."""

import ast
import csv
import json
import subprocess
import sys

import numpy as np
import pytest

from fastsample.results.row import Row
from fastsample.results.store import Store

ESCAPE = "\x1b]8;;http://evil.invalid\x07\x1b[31m\u202e\x9b"
MODELS = [
    "evil.toml", "evil.toml#a", "http://evil.invalid/m.safetensors", "hf://a/b/c.safetensors@main",
    "../../x.safetensors", "/etc/passwd", "secret.safetensors", "edm-cifar10-uncond-vp", "gmm2d", f"m{ESCAPE}",
    "=cmd|' /C calc'!A0", "[a](http://evil.invalid) ![b](http://evil.invalid/x.png) <img src=x> $x$",
]  # fmt: skip
SOLVERS = ["ddim", "evil.py", "os:system", "../../tables/x"]


def write(folder):
    """A store whose words name files, addresses and modules."""
    store = Store(folder)
    for number, model in enumerate(MODELS):
        for place, solver in enumerate(SOLVERS):
            cell = f"{number:08x}{place:08x}"
            row = Row(
                cell=cell, model=model, checkpoint_sha256="../../../../etc/passwd" if number % 2 else "",
                solver=solver, sampler=solver,
                title=f"{solver}{ESCAPE}", options={"order": "/etc/passwd"} if solver == "evil.py" else {},
                grid="file:/etc/passwd" if place % 2 else "file:secret.txt", times=[1.0, 0.5, 0.001], nfe_asked=2,
                nfe=2, forwards=2, guidance=0.0, samples=16, seed=0, precision="float32", device=f"cpu{ESCAPE}",
                metrics={"psnr": 30.0 + place, "psnr_reference": 60.0, "fd[../../secret]@16": 1.0},
                seconds={"network": 1.0, "solver": 0.1, "metrics": 0.1, "total": 1.2},
                protocol={
                    "psnr reference": f"fine{ESCAPE}", "reference[../../secret]": "../../../secret n=16",
                    "extractor[../../secret]": "/etc/passwd",
                },
                versions={"fastsample": "1"}, created=f"2026-01-01T00:00:00+00:00{ESCAPE}",
            )  # fmt: skip
            rng = np.random.default_rng(number)
            features = rng.standard_normal((16, 4)).astype(np.float32)
            store.finish(row, {"psnr": 30 + place + rng.standard_normal(16), "features[../../secret]": features})
    store.summarise()
    return folder


SPY = """
import contextlib, io, os, sys
from pathlib import Path

import numpy, pandas, torch, matplotlib.backends.backend_svg, matplotlib.backends.backend_agg
from fastsample.bench.cli import app as cli, words
import fastsample.bench.metrics.measures
from fastsample.bench import pictures, replay, suite
from fastsample.results import baseline, gate, published, recommend, report, tables
from fastsample.results.papers import audit

store, allowed = os.path.realpath(sys.argv[1]), tuple(map(os.path.realpath, (
    sys.prefix, sys.base_prefix, Path(cli.__file__).parents[2], *sys.path[1:], "/usr", "/dev", "/proc", "/sys", "out")))
seen = set()

def hook(event, arguments):
    if event == "open" and isinstance(arguments[0], str | bytes):
        name = os.path.realpath(os.fsdecode(arguments[0]))
        if not name.startswith((store, *allowed)):
            seen.add(("open", os.fsdecode(arguments[0])))
    elif event.startswith(("socket.connect", "socket.getaddrinfo", "urllib", "subprocess", "os.system", "os.exec")):
        seen.add((event, str(arguments[-1])))
    elif event == "import" and any(word in arguments[0] for word in ("evil", "secret")):
        seen.add((event, arguments[0]))

sys.addaudithook(hook)
told = {}
for number, typed in enumerate(eval(sys.argv[2])):
    sys.argv = ["fastsample", *typed]
    out, err = io.StringIO(), io.StringIO()
    words.console.file, words.errors.file = out, err
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
    told[number] = code, out.getvalue(), err.getvalue()
print(repr((sorted(seen), told)))
"""
COMMANDS = [
    ["show", "S"], ["table", "S"], ["table", "S", "--published", "--format", "markdown"], ["audit", "S"],
    ["table", "S", "--metric", "fd", "--format", "csv"], ["table", "S", "--format", "latex"],
    ["table", "S", "--format", "html"], ["show", "S", "--format", "csv"], ["show", "S", "--format", "markdown"],
    ["recommend", "S", "--budget", "2"], ["recommend", "S", "--budget", "2", "--json"],
    ["plot", "S", "-o", "out/a.svg"],
    ["plot", "S", "--kind", "error", "--solver", "ddim", "--images", "8", "-o", "out/b.svg"],
    ["plot", "S", "--kind", "curvature", "--images", "8", "-o", "out/c.svg"],
    ["plot", "S", "--kind", "samples", "--model", "/etc/passwd", "-o", "out/d.png"],
    ["report", "S", "--images", "1", "-o", "out/report.html"], ["diff", "S", "0000000000000000", "0000000100000001"],
    ["baseline", "S", "-o", "out/base.json"], ["check", "S", "--baseline", "out/base.json", "--junit", "out/j.xml",
                                               "--summary", "out/s.md"],
]  # fmt: skip


@pytest.fixture(scope="module")
def readers(tmp_path_factory):
    """What every reader tells of a hostile store, and what it opened outside of it, in one process."""
    folder = tmp_path_factory.mktemp("hostile")
    write(folder / "store")
    (folder / "out").mkdir()
    (folder / "evil.toml").write_text("[a]\n")
    (folder / "secret.txt").write_text("1 0.5 0.001")
    np.savez(folder / "secret.npz", mu=np.zeros(4))
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    commands = [["store" if word == "S" else word for word in words] for words in COMMANDS]
    result = subprocess.run(
        [sys.executable, "-c", SPY, "store", repr(commands)], cwd=folder, capture_output=True, text=True, check=False,
        env={"PATH": "/usr/bin:/bin", "FASTSAMPLE_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1",
             "MPLCONFIGDIR": str(folder / "out"), "HOME": str(folder / "out")},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    seen, told = ast.literal_eval(result.stdout.splitlines()[-1])
    return folder, seen, {" ".join(words): told[number] for number, words in enumerate(COMMANDS)}


def test_readers_open_nothing_but_the_store(readers):
    _, seen, _ = readers
    assert seen == []


def test_every_reader_ends_as_it_should(readers):
    _, _, told = readers
    for words, (code, _, err) in told.items():
        assert "Traceback" not in err
        assert code == (2 if "samples" in words else 0), (words, err)


def test_what_cannot_be_sampled_again_is_told_in_a_line(readers):
    folder, _, told = readers
    err = told["plot S --kind curvature --images 8 -o out/c.svg"][2]
    without = [line for line in err.splitlines() if line.startswith("without a model")]
    assert len(without) == len(MODELS) - 1  # all but gmm2d
    assert "without a model: evil.toml is no model of the package; --checkpoint FILE names it" in err
    assert "edm-cifar10-uncond-vp is not here; `fastsample models fetch" in err
    assert "/etc/passwd is no model of the package" in told["plot S --kind samples --model /etc/passwd -o out/d.png"][2]
    assert "evil.toml is no model of the package" in (folder / "out" / "report.html").read_text()


def test_no_word_of_a_store_steers_a_terminal_or_a_page(readers):
    folder, _, told = readers
    texts = [text for _, *both in told.values() for text in both]
    pages = [file for end in ("svg", "html", "md", "xml") for file in (folder / "out").glob(f"*.{end}")]
    assert len(pages) == 6
    texts += [file.read_text("utf-8") for file in pages]
    texts.append((folder / "store" / "rows.csv").read_text("utf-8"))
    for text in texts:
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(text)
    assert r"\x1b" in told["show S"][1]
    assert r"\u202e" in told["show S --format csv"][1]  # a screen may fold it
    assert json.loads(told["recommend S --budget 2 --json"][1])


def test_markdown_of_a_store_has_no_link_image_or_html(readers):
    folder, _, told = readers
    for text in (
        told["table S --published --format markdown"][1], told["show S --format markdown"][1],
        (folder / "out" / "s.md").read_text(),
    ):  # fmt: skip
        assert r"\[a\](http\://evil.invalid) !\[b\](http\://evil.invalid/x.png) \<img src=x\> \$x\$" in text
        assert "](http" not in text.replace(r"\](", "")
        assert "<img" not in text.replace(r"\<img", "")


def test_csv_of_a_store_has_no_formula(readers):
    folder, _, told = readers
    for text in (
        told["show S --format csv"][1], told["table S --metric fd --format csv"][1],
        (folder / "store" / "rows.csv").read_text(),
    ):  # fmt: skip
        assert "'=cmd" in text
        cells = [cell for line in csv.reader(text.splitlines()) for cell in line]
        assert not [cell for cell in cells if cell[:1] in tuple("=@+")]
