"""Paper tables: what is set off, what is refused, and the same facts in every format."""

import io
import re
import shutil
import subprocess
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from fastsample.results.forms.sheet import Entry, Footnotes, Sheet, plain, to_rich, write
from fastsample.results.layout import evidence, metrics_named, sheet_of
from fastsample.results.metrics import metric_of
from fastsample.results.overview import select
from fastsample.results.row import frame_of
from fastsample.results.statistics import Interval, mean_interval, paired_interval

from ..rows import row_of

RNG = np.random.default_rng(0)
SHARED = RNG.normal(0, 3, 400)  # what the images have in common, whatever the solver


def row(cell, **changes):
    facts = dict(protocol={"psnr reference": "fine (0123456789abcdef)"}, created=f"2026-01-01T00:00:00+00:00 {cell}")
    return row_of(cell, **facts | changes)


def sampled(levels, **changes):
    """Rows of solvers (name, mean, spread of its own) with their per-sample PSNR."""
    psnr = {name: mean + SHARED + RNG.normal(0, spread, 400) for name, mean, spread in levels}
    psnr = {name: values - values.mean() + mean for (name, mean, _), values in zip(levels, psnr.values(), strict=True)}
    rows = [row(name, solver=name, title=name.upper(), metrics={"psnr": psnr[name].mean()}, **changes) for name in psnr]
    return rows, psnr


def found(rows, psnr=None, metrics=("psnr",), **options):
    known = {
        "interval": lambda cells, metric: mean_interval(psnr[cells[0]]) if psnr else None,
        "difference": lambda one, two, metric: paired_interval(psnr[one[0]], psnr[two[0]]) if psnr else None,
    }
    return evidence(frame_of(rows), list(metrics), **known | options)


def texts(sheet):
    return [[entry.text for entry in line] for _, line in sheet.lines]


def test_the_best_is_set_off_where_pairs_separate_it():
    # The unpaired intervals overlap widely (spread 3 over 400 samples is +-0.3); the pairs differ by 0.1 +- 0.01.
    rows, psnr = sampled([("a", 30.0, 0.1), ("b", 30.1, 0.1), ("c", 25.0, 0.1), ("d", 25.001, 0.1)])
    lines = found(rows, psnr).set_index("solver")
    assert lines["low"]["b"] < 30.0 < lines["high"]["b"]
    assert lines["rank"].to_dict() == {"a": "second", "b": "best", "c": "", "d": ""}


def test_ties_are_marked_and_nobody_wins():
    rows, psnr = sampled([("a", 30.0, 0.5), ("b", 30.001, 0.5), ("c", 25.0, 0.5)])
    lines = found(rows, psnr)
    assert lines.set_index("solver")["rank"].to_dict() == {"a": "tied", "b": "tied", "c": ""}
    sheet = sheet_of(lines)
    assert [entry.rank for _, (entry,) in sheet.lines] == ["tied", "tied", ""]
    markdown = write(sheet, "markdown")
    assert "**" not in markdown
    assert "<ins>" not in markdown
    assert markdown.count("<sup>=</sup>") == 2
    assert "=: the best, and all that are level with it" in markdown


def test_all_that_are_level_with_the_second_are_second():
    rows, psnr = sampled([("a", 31.0, 0.5), ("b", 30.001, 0.5), ("c", 30.0, 0.5), ("d", 20.0, 0.5)])
    assert found(rows, psnr).set_index("solver")["rank"].to_dict() == {
        "a": "best",
        "b": "second",
        "c": "second",
        "d": "",
    }


def test_lower_is_better_for_distances_and_values_decide_without_samples():
    rows = [row(n, solver=n, metrics={"fid@400": v}) for n, v in (("a", 3.0), ("b", 2.0), ("c", 4.0))]
    lines = found(rows, metrics=["fid@400"])
    assert lines.set_index("solver")["rank"].to_dict() == {"a": "second", "b": "best", "c": ""}
    sheet = sheet_of(lines)
    assert sheet.caption.startswith("fid@400 ↓, m, 400 samples")
    assert any("by value alone" in text for _, text in sheet.notes)
    assert not any("±" in text for _, text in sheet.notes)
    assert [metric_of(n).higher for n in ("psnr", "is", "recall", "fd[x]@5", "fid@50000", "kid", "curvature")] == [
        True, True, True, False, False, False, False,
    ]  # fmt: skip


