"""Tables at 80 columns: whole words, whole numbers, whatever the commands of the pages print."""

import io
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from fastsample.bench.cli import words
from fastsample.results.forms.latex import short_heads
from fastsample.results.forms.ordering import sorted_frame
from fastsample.results.forms.screen import FittedTable
from fastsample.results.overview import overview
from fastsample.results.row import frame_of
from fastsample.results.store import Store

from ..command import command
from ..rows import row_of

ROOT = Path(__file__).parents[2]
SOLVERS = ["scire", "dpmpp-2m", "unipc", "deis", "ipndm", "flow-solver", "ddim", "heun", "bns", "dpmpp-2s-ancestral"]
PAGES = "\n".join(page.read_text("utf-8") for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))])


def lines_of(table, width):
    screen = Console(width=width, file=io.StringIO(), color_system=None)
    screen.print(table)
    return screen.file.getvalue().splitlines()


def words_of(lines):
    """Words of what is drawn, without lines of frames; what follows ± belongs to it."""
    text = re.sub(r"[┏┓┗┛┃│├┤┡┩━─└┘┬┴┼╇┳╋╈┻]", " ", "\n".join(lines))
    return set(re.sub(r"±\s+", "±", text).split())


def table_of(rng, rows, columns):
    table = FittedTable(title="numbers of solvers")
    for i in range(columns):
        table.add_column(f"{'n' * rng.integers(1, 12)} [[dB]", justify="right" if i % 2 else "left")
    for _ in range(rows):
        cells = [" ".join("w" * n for n in rng.integers(1, 14, rng.integers(0, 8))) for _ in range(columns)]
        table.add_row(*(f"{rng.integers(1000)}.25 ± 0.12 a,b" if i % 2 else cell for i, cell in enumerate(cells)))
    return table


@pytest.mark.parametrize("width", [40, 80, 160])
def test_no_word_is_folded_and_no_line_is_wider_than_the_screen(width):
    rng = np.random.default_rng(0)
    for columns in (1, 2, 3, 5, 8, 13):
        table = table_of(rng, 4, columns)
        lines = lines_of(table, width)
        assert max(map(len, lines)) <= width
        numbers = set("#1234") if any(line.strip().startswith("#") for line in lines) else set()  # of the rows
        assert words_of(lines_of(table, 2000)) == words_of(lines) - numbers


def test_a_title_is_as_wide_as_the_screen_and_intervals_of_a_column_are_in_one_place():
    table = FittedTable(title="clipped, cifar10-tiny-flow, 8 samples, seed 0")
    table.add_column("solver")
    for name in ("5", "6", "7", "8"):
        table.add_column(name, justify="right")
    table.add_row("ab", *["27.16 ± 1.03 ="] * 4)
    table.add_row("cd", *["2.1 ± 0.3"] * 4)
    lines = lines_of(table, 60)
    assert lines[0] == "clipped, cifar10-tiny-flow, 8 samples, seed 0"
    assert not [line for line in lines if re.search(r"\d ± ", line)]
    assert sum("± 0.3" in line for line in lines) == 1


def test_a_frame_is_drawn_where_it_fits_and_parts_are_below_one_another_where_nothing_else_does():
    table = FittedTable("solver", "PSNR\n5", "PSNR\n10", "distance\n5", "distance\n10", title="numbers")
    for column in table.columns[1:]:
        column.justify = "right"
    for solver in ("a-solver-of-thirty-characters", "b"):
        table.add_row(solver, *(f"{value:.8f}" for value in (1, 2, 3, 4)))
    assert lines_of(table, 120)[1].startswith("┏")
    assert lines_of(table, 80)[3].startswith("───")
    narrow = [line.rstrip() for line in lines_of(table, 60)]
    assert narrow[:3] == ["numbers", "PSNR", "solver                                  5          10"]
    assert narrow[6:9] == ["", "distance", "solver                                  5          10"]


