"""audit through the command line: the commands of published numbers, and verdicts on stores beside a paper."""

import io
import shlex

import numpy as np
import pandas as pd
import pytest

from fastsample.bench.request import read_request
from fastsample.bench.suite import suite
from fastsample.results import published as ledger
from fastsample.results.papers.audit import command_of, why_not
from fastsample.results.published import COLUMNS, published, search
from fastsample.results.store import Store

from ..command import command
from ..rows import row_of

ROUND, FLOOR = "floor(clip(127.5 x + 128, 0, 255))", "floor(clip(127.5 x + 127.5, 0, 255))"
MODEL = "edm-cifar10-uncond-vp"


def audited(*words):
    """The lines of an audit, and its footnotes."""
    code, out, err = command("audit", *words, "--format", "csv")
    assert code == 0, err
    code, text, _ = command("audit", *words, "--format", "markdown")
    assert code == 0
    return pd.read_csv(io.StringIO(out), keep_default_na=False) if out.strip() else pd.DataFrame(), text


def words_of(line):
    """The options of a command line."""
    words = line.split()
    assert words[:2] == ["fastsample", "bench"]
    return dict(zip(words[2::2], words[3::2], strict=True))


def test_the_commands_of_a_paper_are_requests_of_bench():
    """What is not an option of every version is the protocol's: uint8, threshold and t_end."""
    lines, text = audited("--paper", "2312.00094")
    assert len(lines) == 268
    for line in lines["command"]:
        words = words_of(line)
        assert set(words) - {"--guidance", "--labels", "--threshold"} == {
            "--model", "--solver", "--grid", "--nfe", "--samples", "--metrics",
        }  # fmt: skip
        names = ("model", "solver", "grid", "nfe", "samples", "metrics")
        read_request(None, **{name: words[f"--{name}"] for name in names})
    thresholded = lines["solver"].str.startswith(("unipc", "dpmpp"))
    assert (lines["command"].str.contains(" --threshold 0.995") == thresholded).all()
    assert "Not to be run: 92 published, no solver of the suite (amed-solver" in text.replace("\\", "")
    labelled = lines["model"] == "edm-imagenet64"
    assert (lines["command"].str.contains("--labels random") == labelled).all()


@pytest.mark.parametrize(
    ("words", "options", "told"),
    [
        (dict(paper="2312.00094", model=MODEL, fastsample_solver="ipndm", nfe=10, table="README"), "",
         "nothing that is stated"),
        (dict(paper="2310.13268", model="sde-vp-ddpmpp-deep", fastsample_solver="unipc", nfe=12),
         "--uint8 floor --t-end 1e-4", "uint8 floor, here round; t_end 1e-4, here 0.001"),
        (dict(paper="2310.13268", model="sde-vp-ddpmpp-deep", fastsample_solver="unipc", nfe=5), "--uint8 floor",
         "uint8 floor, here round; statistics tfgan"),
        (dict(paper="2312.00094", model="cm-edm-bedroom", fastsample_solver="unipc", nfe=5), "--threshold 0.995",
         "threshold quantile 0.995, here none; statistics EDM fid.py, here adm-lsun-bedroom256"),
        (dict(paper="2206.00364", model="edm-cifar10-cond-vp"), "--labels random", "runs least of three, here one"),
        (dict(paper="2505.21114", model="sit-xl2-256", metric="fid", nfe=16), "--guidance 0.375 --labels random", ""),
    ],
)  # fmt: skip
def test_a_command_has_the_protocol_of_its_paper(words, options, told):
    hits = search(published(), **words)
    hits = hits[hits["fastsample_solver"] != ""].to_dict("records")
    assert hits
    for hit in hits:
        line = command_of(hit, suite())
        assert line.partition(f"--metrics {hit['metric']}")[2].strip() == options
        assert f"--nfe {hit['calls']} --samples 50000 " in line
    lines, _ = audited("--paper", words["paper"], "--model", words["model"], "--metric", "fid")
    assert lines["other than here"].str.contains(told, regex=False).any()


@pytest.mark.parametrize("name", ["gas", "s4s", "gits", "amed", "epd", "dyweight"])
def test_learned_solvers_are_counted(name):
    lines, text = audited("--solver", name)
    assert "command" not in lines  # none can be run: all are listed with the reason
    assert lines["published"].tolist() == search(published(), solver=name)["value"].tolist()
    assert lines["not to be run"].str.startswith(("no solver of the suite", "no model", "quoted from", "no such")).all()
    assert "Not to be run: " in text
    assert f"{name}" in text.partition("no solver of the suite (")[2]