def test_budgets_that_are_not_met_are_said():
    rows = [
        row("a", solver="heun", nfe_asked=5, nfe=4), row("b", solver="heun", nfe_asked=10),
        row("c", solver="ddim", title="DDIM", nfe_asked=5, nfe=5, metrics={"psnr": 20.0}),
        row("d", solver="dopri5", title="RK45", nfe_asked=10, nfe=92, metrics={"psnr": 60.0}),
    ]  # fmt: skip
    lines = found(rows)
    assert lines["rank"].tolist() == ["best", "", "second", ""]  # a solver beyond its budget does not compete
    sheet = sheet_of(lines)
    assert ("a", "1 evaluation fewer than asked") in sheet.notes
    assert ("b", "82 evaluations more than asked: no rank") in sheet.notes
    assert texts(sheet) == [["30.00", "30.00"], ["20.00", "-"], ["-", "60.00"]]


def test_other_grids_are_said_at_the_row_or_stand_beside_it():
    rows = [row("a", nfe_asked=5, nfe=5, grid="uniform"), row("b", grid="uniform")]
    sheet = sheet_of(found(rows))
    (name,), _ = sheet.lines[0]
    assert name.marks == ("a",)
    assert sheet.notes[0] == ("a", "grid uniform, not the solver's own (nsr)")
    both = sheet_of(found([*rows, row("c", nfe_asked=5, nfe=5), row("d")]))
    assert both.stub == ["Grid / NFE"]
    assert "Heun" in both.caption
    assert [key[0].text for key, _ in both.lines] == ["uniform", "nsr"]
    mixed = sheet_of(found([rows[0], row("e")]))
    assert [entry.marks for entry in mixed.lines[0][1]] == [("a",), ()]


@pytest.mark.parametrize(
    "change",
    [
        {"samples": 50}, {"seed": 3}, {"precision": "bf16"}, {"checkpoint_sha256": "b" * 64}, {"guidance": 1.0},
        {"protocol": {"psnr reference": "coarse (0123456789abcdef)"}},
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused_with_the_reason(change):
    field = "psnr reference" if "protocol" in change else next(iter(change))
    with pytest.raises(ValueError, match=rf"do not belong in one table: .*{field}.*--where"):
        found([row("a"), row("b", solver="ddim", **change)])


def test_extractors_and_sample_counts_are_columns_of_their_own():
    rows = [
        row("a", metrics={"fd[one]@400": 1.0, "fd[two]@400": 2.0}),
        row("b", solver="ddim", metrics={"fd[one]@400": 3.0}),
        row("c", samples=50, metrics={"fd[one]@50": 9.0}),
    ]  # fmt: skip
    names = metrics_named(frame_of(rows), ["fd"])
    assert names == ["fd[one]@400", "fd[two]@400", "fd[one]@50"]
    sheet = sheet_of(found(rows, metrics=names))
    assert [entry.text for entry in sheet.heads[-1]] == ["fd[one]@400 ↓", "fd[two]@400 ↓", "fd[one]@50 ↓"]
    assert texts(sheet) == [["1.00", "2.00", "9.00"], ["3.00", "-", "-"]]


def test_metrics_by_name_kind_or_default():
    frame = frame_of([row("a", metrics={"fd[x]@4": 1.0, "psnr_median": 1.0, "psnr": 2.0})])
    assert metrics_named(frame, None) == ["psnr"]
    assert metrics_named(frame, ["fd", "psnr_median"]) == ["fd[x]@4", "psnr_median"]
    assert metrics_named(frame_of([row("a", metrics={"kid": 1.0})]), None) == ["kid"]
    with pytest.raises(ValueError, match=r"no row has the metric 'fid'; there are fd\[x\]@4, psnr$"):
        metrics_named(frame, ["fid"])


def test_seeds_are_averaged_and_a_row_measured_again_counts_once():
    rows = [row("a"), row("b", seed=1, metrics={"psnr": 32.0}), row("c", seed=1, metrics={"psnr": 32.0})]
    asked = []
    lines = found(rows, interval=lambda cells, metric: asked.append(cells))
    assert asked == [("a", "c")]
    assert lines["value"].tolist() == [31.0]
    assert sheet_of(lines).caption.endswith("mean over seeds 0, 1")


def test_models_and_metrics_find_their_place():
    rows = [
        row(f"{m}{s}{n}", model=m, solver=s, title=s, nfe_asked=n, nfe=n, metrics={"psnr": float(n), "kid": 0.001})
        for m in ("one", "two") for s in ("x", "y") for n in (10, 5)
    ]  # fmt: skip
    lines = found(rows, metrics=["psnr", "kid"])
    sheet = sheet_of(lines)
    assert sheet.stub == ["Model", "Solver / NFE"]
    assert [[entry.text for entry in line] for line in sheet.heads] == [
        ["PSNR [dB] ↑"] * 2 + ["kid ↓"] * 2, ["5", "10", "5", "10"],
    ]  # fmt: skip
    assert texts(sheet)[0] == ["5.00", "10.00", "0.00100", "0.00100"]
    turned = sheet_of(lines, rows=["nfe"], columns=["model", "solver"])
    assert turned.stub == ["NFE"]
    assert [e.text for e in turned.heads[0]] == ["PSNR [dB] ↑"] * 4 + ["kid ↓"] * 4
    above = sheet_of(lines[lines["metric"] == "psnr"], rows=["model"], columns=["nfe", "solver"])
    assert [e.text for e in above.heads[0]] == ["NFE 5", "NFE 5", "NFE 10", "NFE 10"]


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"rows": ["sampler"]}, "not 'sampler'"),
        ({"rows": ["solver", "nfe"]}, "'nfe' can be only once"),
        ({"rows": ["model"]}, "solver would share one place"),
    ],
)
def test_axes_that_make_no_table(axes, message):
    lines = found([row("a"), row("b", solver="ddim"), row("c", nfe_asked=5, nfe=5)])
    with pytest.raises(ValueError, match=message):
        sheet_of(lines, **axes)


