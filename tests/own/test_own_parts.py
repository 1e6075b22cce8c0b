"""Solvers, metrics, extractors and data sets of a user's own, from a file and from an installed package."""

import shlex

import pytest

from fastsample.datasets.own import code
from fastsample.results.commands import bench_command
from fastsample.results.metrics import METRICS
from fastsample.results.store import Store

QUICK = ("--model", "mine.py:tiny", "--samples", 8, "--out", "store")


def test_a_solver_is_benched_with_its_options_and_its_commands_work(mine, command):
    exact = ("--model", "gmm2d", "--samples", 8, "--out", "store")  # the file may change, and the model may not
    solvers = "mine.py:ab2:damp=0.9@uniform,mine.py:heun,euler"
    code, _, err = command("bench", *exact, "--solver", solvers, "--nfe", 7, "--metrics", "psnr")
    assert code == 0, err
    rows = {row.solver: row for row in Store(mine.parent / "store").rows()}
    ab2, heun = rows["mine.py:ab2"], rows["mine.py:heun"]
    assert (ab2.sampler, ab2.grid, ab2.nfe) == ("mine.py:ab2:damp=0.9", "uniform", 7)
    assert heun.nfe == 6  # of two evaluations a step, seen and not told
    assert ab2.protocol["solver code"].startswith("mine.py:ab2 sha256 ")
    assert "solver code" not in rows["euler"].protocol
    assert command(*shlex.split(bench_command(ab2))[1:])[0] == 0
    assert Store(mine.parent / "results-again").rows()[0].cell == ab2.cell
    mine.write_text(mine.read_text("utf-8") + "\n# changed\n", "utf-8")
    assert command("bench", *exact, "--solver", "mine.py:heun", "--nfe", 7, "--metrics", "psnr")[0] == 0
    assert len(Store(mine.parent / "store").rows()) == 4  # another file is another solver
    code, _, err = command("table", "store")
    assert (code, "solver code is" in err) == (2, True), err


def test_a_solver_is_explained_exported_and_proven(mine, command):
    words = ("--model", "mine.py:tiny", "--nfe", 4)
    assert command("explain", "mine.py:ab2", *words)[0] == 0
    assert command("export", "--solver", "mine.py:ab2", *words, "--to", "json", "-o", "ab2.json")[0] == 0
    assert command("import", "ab2.json")[0] == 0
    assert command("bench", *QUICK, "--solver", "mine.py-ab2", "--nfe", 4, "--metrics", "psnr")[0] == 0
    code, out, _ = command("verify", "--solver", "mine.py:heun", "--golden", ".", "--picture", "orders.png")
    assert (code, "mine.py:heun" in out) == (0, True)


def test_a_registered_solver_of_a_file_has_the_facts_it_states_and_may_have_any_name(mine, command):
    mine.write_text(
        "from fastsample.solvers.solver import Facts, register\n"
        "@register('euler', Facts(title='Mine', paper='', coordinate='velocity', order=1, path='flow'))\n"
        "def own(denoiser, x, times):\n"
        "    for s, t in zip(times, times[1:]):\n        x = x + (t - s) * denoiser.velocity(x, s)\n    return x\n"
    )
    asked = ("bench", "--model", "gmm2d", "--samples", 4, "--metrics", "psnr", "--out", "store", "--nfe", 4)
    assert command(*asked, "--solver", "mine.py:own,euler")[0] == 0
    titles = {row.solver: row.title for row in Store(mine.parent / "store").rows()}
    assert titles == {"mine.py:own": "Mine", "euler": "Euler"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--solver", "mine.py:clamped"), "is no solver: a solver is a function of (denoiser, x, times)"),
        (("--solver", "mine.py:ab2:dump=2"), "did you mean damp?"),
        (("--solver", "nothing.py:ab2"), "nothing.py is no file"),
        (("--metrics", "mine.py:unknown"), "is no metric: it is a function of some of images"),
        (("--metrics", "mine.py:nothing"), "unknown function 'nothing'"),
        (("--metrics", "fd[mine.py:nothing]"), "unknown function 'nothing'"),
        (("--metrics", "fd[nothing.py:colours]"), "nothing.py is no file"),
    ],
)
def test_what_is_none_ends_with_one_sentence(words, told, mine, command):
    code, _, err = command("bench", "--model", "gmm-image", "--nfe", 4, "--samples", 4, *words)
    assert code == 2
    assert told in err