def test_every_number_is_listed_or_has_a_reason():
    known, numbers = suite(), published().to_dict("records")
    reasons = [why_not(number, known) for number in numbers]
    lines, text = audited()
    assert len(lines) == reasons.count("")
    told = [int(line.partition(" published")[0].rpartition(" ")[2].replace(",", ""))
            for line in text.splitlines() if line.startswith("Not to be run")]  # fmt: skip
    assert len(lines) + sum(told) == len(numbers)
    by_kind = {number["nfe_meaning"] for number, reason in zip(numbers, reasons, strict=True) if not reason}
    assert by_kind == {"calls", "nominal"}  # those whose calls are known
    assert all(pd.notna(number["calls"]) for number, reason in zip(numbers, reasons, strict=True) if not reason)


def test_cells_on_which_papers_disagree_are_shown():
    lines, text = audited("--paper", "2310.13268", "--model", MODEL, "--solver", "unipc")
    ten = lines[lines["NFE"].astype(str) == "10"].iloc[0]
    assert ten["published"] == 2.85
    assert ten["others"].startswith("papers disagree: 2.85 (2310.13268); 2.89 (2312.00094, 2405.11326); ")
    assert "3.16 (2405.15506, 2510.17699 quoted)" in ten["others"]
    assert "papers disagree: " in text


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        ({"model": ""}, "no model of the suite"),
        ({"fastsample_solver": "", "method": "gas"}, "no solver of the suite: gas"),
        ({"nfe_meaning": "steps", "calls": pd.NA}, "its NFE is steps and its calls are not known"),
        ({"nfe_meaning": "nominal", "calls": pd.NA}, "its NFE is nominal and its calls are not known"),
        ({"nfe_meaning": "depth", "calls": pd.NA}, "its NFE is depth and its calls are not known"),
        ({"metric": "clip score"}, "no such metric: clip score"),
        ({"quoted_from": "2312.00094", "fastsample_solver": ""}, "quoted from: 2312.00094"),
        ({"fastsample_solver": "edm-heun", "calls": 5, "grid": "karras"}, "solver edm-heun makes 4 calls of 5"),
        ({"fastsample_solver": "edm-heun", "calls": 1, "grid": "karras"}, "solver edm-heun at NFE 1: needs at least 2"),
        ({"fastsample_solver": "ddim", "calls": 400, "grid": "integer-uniform-official"},
         "integer-uniform-official has 500 intervals instead of 400"),
        ({}, ""),
    ],
)  # fmt: skip
def test_why_a_number_cannot_be_run(number, reason):
    base = search(published(), paper="2312.00094", model=MODEL, fastsample_solver="ipndm", nfe=10).to_dict("records")[0]
    told = why_not(base | number, suite())
    assert told.startswith(reason) if reason else told == ""


# A paper made from a store: floor rounding, 400 samples, Heun at 4 and 6 calls.

NUMBER = dict.fromkeys(COLUMNS, "") | {
    "paper": "2999.00001", "table": "Table 1", "dataset": "CIFAR-10", "resolution": 32, "checkpoint": "EDM",
    "model": MODEL, "solver": "Heun", "fastsample_solver": "edm-heun", "grid": "karras", "metric": "fid",
    "evidence": "table of the paper",
    "method": "heun", "nfe_meaning": "calls", "trained_on": "none", "source_version": "v1", "confidence": "high",
    "protocol": "uint8=floor; samples=400; t_end=sigma 0.002",
}  # fmt: skip
INFLUENCE = np.random.default_rng(0).normal(0, 1, (1, 400))
INFLUENCE -= INFLUENCE.mean()
HALF = 1.96 * INFLUENCE.std(ddof=1) / 20  # of the interval of a row


def write_paper(folder, *numbers):
    folder.mkdir(exist_ok=True)
    lines = [NUMBER | {"nfe": number["calls"], "nfe_text": number["calls"]} | number for number in numbers]
    pd.DataFrame(lines, columns=COLUMNS).to_csv(folder / "2999.00001.csv", index=False)
    head = ledger.disagreements().columns
    pd.DataFrame(columns=head).to_csv(folder / "disagreements.tsv", sep="\t", index=False)


@pytest.fixture
def paper(tmp_path, monkeypatch):
    """Write the ledger of one paper, which is then all that is published."""

    def write(*numbers):
        write_paper(tmp_path / "published", *numbers)
        monkeypatch.setattr(ledger, "_FOLDER", tmp_path / "published")
        for known in (ledger.published, ledger.disagreements):
            known.cache_clear()
        return tmp_path / "store"

    yield write
    monkeypatch.undo()
    for known in (ledger.published, ledger.disagreements):
        known.cache_clear()