def test_the_wider_side_of_an_interval_is_printed():
    """A reader takes value ± half-width for an interval that holds the whole."""
    for low, high in ((29.9, 30.5), (29.5, 30.1)):
        lines = found([row("a", metrics={"psnr": 30.0})], interval=lambda *_, ends=(low, high): Interval(30.0, *ends))
        assert sheet_of(lines).frame.iloc[0, 0].spread == "0.50"


def test_select_keeps_the_order_asked_for():
    frame = frame_of([
        row("a", solver="x"), row("b", solver="y", options={"order": 3}), row("c", solver="y"), row("d", samples=50),
    ])  # fmt: skip
    assert select(frame, solvers=["y", "x"])["cell"].tolist() == ["b", "c", "a"]
    assert select(frame, solvers=["y:order=3"])["cell"].tolist() == ["b"]
    assert select(frame, where=["samples=50", "guidance=0"])["cell"].tolist() == ["d"]
    with pytest.raises(ValueError, match="no row fits 'z'; there are heun, x, y, y:order=3"):
        select(frame, solvers=["z"])
    with pytest.raises(ValueError, match="no row fits 'other'; there are m"):
        select(frame, models=["other"])
    with pytest.raises(ValueError, match="unknown field of rows 'sample'; did you mean samples"):
        select(frame, where=["sample=50"])


AWKWARD = r"50% of a_b & {c} #1 $x$ ~ ^ \ <tag> | *s* `t` [b]"


def awkward():
    """Every sign that some format reads as its own, ranks, intervals, footnotes, groups of rows and of columns."""
    notes = Footnotes()
    entries = [
        [Entry("35.62", "0.12", "best"), Entry("-3.10", rank="second")],
        [Entry("-"), notes.on(Entry("1.00", rank="tied"), [AWKWARD])],
    ]
    index = pd.MultiIndex.from_tuples(
        [(Entry("model_1"), Entry(AWKWARD)), (Entry("model_2"), Entry("Heun"))], names=["Model", "Solver"]
    )
    columns = pd.MultiIndex.from_tuples(
        [(Entry("psnr ↑"), Entry("5")), (Entry("fd[x]@4 ↓"), Entry("5"))], names=["", "NFE"]
    )
    data = pd.DataFrame({"solver": [AWKWARD, "Heun"], "value": [35.62, 1.0]})
    return Sheet(pd.DataFrame(entries, index=index, columns=columns), data, AWKWARD, tuple(notes.texts))