def test_a_metric_stands_in_tables_with_its_interval_and_its_facts(mine, command, monkeypatch):
    metrics = "psnr,mine.py:roughness,mine.py:far,truncation"
    assert command("bench", *QUICK, "--solver", "euler,heun", "--nfe", 4, "--metrics", metrics)[0] == 0
    rows = Store(mine.parent / "store").rows()
    for row in rows:
        assert row.metrics["mine.py:far"] == pytest.approx(row.metrics["truncation"], rel=1e-6)
        assert row.standard_errors["mine.py:far"] == pytest.approx(row.standard_errors["truncation"], rel=1e-6)
        assert row.protocol["metric[mine.py:far]"].startswith("mine.py:far sha256 ")
    assert command(*shlex.split(bench_command(rows[0]))[1:])[0] == 0
    for name in [name for name in METRICS if name.startswith("mine.py")]:
        monkeypatch.delitem(METRICS, name)  # what another process, without the file, knows of it
    mine.unlink()
    code, out, _ = command("table", "store", "--metric", "mine.py:roughness")
    assert code == 0
    assert "mine.py:roughness ↑" in out or "mine.py:roughness [dB] ↑" in out
    assert out.count("±") >= 2
    assert METRICS["mine.py:roughness"].higher
    assert METRICS["mine.py:roughness"].digits == 4
    best = max(rows, key=lambda row: row.metrics["mine.py:roughness"])
    assert best.title in command("recommend", "store", "--budget", 4, "--metric", "mine.py:roughness")[1]
    assert command("report", "store", "-o", "report.html")[0] == 0


@pytest.mark.parametrize(("metric", "told"), [("pooled", "returns () for 4 samples"), ("broken", "AttributeError")])
def test_a_metric_that_fails_costs_its_cells(metric, told, mine, command):
    asked = ("bench", "--model", "gmm-image", "--nfe", 4, "--samples", 4, "--metrics", f"mine.py:{metric}")
    code, _, err = command(*asked, "--out", "store")
    assert (code, told in err) == (1, True)


def test_an_extractor_and_a_data_set_of_a_file_give_a_distance(mine, command):
    asked = ("bench", *QUICK, "--solver", "euler", "--nfe", 4, "--metrics", "fd[mine.py:colours]")
    assert command(*asked, "--reference", "mine.py:boards")[0] == 0
    (row,) = Store(mine.parent / "store").rows()
    assert row.metrics["fd[mine.py:colours]@8"] > 0
    assert row.reference == "mine.py:boards"
    assert command(*shlex.split(bench_command(row))[1:])[0] == 0
    mine.write_text(mine.read_text("utf-8").replace("images.float()", "2 * images.float()"), "utf-8")
    assert command(*asked, "--reference", "mine.py:boards")[0] == 0
    first, second = (row.metrics["fd[mine.py:colours]@8"] for row in Store(mine.parent / "store").rows())
    assert max(first, second) == pytest.approx(4 * min(first, second), rel=1e-3)  # of both, samples and reference


def test_an_installed_package_offers_one_of_each(mine, command, monkeypatch):
    site = mine.parent / "site"
    (site / "lab_kit-1.0.dist-info").mkdir(parents=True)
    (site / "lab_kit-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-kit\nVersion: 1.0\n")
    points = {
        "models": "lab-tiny = lab_kit:tiny",
        "solvers": "lab-ab2 = lab_kit:ab2",
        "metrics": "lab-rough = lab_kit:roughness",
        "extractors": "lab-colours = lab_kit:colours",
        "datasets": "lab-boards = lab_kit:boards",
    }
    text = "\n".join(f"[fastsample.{group}]\n{point}\n" for group, point in points.items())
    (site / "lab_kit-1.0.dist-info" / "entry_points.txt").write_text(text)
    mine.rename(site / "lab_kit.py")
    monkeypatch.syspath_prepend(str(site))
    code.offered.cache_clear()
    try:
        asked = ("bench", "--model", "lab-tiny", "--solver", "lab-ab2:damp=0.9", "--nfe", 4, "--samples", 8)
        metrics = ("--metrics", "lab-rough,fd[lab-colours]", "--reference", "lab-boards")
        ended, _, err = command(*asked, *metrics, "--out", "store")
        assert ended == 0, err
        (row,) = Store(mine.parent / "store").rows()
        assert (row.model, row.sampler) == ("lab-tiny", "lab-ab2:damp=0.9")
        assert {*row.metrics} == {"lab-rough", "fd[lab-colours]@8"}
        assert row.protocol["solver code"].startswith("lab-ab2 sha256 ")
        assert command(*shlex.split(bench_command(row))[1:])[0] == 0
        for what, name in (("models", "lab-tiny"), ("solvers", "lab-ab2"), ("datasets", "lab-boards")):
            assert name in command("list", what)[1]
    finally:
        code.offered.cache_clear()