def measured(store, cell, value, *, rule=FLOOR, nfe=4, arrays=True, **changes):
    metric = changes.pop("metric", "fid@400")
    facts = {"model": MODEL, "solver": "edm-heun", "grid": "karras", "own_grid": "karras", "nfe": nfe, "nfe_asked": nfe}
    protocol = {"noise": "philox", "uint8": rule} | changes.pop("protocol", {})
    row = row_of(cell, **facts | {"metrics": {metric: value}, "protocol": protocol} | changes)
    Store(store).finish(row, {f"influence[{metric}]": INFLUENCE} if arrays else {})


def verdicts(store, *words):
    lines, text = audited(store, "--paper", "2999.00001", *words)
    return lines.get("verdict", pd.Series()).tolist(), text


def test_floor_rounding_is_flagged_under_round_and_passes_under_the_papers_protocol(paper):
    store = paper({"calls": 4, "value": 7.0}, {"calls": 6, "value": 5.0})
    measured(store, "a", 7.5, rule=ROUND)
    measured(store, "b", 5.01, rule=ROUND, nfe=6)
    told, text = verdicts(store)
    assert told == ["differs (uint8 floor, here round)", "another protocol (uint8 floor, here round)"]
    measured(store, "c", 7.02)
    measured(store, "d", 5.01, nfe=6)
    told, text = verdicts(store)  # of the rows of both rules those of the paper's
    assert told == ["agrees", "agrees"]
    assert "7.02 ± 0.10" in text
    assert "half-width of the 95 % interval of the measured number" in text


@pytest.mark.parametrize(
    ("number", "row", "verdict"),
    [
        ({}, {}, "differs (nothing that is known explains it)"),
        ({"protocol": "thresholded=quantile 0.995, at least 1, rescaled; samples=400"}, {},
         "differs (threshold quantile 0.995, here none)"),
        ({"protocol": "samples=400; t_end=1e-4"}, {}, "differs (t_end 1e-4, here 0.002)"),
        ({"protocol": "samples=400; t_end=0"}, {}, "differs (t_end 0, here 0.002)"),
        ({"protocol": "samples=400; t_end=1e-3 (type 1) or 1e-4 (type 2)"}, {},
         "differs (t_end 1e-3 or 1e-4, here 0.002)"),
        ({"protocol": ""}, {}, "differs (samples 50,000, here 400)"),
        ({"protocol": "", "samples": 30_000}, {}, "differs (samples 30,000, here 400)"),
        ({"nfe_meaning": "nominal", "nfe": 5, "nfe_text": "5"}, {}, "differs (NFE 5 (nominal, 4 calls), here calls)"),
        ({"nfe_meaning": "steps", "nfe": 2, "nfe_text": "2"}, {}, "differs (NFE 2 (steps, 4 calls), here calls)"),
        ({"quoted_from": "2206.00364"}, {}, "differs (source quoted from 2206.00364)"),
        ({"note": "a minimum is reported in the paper"}, {}, "differs (runs least of three, here one)"),
        ({"protocol": "uint8=floor; samples=400; fid=tfgan, statistics of Score-SDE"},
         {"protocol": {"reference[inception-v3-compat]": "cifar10-train n=50000"}},
         "differs (statistics tfgan, statistics of Score-SDE, here cifar10-train n=50000)"),
        ({"protocol": "uint8=floor; samples=400; fid=EDM fid.py"},
         {"protocol": {"reference[inception-v3-compat]": "edm-cifar10 n=50000"}},
         "differs (nothing that is known explains it)"),
        ({}, {"protocol": {"reference[inception-v3-compat]": "celeba-train n=50000"}},
         "differs (reference of CIFAR-10, here celeba-train n=50000)"),
        ({}, {"precision": "bf16"}, "differs (precision not stated, here bf16)"),
        ({}, {"arrays": False}, "no interval"),
    ],
)  # fmt: skip
def test_what_could_explain_a_difference_is_named(paper, number, row, verdict):
    store = paper({"calls": 4, "value": 7.0} | number)
    measured(store, "a", 7.5, **row)
    assert verdicts(store)[0] == [verdict]


def test_a_paper_made_of_a_store_is_run_by_the_commands_of_its_audit(paper, tmp_path):
    """From the paper to the command, by that to a row, and from the row back to the paper."""
    cell = {
        "model": "cifar10-tiny-vp", "fastsample_solver": "heun", "grid": "nsr", "calls": 4,
        "metric": "fd[cifar10-resnet]", "protocol": "uint8=round; samples=40", "value": 1.0,
    }  # fmt: skip
    store = paper(cell)
    lines, _ = audited()
    words = shlex.split(lines["command"][0])
    assert words[0] == "fastsample"
    code, _, err = command(*words[1:], "--out", store, "--device", "cpu")
    assert code == 0, err
    (row,) = Store(store).rows()
    value = row.metrics["fd[cifar10-resnet]@40"]
    assert verdicts(store)[0] == ["differs (nothing that is known explains it)"]
    paper(cell | {"value": round(value, 2)})
    assert verdicts(store)[0] == ["agrees"]
    paper(cell | {"value": round(value, 2), "protocol": "uint8=floor; samples=40"})
    assert verdicts(store)[0] == ["another protocol (uint8 floor, here round)"]