def test_markdown_and_html():
    markdown = write(awkward(), "markdown").splitlines()
    assert markdown[2] == r"| Model | Solver / NFE | psnr ↑, 5 | fd\[x\]\@4 ↓, 5 |"
    assert markdown[4].endswith("| **35.62** ± 0.12 | <ins>-3.10</ins> |")
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in markdown[2:6]} == {5}
    assert r"a\_b" in markdown[4]
    page = write(awkward(), "html")
    assert '<td><strong>35.62</strong> <span class="spread">± 0.12</span></td><td><u>-3.10</u></td>' in page
    assert "&lt;tag&gt;" in page
    assert "<tag>" not in page
    table = ElementTree.fromstring(page)  # well-formed
    assert [len(line) for line in table.iter("tr")] == [4, 2, 4, 4, 1]
    assert len(table.findall("tbody")) == 2
    assert {cell.get("scope") for cell in table.iter("th")} == {"col", "colgroup", "row"}
    assert next(table.iter("caption")).text == AWKWARD


def test_csv_holds_the_facts():
    read = pd.read_csv(io.StringIO(write(awkward(), "csv")))
    assert read["solver"].tolist() == [AWKWARD, "Heun"]
    assert read["value"].tolist() == [35.62, 1.0]


def test_rich_shows_brackets_and_names_groups_once():
    screen = Console(width=200, file=io.StringIO(), color_system=None)
    screen.print(to_rich(awkward()))
    shown = screen.file.getvalue()
    assert "fd[x]@4 ↓" in shown
    assert "35.62 ± 0.12" in shown
    assert "1.00 =,a" in shown
    assert "[b]" in shown


def test_an_unknown_format_is_named():
    with pytest.raises(ValueError, match="unknown format 'word'; known: rich, markdown, latex, html, csv"):
        write(awkward(), "word")


def test_without_styles_the_best_and_the_second_have_signs():
    rows, psnr = sampled([("a", 31.0, 0.5), ("b", 35.0, 0.5), ("c", 20.0, 0.5)])
    sheet = sheet_of(found(rows, psnr))
    screen = Console(width=100, file=io.StringIO(), color_system=None)
    screen.print(to_rich(sheet, styled=False))
    told = screen.file.getvalue()
    assert re.search(r"35\.\d\d ± \S+ \*", told)
    assert re.search(r"31\.\d\d ± \S+ _", told)
    assert "*: the best, whose paired" in told
    assert "; _: the second, or all" in told
    assert "Bold" not in told
    assert "Bold: the best, whose paired" in write(sheet, "markdown")


def test_a_plain_frame():
    sheet = plain(pd.DataFrame({"name": ["x"], "value": [0.12345], "other": [None]}))
    assert texts(sheet) == [["x", "0.1235", "-"]]
    assert sheet.stub == []
    assert write(sheet, "markdown").splitlines() == [
        "| name | value | other |",
        "| --- | ---: | ---: |",
        "| x | 0.1235 | - |",
    ]


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed")
@pytest.mark.parametrize("kind", ["paper", "awkward", "plain", "long"])
def test_latex_compiles_as_it_is(kind, tmp_path):
    rows, psnr = sampled([("a", 30.0, 0.5), ("b", 30.001, 0.5), ("c", 25.0, 0.5)])
    sheet = {
        "paper": lambda: sheet_of(found(rows, psnr)), "awkward": awkward,
        "plain": lambda: plain(pd.DataFrame({"name": ["é_1", "x"], "value": [-0.5, 1.0]})),
        "long": lambda: plain(pd.DataFrame({"name": ["row"] * 90, "value": range(90)})),
    }[kind]()  # fmt: skip
    (tmp_path / "table.tex").write_text(write(sheet, "latex"), encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    assert result.returncode == 0, result.stdout[-3000:]
    assert not re.search(r"^(LaTeX Warning|Overfull)", result.stdout, re.M), result.stdout[-3000:]
    assert (tmp_path / "table.pdf").read_bytes().startswith(b"%PDF")
