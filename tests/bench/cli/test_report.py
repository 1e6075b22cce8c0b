import json
import shlex

import pytest
from rich.console import Console

from fastsample.bench.request import Request
from fastsample.bench.sweep import run_sweep
from fastsample.results.commands import bench_command, export_command, sample_command
from fastsample.results.store import Store

from ...command import command


def sweep(out, **changes):
    facts = dict(
        model="gmm2d", solver=("heun", "dpmpp-2m:denoise=true", "dopri5"), nfe=(4, 8), samples=16, metrics=("psnr",),
        out=out,
    )  # fmt: skip
    assert run_sweep(Request(**facts | changes), Console(quiet=True)) == []


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTSAMPLE_HOME", str(folder / "home"))
        sweep(folder / "store")
    return folder / "store"


def output(*words):
    ended = command(*words)
    assert ended.code == 0, ended.err
    return ended.out


def refused(message, *words):
    ended = command(*words)
    assert ended.code == 2
    assert message in ended.err


def test_plot_writes_the_picture_that_its_name_asks_for(store, tmp_path):
    for name, beginning in (("a.png", b"\x89PNG"), ("a.svg", b"<?xml")):
        output("plot", store, "-o", tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(beginning)
    output("plot", store, "--kind", "error", "--nfe", "4,8", "--images", 4, "-o", tmp_path / "error.svg")
    output("plot", store, "--kind", "curvature", "--images", 8, "-o", tmp_path / "curvature.svg")
    assert len({file.read_bytes() for file in tmp_path.iterdir()}) == 4


def test_plot_says_what_it_cannot_draw(store, tmp_path):
    for words, message in (
        (("--nfe", "x"), "--nfe takes whole numbers from 1 to 10000, not x"),
        (("--kind", "samples"), "samples of gmm2d are no images"),
        (("--metric", "fid"), "no row has the metric 'fid'"),
        (("-o", tmp_path / "a.gif"), r".png or .svg, not 'a.gif'"),
    ):
        refused(message, "plot", store, "-o", tmp_path / "a.png", *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["plot", "report", "recommend"])
def test_a_store_without_rows_says_so(name, tmp_path):
    Store(tmp_path / "store")
    refused("holds no finished cell", name, tmp_path / "store")


def test_report_is_one_page_with_every_row(store, tmp_path):
    output("report", store, "-o", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    for row in Store(store, create=False).rows():
        assert row.cell in page
    assert page.count("<img") == 4  # quality against evaluations and seconds, errors, curvature
    assert "Not drawn: samples of gmm2d are no images" in page
    assert "gmm2d, by PSNR" in page
    without = tmp_path / "numbers.html"
    output("report", store, "--images", 0, "--solver", "heun", "-o", without)
    assert without.read_text().count("<img") == 2
    assert "Dormand-Prince" not in without.read_text()


def test_report_reads_the_samples_of_a_row_once(store, tmp_path, monkeypatch):
    read, per_sample = [], Store.per_sample
    monkeypatch.setattr(Store, "per_sample", lambda self, cell, of: read.append(cell) or per_sample(self, cell, of))
    output("report", store, "--images", 0, "-o", tmp_path / "report.html")
    assert sorted(read) == sorted(row.cell for row in Store(store, create=False).rows())


def test_report_of_a_mixed_store_says_why_there_is_no_table(store, tmp_path):
    sweep(tmp_path / "mixed", samples=16, solver=("heun",))
    sweep(tmp_path / "mixed", samples=20, solver=("dpmpp-2m",))
    output("report", tmp_path / "mixed", "-o", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "<table" not in page
    assert "samples is &#39;16&#39; in one row and &#39;20&#39; in another" in page
    refused("samples is '16' in one row and '20' in another", "recommend", tmp_path / "mixed", "--budget", 8)
    assert "DPM-Solver++(2M)" in output("recommend", tmp_path / "mixed", "--budget", 8, "--where", "samples=20")


def test_recommend_names_the_sampler_and_the_commands_that_play_it(store):
    text = output("recommend", store, "--budget", 8)
    assert text.startswith("gmm2d, at most 8 evaluations: DPM-Solver++(2M) (denoise=true) on grid logsnr, NFE 8, PSNR ")
    assert "Better by " in text
    assert "  fastsample export --model gmm2d --solver dpmpp-2m:denoise=true --nfe 8 --grid logsnr --to python" in text
    (one,) = json.loads(output("recommend", store, "--target-psnr", 90, "--json"))
    assert one["choice"]["solver"] == "dopri5"
    assert one["choice"]["made"] > 8
    assert len(one["commands"]) == 1  # an adaptive solver has no table to export


def test_recommend_refuses_what_it_cannot_decide(store):
    for words, message in (
        ((), "give a condition: --budget of evaluations, --target-psnr in dB, or --max-seconds of an image"),
        (("--budget", 3), "no row of gmm2d has at most 3 evaluations; there are NFE 4"),
        (("--target-psnr", 30, "--metric", "fd"), "cannot be given with --metric fd"),
    ):
        refused(message, "recommend", store, *words)


def test_commands_of_learned_solvers_leave_out_what_their_table_fixes(store):
    row = Store(store, create=False).rows()[0].model_copy(update={
        "solver": "bns", "grid": "learned", "options": {"transfer": "gmm2d"}, "protocol": {"table": "0" * 64},
        "guidance": 1.5,
    })  # fmt: skip
    assert "--solver bns:transfer=gmm2d --nfe 4 --seed 0 --guidance 1.5 --samples 16" in bench_command(row)
    assert "--solver bns:transfer=gmm2d --nfe 4 --seed 0 --guidance 1.5 -o" in sample_command(row)
    assert export_command(row) == (
        "fastsample export --model gmm2d --solver bns:transfer=gmm2d --nfe 4 --guidance 1.5 --to python"
    )
    odd = row.model_copy(update={"options": {"transfer": "mine.py:model"}})  # which no sentence holds
    assert "--solver bns --nfe 4 --transfer --seed 0" in bench_command(odd)


def test_the_command_of_a_row_repeats_it(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [row for row in Store(store, create=False).rows() if row.nfe_asked == 8]
    assert len(rows) == 3
    for row in rows:
        output(*shlex.split(bench_command(row))[1:])
    again = Store("results-again", create=False).rows()
    one, two = ({row.cell: row.metrics for row in found} for found in (rows, again))
    assert one == two