def test_the_interval_decides(paper):
    """To the two digits that tables print."""
    store = paper({"calls": 4, "value": 7.0})
    measured(store, "a", 7.0 + HALF + 0.004)
    assert verdicts(store)[0] == ["agrees"]
    store = store.parent / "wider"
    measured(store, "a", 7.0 + HALF + 0.02)
    assert verdicts(store)[0] == ["differs (nothing that is known explains it)"]


def test_seeds_are_one_number(paper):
    store = paper({"calls": 4, "value": 7.0})
    for seed, value in enumerate((6.9, 7.1)):
        measured(store, f"a{seed}", value, seed=seed)
    lines, _ = audited(store)
    assert lines["measured"].tolist() == [7.0]
    assert lines["difference"].tolist() == [0.0]


@pytest.mark.parametrize(
    "row",
    [
        {"solver": "edm-euler"}, {"grid": "logsnr"}, {"nfe": 6}, {"guidance": 1.0}, {"classifier_scale": 2.0},
        {"metric": "fd[inception-v3-compat:1a2b3c4d]@400"}, {"metric": "kid[inception-v3-compat]@400"},
        {"model": "edm-ffhq64-vp"}, {"options": {"denoise": True}},
    ],
)  # fmt: skip
def test_another_cell_is_not_measured(paper, row):
    store = paper({"calls": 4, "value": 7.0})
    measured(store, "a", 7.0, **row)
    told, text = verdicts(store)
    assert told == []
    assert "Not measured: 1 that can be run; without a store all are listed." in text
    assert "fastsample bench --model edm-cifar10-uncond-vp --solver edm-heun" in text


def test_a_default_that_is_written_out_is_the_same_solver(paper):
    store = paper({"calls": 4, "value": 7.0, "fastsample_solver": "edm-heun:denoise=false"})
    measured(store, "a", 7.0)
    assert verdicts(store)[0] == ["agrees"]


@pytest.mark.parametrize("words", [["--paper", "9999.99999"], ["--model", "no-such"], ["--metric", "no-such"]])
def test_a_question_that_nothing_fits(words):
    code, out, _ = command("audit", *words)
    assert code == 0
    assert "no published number fits" in out


def test_a_folder_that_is_no_store_is_refused(tmp_path):
    code, _, err = command("audit", tmp_path, "--paper", "2312.00094")
    assert code == 2
    assert "is no store" in err
    Store(tmp_path / "empty")
    code, _, err = command("audit", tmp_path / "empty", "--paper", "2312.00094")
    assert code == 2
    assert "holds no finished cell" in err


@pytest.mark.parametrize("ending", [".md", ".tex", ".html", ".csv", ".txt"])
def test_the_forms_are_those_of_other_tables(ending, tmp_path):
    out = tmp_path / f"audit{ending}"
    code, _, err = command("audit", "--paper", "2206.00927", "-o", out)
    assert code == 0, err
    assert "dpm-solver-3" in out.read_text("utf-8")


def test_help_has_examples():
    code, out, _ = command("audit", "--help")
    assert code == 0
    assert "fastsample audit --paper 2312.00094" in out
    assert "fastsample audit results-paper --paper 2312.00094 --metric fid" in out


def test_floor_rounding_is_flagged_and_the_papers_own_protocol_passes_end_to_end(paper):
    cell = {
        "model": "cifar10-tiny-vp", "fastsample_solver": "heun", "grid": "nsr", "calls": 4,
        "metric": "fd[cifar10-resnet]",
        "protocol": "uint8=floor; samples=40; t_end=1e-2; thresholded=quantile 0.995, at least 1", "value": 1.0,
    }  # fmt: skip
    store = paper(cell)
    lines, _ = audited()
    theirs = shlex.split(lines["command"][0])[1:]
    assert {"--uint8", "--threshold", "--t-end"} <= set(theirs)
    assert command(*theirs, "--out", store, "--device", "cpu").code == 0
    (row,) = Store(store).rows()
    paper(cell | {"value": round(row.metrics["fd[cifar10-resnet]@40"], 2)})
    assert verdicts(store)[0] == ["agrees"]
    at, other = theirs.index("--uint8"), store.parent / "round"
    assert command(*theirs[:at], *theirs[at + 2 :], "--out", other, "--device", "cpu").code == 0
    (verdict,) = verdicts(other)[0]
    assert "uint8" in verdict
    assert command(*theirs, "--out", other, "--device", "cpu").code == 0
    assert verdicts(other)[0] == ["agrees"]
