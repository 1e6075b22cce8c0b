"""table, show, diff and published, on a store that bench made of an exact model."""

import io
import subprocess
import sys

import pandas as pd
import pytest

from fastsample.bench.suite import suite
from fastsample.results.overview import overview
from fastsample.results.store import Store
from fastsample.results.tables import table_of

from ...command import command
from ...rows import row_of


def run(*words):
    """(exit code, output) of a command."""
    code, out, err = command(*words)
    return code, err if code else out


def bench(out, solver, *more):
    words = ["bench", "--model", "gmm2d", "--solver", solver, "--nfe", "4,5", "--metrics", "psnr", "--out", out, *more]
    code, output = run(*words)
    assert code == 0, output


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTSAMPLE_HOME", str(folder / "home"))
        bench(folder / "store", "heun,ddim,unipc", "--samples", "32")
    return folder / "store"


def test_a_table_of_a_store(store):
    code, text = run("table", store, "--format", "markdown")
    assert code == 0
    lines = text.splitlines()
    assert lines[0] == r"PSNR \[dB\] ↑, gmm2d, 32 samples, seed 0"
    assert lines[2] == "| Solver / NFE | 4 | 5 |"
    rows = dict(line.split(" | ", 1) for line in lines[4:7])
    assert set(rows) == {"| Heun (RK2)", "| DDIM", "| UniPC"}
    assert rows["| Heun (RK2)"].rstrip(" |").endswith("<sup>a</sup>")
    assert "<sup>a</sup> 1 evaluation fewer than asked" in text
    assert all(row.count(" ± ") == 2 for row in rows.values())
    assert "agrees with itself at half the steps" in text
    facts = Store(store).frame().set_index(["solver", "nfe_asked"])["metrics.psnr"]
    code, text = run("table", store, "--format", "csv")
    read = pd.read_csv(io.StringIO(text)).set_index(["solver", "nfe"])
    for key, value in facts.items():
        assert read["value"][key] == pytest.approx(value)
        assert read["low"][key] < value < read["high"][key]


def test_choosing_and_turning(store):
    words = ["--solver", "unipc,ddim", "--where", "nfe_asked=5", "--rows", "nfe", "--columns", "solver"]
    code, text = run("table", store, *words, "--no-intervals", "--format", "markdown")
    assert code == 0
    assert text.splitlines()[2] == "| NFE | UniPC | DDIM |"
    assert "±" not in text


@pytest.mark.parametrize("ending", [".md", ".tex", ".html", ".csv", ".txt"])
def test_the_ending_of_the_file_chooses_the_format(store, ending, tmp_path):
    out = tmp_path / f"table{ending}"
    code, _ = run("table", store, "-o", out)
    assert code == 0
    signs = {".md": "| --- |", ".tex": r"\toprule", ".html": "<table>", ".csv": "model,solver,", ".txt": "━"}
    assert signs[ending] in out.read_text("utf-8")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--metric", "fid"], "no row has the metric 'fid'; there are psnr"),
        (["--rows", "sampler"], "rows and columns are of"),
        (["--format", "word"], "unknown format 'word'"),
        (["--solver", "rk4"], "no row fits 'rk4'; there are ddim, heun, unipc"),
        (["--where", "nfee=3"], "unknown field of rows 'nfee'; did you mean nfe"),
        (["--where", "nfe=7"], "no row fits '7'; there are 4, 5"),
    ],
)
def test_a_bad_request_names_what_there_is(store, words, message):
    code, text = run("table", store, *words)
    assert code == 2
    assert message in text


def test_a_mixed_store_is_refused_with_the_reason(tmp_path):
    bench(tmp_path / "mixed", "heun", "--samples", "16")
    bench(tmp_path / "mixed", "ddim", "--samples", "24")
    code, told = run("table", tmp_path / "mixed")
    assert code == 2
    assert "samples is '16' in one row and '24' in another" in told
    assert "--where" in told
    code, text = run("table", tmp_path / "mixed", "--where", "samples=24", "--format", "markdown")
    assert code == 0
    assert "24 samples" in text


def test_an_empty_store_says_so(tmp_path):
    Store(tmp_path / "empty")
    for name, expected in (("table", 2), ("show", 0)):
        code, text = run(name, tmp_path / "empty")
        assert code == expected
        assert "holds no finished cell" in text


def test_show_writes_the_overview(store):
    code, text = run("show", store, "--format", "csv")
    assert code == 0
    read = pd.read_csv(io.StringIO(text))
    assert read["PSNR [dB]"].tolist() == pytest.approx(overview(Store(store).frame())["PSNR [dB]"].tolist())
    assert len(read) == 6


def public_row(cell, solver, title, nfe, fid):
    return row_of(
        cell, model="edm-cifar10-uncond-vp", solver=solver, title=title, grid="karras", times=[80.0, 0.002],
        nfe_asked=nfe, nfe=nfe, forwards=nfe, samples=50_000, device="cuda", metrics={"fid@50000": fid},
    )  # fmt: skip


