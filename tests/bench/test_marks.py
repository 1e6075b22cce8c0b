"""Each output says what a sampler was trained on, with seeds and evaluations, and warns where its judge ranks it."""

import json

import numpy as np
import pytest

from fastsample.bench.cli import words
from fastsample.models.catalogue import open_model
from fastsample.results.evidence import Comparison
from fastsample.results.forms import figures
from fastsample.results.store import Store
from fastsample.solvers.found.shelf import FoundGrid, add_grid, add_statistics, of_model
from fastsample.solvers.found.statistics import Statistics
from fastsample.solvers.spec import complete, table_of

from ..command import command
from ..rows import row_of

FID, LPIPS = "fid@400", "lpips"
# Of each kind: solver, grid, title, what it was trained on, and how; and the metric of the same judge, if there is one.
KINDS = {
    "learned": ("bns", "learned", "BNS", "squared error", "520 pairs of seed 7, 108,040 evaluations", ""),
    "perceptual": ("ld3", "learned", "LD3", "LPIPS", "100 pairs of seed 8, 9,999 evaluations", LPIPS),
    "grid": ("ipndm", "gits", "iPNDM", "squared error", "dev, 64 noises of seed 9, 70,000 evaluations", ""),
    "statistics": ("dpm-solver-v3", "logsnr", "DPM-Solver-v3", "statistics", "64 samples of seed 10", ""),
    "imported": ("epd", "learned", "EPD", "Inception", "imported, unverified model: epd.json", FID),
}
WARNING = "no evidence for its rank"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A row of each kind, and a training-free one."""
    made, noise = Store(tmp_path_factory.mktemp("marks") / "store"), np.random.default_rng(0)
    rows = {"free": ("heun", "nsr", "Heun", "nothing", "", "")} | KINDS
    for place, (name, (solver, grid, title, said, how, _)) in enumerate(rows.items()):
        values = noise.normal(30 + place, 1, 400)
        metrics = {"psnr": float(values.mean()), FID: 9.0 - place, LPIPS: 0.5 - 0.01 * place}
        facts = {} if said == "nothing" else {"trained on": said, "found with": how}
        row = row_of(
            name, solver=solver, title=title, grid=grid, own_grid=grid, metrics=metrics,
            protocol={"noise": "philox", **facts},
        )  # fmt: skip
        made.finish(row, {"psnr": values, LPIPS: values / 60, f"influence[{FID}]": values[None] - values.mean()})
    return made.folder


def outputs(store, folder, metric):
    """(what, its text) of everything that speaks of a metric of the rows."""
    yield "show", command("show", store).out
    yield "show as markdown", command("show", store, "--format", "markdown").out
    for form in ("rich", "markdown", "latex", "html", "csv"):
        yield f"table as {form}", command("table", store, "--metric", metric, "--format", form).out
    assert command("report", store, "--images", 0, "-o", folder / "x.html").code == 0
    yield "report", (folder / "x.html").read_text("utf-8")
    assert command("baseline", store, "-o", folder / "b.json").code == 0
    words = ("check", store, "--baseline", folder / "b.json", "--all")
    yield "check", command(*words).out
    command(*words, "--junit", folder / "j.xml")
    yield "junit", (folder / "j.xml").read_text("utf-8")


def flat(text):
    return " ".join(text.replace("\\", "").replace("&amp;", "&").split())


@pytest.mark.parametrize("metric", ["psnr", FID, LPIPS])
def test_every_output_says_it(store, tmp_path, metric):
    for what, text in outputs(store, tmp_path, metric):
        for name, (_, _, _, said, how, judged) in KINDS.items():
            assert f"trained on {said}: {how}" in flat(text), (what, name)
            warned = f"{said} is what {metric} is made of: {WARNING}"
            if judged == metric and not what.startswith(("show", "report", "check", "junit")):
                assert warned in flat(text).replace("^{@}", "@"), (what, name)
        for judged, said in ((FID, "Inception"), (LPIPS, "LPIPS")):
            if not what.startswith("table"):  # these speak of all metrics
                assert f"{said} is what {judged} is made of: {WARNING}" in flat(text), what
            elif judged != metric:
                assert f"{said} is what" not in flat(text), what


def test_recommend_says_it_of_what_it_names(store):
    told = flat(command("recommend", store, "--budget", 10, "--metric", FID).out)
    assert "EPD on grid learned, NFE 10 (trained on Inception)" in told
    assert f"EPD is trained on Inception: imported, unverified model: epd.json; Inception is what {FID}" in told
    assert WARNING in told
    (one,) = json.loads(command("recommend", store, "--budget", 10, "--metric", FID, "--json").out)
    assert one["choice"]["trained_on"] == "Inception"
    assert WARNING in one["choice"]["training"][1]
    assert WARNING not in command("recommend", store, "--budget", 10).out


def test_a_figure_says_it_in_its_legend_and_over_its_panel(store):
    comparison = Comparison(Store(store, create=False))
    figure = figures.quality(comparison.evidence(comparison.rows(), ["psnr", FID]))
    (legend,) = figure.legends
    names = {text.get_text() for text in legend.get_texts()}
    assert {f"{title}, trained on {said}" for _, _, title, said, _, _ in KINDS.values()} | {"Heun"} <= names
    heads = [axis.get_title() for axis in figure.axes]
    assert heads == ["m", "m\nno evidence: EPD was trained on what judges here"]


def test_the_summary_of_a_report_says_it(store, tmp_path):
    command("report", store, "--images", 0, "-o", tmp_path / "x.html")
    assert "EPD (learned, trained on Inception)" in (tmp_path / "x.html").read_text("utf-8")


def test_what_lies_here_is_listed_with_its_training(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTSAMPLE_HOME", str(tmp_path))
    monkeypatch.setattr(words.console, "width", 200)  # a line each
    model = open_model("gmm2d-flow")
    times = (1e-3, 0.2, 0.4, 0.6, 0.8, 0.999)
    add_grid(FoundGrid(
        name="gits", model=of_model(model, 0.0), solver=complete("ipndm"), nfe=5, times=times, seed=9, samples=8,
        trained_on="squared error", evaluations=100, settings="by hand",
    ))  # fmt: skip
    lam = np.linspace(-3, 3, 5)
    flat_line = np.ones((5, 2))
    facts = {"told": "4 samples of seed 11"}
    add_statistics(Statistics(lam=lam, l=flat_line, s=0 * flat_line, b=0 * flat_line), model, 0.0, facts)
    text = flat(command("list", "tables").out.replace("│", " "))
    for said in (
        "bns cifar10-tiny-flow 0 4 squared error", "520 and 128 pairs of seeds", "gits gmm2d-flow 0 5 squared error",
        "by hand, 8 noises of seed 9, 100 evaluations", "dpm-solver-v3 gmm2d-flow 0 any statistics",
        "4 samples of seed 11",
    ):  # fmt: skip
        assert said in text


def test_a_table_keeps_what_its_grid_was_found_by(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTSAMPLE_HOME", str(tmp_path))
    model = open_model("gmm2d-flow")
    add_grid(FoundGrid(
        name="gits", model=of_model(model, 0.0), solver=complete("flow-solver"), nfe=4, times=(0, 0.2, 0.5, 0.8, 0.999),
        trained_on="squared error", seed=9, samples=8, evaluations=100, settings="by hand",
    ))  # fmt: skip
    file = table_of("flow-solver@gits", model, 4)
    assert (file.trained_on, file.model) == ("squared error", "gmm2d-flow")
    how = "by hand, 8 noises of seed 9, 100 evaluations"
    words = ("flow-solver@gits", "--nfe", 4, "--model", "gmm2d-flow")
    assert f"squared error: {how}" in flat(command("explain", *words).out)
    assert json.loads(command("explain", *words, "--json").out)["trained_with"] == how
    told = command("export", "--solver", *words, "--to", "json", "-o", tmp_path / "t.json")
    assert "trained on squared error" in told.out
    assert f"trained on squared error: {how}" in flat(command("import", tmp_path / "t.json", "--name", "mine").out)
    assert "mine" in command("list", "tables").out
    free = command("explain", "heun", "--nfe", 4, "--model", "gmm2d-flow").out
    assert "trained on nothing" in flat(free)