def test_a_word_longer_than_the_screen_breaks_at_its_signs():
    table = FittedTable("file")
    table.add_row("https://example.org/" + "folder/" * 12 + "file.npz")
    assert all(line.rstrip().endswith(("/", "file.npz", "file", "─")) for line in lines_of(table, 60))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two models, ten solvers, one with long options, four budgets, two metrics, intervals of one."""
    store, rng = Store(tmp_path_factory.mktemp("store") / "results"), np.random.default_rng(0)
    for model in ("cifar10-tiny-flow", "cifar10-tiny-vp"):
        for place, solver in enumerate(SOLVERS):
            for nfe in (5, 8, 10, 20):
                psnr = 20 + nfe - place + rng.normal(size=50)
                metrics = {"psnr": psnr.mean(), "fd[cifar10-resnet]@50": 30.0 / nfe + place}
                options = {"order": 3, "mode": "singlestep_fixed"} if solver == "scire" else {}
                store.finish(row_of(
                    f"{model}{solver}{nfe}", model=model, solver=solver, title=solver.upper(), options=options, nfe=nfe,
                    nfe_asked=nfe, samples=50, metrics=metrics, protocol={"psnr reference": f"fine ({model})"},
                ), {"psnr": psnr})  # fmt: skip
    return store


PRINTING = re.findall(r"^fastsample (?:list|explain|published|audit) .*$", PAGES, re.M)
TABLES = {line.split("    #")[0].strip() for line in PRINTING if "--json" not in line}
COMMANDS = sorted(TABLES | {f"fastsample list {what}" for what in (
    "solvers", "solvers --long", "models", "recipes", "datasets", "references", "protocols", "grids", "metrics",
)} | {
    "fastsample show STORE", "fastsample table STORE", "fastsample table STORE --metric psnr,fd",
    "fastsample table STORE --metric psnr,fd --columns metric,nfe --no-intervals", "fastsample show STORE --sort fd",
    "fastsample verify --solver ddim,unipc --picture orders.png --golden .", "fastsample explain edm-sde --nfe 9",
})  # fmt: skip


QUICK = (
    "fastsample list solvers", "fastsample list protocols", "fastsample show STORE",
    "fastsample table STORE --metric psnr,fd",
)  # fmt: skip


@pytest.mark.parametrize(
    "line", [pytest.param(line, marks=[pytest.mark.slow] * (line not in QUICK)) for line in COMMANDS]
)  # fmt: skip
def test_commands_of_the_pages_fold_no_word_at_80_columns(line, store, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FASTSAMPLE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(words.console, "soft_wrap", False)  # as on a terminal
    told = shlex.split(line.replace("STORE", str(store.folder)))[1:]
    screens = []
    for width in (80, 400):
        monkeypatch.setattr(words.console, "_width", width)
        screens.append(command(*told).out.splitlines())
    narrow, wide = map(words_of, screens)
    longest = {word for word in wide if len(word) > 30 and "/" in word}  # addresses go on in the next line
    assert wide - narrow - longest == set()
    assert max(map(len, screens[0])) <= 80


def test_what_is_everywhere_the_same_stands_in_the_title(store):
    out = command("show", store.folder).out.splitlines()
    assert out[0].strip() == "grid nsr"
    assert "grid" not in out[2]
    one = command("show", store.folder, "--format", "csv").out.splitlines()
    assert one[0].startswith("model,solver,grid,NFE,PSNR [dB],")


def test_rows_come_best_first_by_the_column_that_is_asked_for(store):
    def solvers(*options):
        lines = command("table", store.folder, "--format", "markdown", "--model", "cifar10-tiny-vp", *options).out
        return [line.split(" | ")[0][2:].replace("\\", "") for line in lines.splitlines() if line.startswith("| ")][2:]

    best = [name.upper() for name in SOLVERS]
    best[0] += " (order=3,mode=singlestep_fixed)"
    assert solvers("--sort", "20") == best
    assert solvers("--metric", "fd", "--sort", "5") == best  # smaller is better
    assert solvers("--metric", "psnr,fd", "--sort", "fd 10") == best
    assert solvers("--sort", "solver") == sorted(best, key=str.lower)
    assert "did you mean" in command("table", store.folder, "--sort", "21").err
    rows = frame_of(store.rows())
    shown = command("show", store.folder, "--sort", "psnr", "--format", "markdown").out.splitlines()
    values = [float(line.split(" | ")[3]) for line in shown if line.startswith("| cifar10")]
    assert len(values) == len(rows)
    assert values == sorted(values, reverse=True)
    assert overview(rows)["solver"].iloc[:2].tolist() == ["scire:order=3,mode=singlestep_fixed", "dpmpp-2m"]
    with pytest.raises(ValueError, match="unknown column 'nothing'"):
        sorted_frame(overview(rows), "nothing", {})


def test_long_tables_have_the_best_first(store):
    told = command("table", store.folder, "--format", "markdown").out
    assert "the best first" in told
    assert told.index("SCIRE") < told.index("DPMPP") < told.index("BNS")
    assert "the best first" not in command("table", store.folder, "--solver", "ddim,heun").out


def test_heads_of_latex_are_short_and_told_in_full_below(store):
    told = command("table", store.folder, "--metric", "psnr,fd", "--format", "latex").out
    assert r"\multicolumn{4}{c}{fd $\downarrow$}" in told
    assert "\nfd: fd[cifar10-resnet]@50.\\\\" in told
    assert short_heads(["fd[a]@4 ↓", "fd[b]@4 ↓", "fd[b]@8 ↓", "fid@4 ↓", "PSNR [dB] ↑"]) == {
        "fd[a]@4 ↓": "fd[a] ↓", "fid@4 ↓": "fid ↓",
    }  # fmt: skip


def test_parts_whose_first_columns_name_no_row_have_its_number():
    table = FittedTable()
    for name in ("model", "a long word of a column", "command"):
        table.add_column(name)
    for number in range(3):
        table.add_row("one-model-of-all", "x" * 50, f"command-{number}")
    lines = lines_of(table, 60)
    assert [line.split()[0] for line in lines if re.match(r" *[\d#]", line)] == ["#", "1", "2", "3"] * 2