@pytest.mark.parametrize(("metric", "loaded"), [("psnr", False), ("of-my-own", True)])
def test_a_table_loads_torch_and_the_measures_only_for_a_metric_that_is_not_known(metric, loaded, tmp_path):
    Store(tmp_path).finish(row_of(metrics={metric: 1.0}), {})
    words = ["fastsample", "table", str(tmp_path), "--metric", metric, "--format", "csv"]
    told = 'print(*({"torch", "fastsample.bench.metrics.measures"} & {*sys.modules}))'
    code = f"import atexit, sys; from fastsample.bench.cli.app import main; sys.argv = {words}; "
    code += f"atexit.register(lambda: {told}); main()"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert bool(ended.stdout.splitlines()[-1]) == loaded, ended.stdout


def test_published_numbers_stand_in_columns_of_their_own(tmp_path):
    store = Store(tmp_path / "public")
    store.finish(public_row("a", "ipndm", "iPNDM", 10, 2.95), {})
    store.finish(public_row("b", "ddim", "DDIM", 10, 15.0), {})
    store.finish(public_row("c", "ipndm", "iPNDM", 20, 2.10), {})
    sheet = table_of(store, suite=suite())
    assert [[entry.text for entry in line] for line in sheet.heads] == [
        ["NFE 10", "NFE 10", "NFE 10", "NFE 20"], ["measured", "published", "difference", "measured"],
    ]  # fmt: skip
    ipndm, ddim = ([entry.text for entry in line] for _, line in sheet.lines)
    assert ipndm == ["2.95", "2.77", "0.18", "2.10"]
    assert ddim == ["15.00", "-", "-", "-"]
    letter = sheet.lines[0][1][1].marks[0]
    assert "2312.00094" in dict(sheet.notes)[letter]
    assert sheet.lines[0][1][0].rank == "best"  # a reported number does not compete
    plain = table_of(store)
    assert [entry.text for entry in plain.heads[-1]] == ["10", "20"]


def test_a_number_of_another_protocol_stands_there_without_a_difference(tmp_path):
    """UniPC: DPM-Solver-v3 floors, diff-sampler thresholds."""
    store = Store(tmp_path / "public")
    store.finish(public_row("a", "unipc", "UniPC", 10, 2.95).model_copy(update={"grid": "logsnr"}), {})
    sheet = table_of(store, suite=suite())
    ((_, line),) = sheet.lines
    assert [entry.text for entry in line] == ["2.95", "2.85 / 2.89", "-"]
    told = [text for letter, text in sheet.notes if "protocols differ" in text]
    assert told == [
        "No difference is formed where protocols differ: uint8 floor, here round; threshold quantile 0.995, here none."
    ]
    row = public_row("a", "unipc", "UniPC", 10, 2.95).model_copy(update={"grid": "logsnr"})
    floor = row.protocol | {"uint8": "floor(clip(127.5 x + 127.5, 0, 255))"}
    store = Store(tmp_path / "floor")
    store.finish(row.model_copy(update={"protocol": floor}), {})
    ((_, line),) = table_of(store, suite=suite()).lines
    assert [entry.text for entry in line] == ["2.95", "2.85 / 2.89", "0.10 / -"]


def test_embedded_and_exact_models_have_none(store):
    code, text = run("table", store, "--published", "--format", "markdown")
    assert code == 0
    assert "No published numbers are known for gmm2d." in text
    assert "measured" not in text


def test_published_searches():
    code, text = run("published", "--paper", "2308.07896", "--dataset", "cifar10", "--solver", "scire", "--nfe", 12)
    assert code == 0
    assert "2.29" in text
    code, text = run("published", "--paper", "2308.07896", "--solver", "scire", "--nfe", 12, "--format", "csv")
    assert "README of the authors' code" in text
    code, text = run("published", "--model", "edm-cifar10-uncond-vp", "--metric", "fid", "--format", "csv")
    read = pd.read_csv(io.StringIO(text))
    assert set(read["model"]) == {"edm-cifar10-uncond-vp"}
    assert read["evidence"].notna().all()
    words = ["--method", "gas", "--trained-on", "adversarial", "--confidence", "high"]
    code, text = run("published", *words, "--format", "csv")
    read = pd.read_csv(io.StringIO(text))
    assert [set(read[name]) for name in ("method", "trained_on", "confidence")] == [{"gas"}, {"adversarial"}, {"high"}]
    assert len(read) > 10
    code, text = run("published", "--nfe", 12345)
    assert code == 0
    assert "no published number fits" in text


def test_what_the_registry_knows():
    same = suite().same
    assert same("unipc") == same("unipc:order=3") != same("unipc:order=2")
    assert same("my-own:x=1") == "my-own:x=1"
