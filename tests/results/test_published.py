"""Published numbers: one schema, certain mappings only, search, and their place beside measured ones."""

import csv
import re
from collections import Counter, defaultdict
from pathlib import Path

import pandas as pd
import pytest

from fastsample.bench.suite import suite
from fastsample.models.public.cards import cards
from fastsample.results.papers.page import filled
from fastsample.results.papers.stated import MEANINGS, kind_of
from fastsample.results.published import COLUMNS, beside, disagreements, published, search, summary
from fastsample.solvers.grids import Grid
from fastsample.solvers.spec import Spec

NUMBERS, SUITE = published(), suite()
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "published.md").read_text("utf-8")
TEXTS = [row for file in sorted((ROOT / "results" / "published").glob("*.csv"))
         for row in csv.DictReader(file.open(newline="", encoding="utf-8"))]  # fmt: skip
EVIDENCE = {
    "abstract", "table of the paper", "text of the paper", "table of the paper, quoting earlier work",
    "README of the authors' code", "configuration file of the authors' code", "secondary report",
    "approximate reading by a secondary report", "third-party full-text reading", "public paper summary",
    "public paper notes", "comparison table of another paper", "caption quoted in a public review page",
    "figure of the paper, with printed values",
}  # fmt: skip
TRAINED = {
    "none", "statistics", "mse", "l1", "lpips", "inception", "adversarial", "classifier", "reward", "weights",
    "unknown",
}  # fmt: skip


def test_the_schema():
    assert tuple(NUMBERS.columns) == COLUMNS
    assert len(NUMBERS) == len(TEXTS)
    assert NUMBERS["paper"].str.fullmatch(r"\d{4}\.\d{5}").all()
    assert set(NUMBERS["evidence"]) == EVIDENCE
    assert (NUMBERS[["table", "source_version"]] != "").all(axis=None)
    assert NUMBERS["unit"].isin(["", "dB", "%", "millions", "days"]).all()
    assert set(NUMBERS["trained_on"]) == TRAINED
    assert set(NUMBERS["confidence"]) == {"high", "medium", "low"}
    key = ["paper", "table", "dataset", "resolution", "checkpoint", "guidance", "schedule", "solver", "nfe_text"]
    assert not NUMBERS.duplicated([*key, "metric"]).any()


def test_the_page_counts_what_the_files_hold():
    """docs/published.md against the files read by csv alone."""
    told = {line[0]: line[1:] for line in re.findall(
        r"^\| (\S+) \| [^|]* \| (\d+) \| (\d+) \| (\d+) \| (\d+) / (\d+) / (\d+) \|$", PAGE, re.M
    )}  # fmt: skip
    found = defaultdict(Counter)
    for row in TEXTS:
        mapped, quoted = row["model"] and row["fastsample_solver"], row["quoted_from"]
        for name in (row["paper"], "all"):
            found[name] += Counter({"": 1, "mapped": bool(mapped), "quoted": bool(quoted), row["confidence"]: 1})
    names = ("", "mapped", "quoted", "high", "medium", "low")
    assert told == {paper: tuple(str(counts[name]) for name in names) for paper, counts in found.items()}
    assert filled(PAGE) == PAGE


def test_disagreements_are_those_of_the_files():
    """Cells with values that are not roundings of one another, from the values as printed."""
    cells = defaultdict(list)
    for row in TEXTS:
        if row["nfe"] and row["method"] and "ablation" not in row["method"] and row["metric"] in ("fid", "is"):
            where = row["model"] or f"{row['dataset']} {row['resolution']} {row['checkpoint']}"
            calls = int(row["calls"] or row["nfe"])
            cells[where, row["method"], calls, row["metric"], row["guidance"]].append((row["value"], row["paper"]))
    expected = set()
    for cell, values in cells.items():
        texts = sorted({text for text, _ in values}, key=lambda text: -len(text.partition(".")[2]))
        apart = []
        for text in texts:
            half = 0.5000001 * 10.0 ** -len(text.partition(".")[2])
            if all(abs(float(text) - float(other)) > half for other in apart):
                apart.append(text)
        numbers = [float(text) for text in apart]
        if len(apart) > 1 and max(numbers) / min(numbers) >= 1.005:
            expected |= {(*cell, float(text), paper) for text, paper in values}
    known = disagreements()
    guidance = known["guidance"].map(lambda value: "" if pd.isna(value) else str(value))
    found = {*zip(*(known[name] for name in ("model", "method", "calls", "metric")), guidance, known["value"],
                  known["paper"], strict=True)}  # fmt: skip
    assert found == expected


@pytest.mark.parametrize(
    ("metric", "low", "high"), [("fid", 0.5, 500), ("is", 1, 300), ("recall", 0, 1), ("psnr", 5, 60)]
)
def test_values_are_in_range(metric, low, high):
    values = NUMBERS.loc[NUMBERS["metric"] == metric, "value"]
    assert len(values) > 5
    assert values.between(low, high).all()


def test_evaluations_are_as_printed():
    number = NUMBERS["nfe_text"].str.extract(r"^(\d+)(?:x2)?$")[0].astype("Int64")
    assert number.equals(NUMBERS["nfe"].astype("Int64").rename(0))
    assert NUMBERS["nfe"].dropna().between(1, 2000).all()
    assert set(NUMBERS.loc[NUMBERS["nfe"].isna(), "nfe_text"]) == {
        "", "adaptive", "not stated", "(7+3)x2", "(8+2)x2", "(12+2)x2", "(17+3)x2",
    }  # fmt: skip
    assert set(NUMBERS["samples"].dropna()) == {10_000, 30_000}


def test_every_printed_number_says_what_it_counts():
    assert set(NUMBERS["nfe_meaning"]) == {"", *MEANINGS}
    assert (NUMBERS.loc[NUMBERS["nfe"].notna(), "nfe_meaning"] != "").all()
    calls = NUMBERS[NUMBERS["nfe_meaning"] == "calls"]
    assert (calls["calls"] == calls["nfe"]).all()
    assert (NUMBERS.loc[NUMBERS["nfe_meaning"] == "depth", "fastsample_solver"] == "").all()


def test_mappings_name_what_exists():
    models = set(NUMBERS["model"]) - {""}
    assert models <= set(cards())
    for _, hit in NUMBERS[NUMBERS["model"] != ""].drop_duplicates("model").iterrows():
        card = cards()[hit["model"]]
        assert hit["dataset"].lower().replace("-", "") in card.data.replace("-", ""), hit["model"]
        assert hit["resolution"] == card.image_shape[-1], hit["model"]
    for text in set(NUMBERS["fastsample_solver"]) - {""}:
        Spec.parse(text)
    for text in set(NUMBERS["grid"]) - {""}:
        assert str(Grid.parse(text)) == text  # as rows write it
    quoted = NUMBERS[(NUMBERS["quoted_from"] != "") & (NUMBERS["fastsample_solver"] != "")]
    assert quoted["evidence"].str.contains("quoting earlier").all()  # else a value would stand twice


def test_guidance_is_the_weight_of_what_is_printed():
    """w of (1 + w) c - w u; papers print it, or s = 1 + w."""
    guided = NUMBERS["checkpoint"].str.contains(r"CFG(?! form)(?!, scale not)|CFG form, scale")
    assert guided.equals(NUMBERS["guidance"].notna())
    for _, hit in NUMBERS[guided].drop_duplicates("checkpoint").iterrows():
        as_w, as_s = re.search(r"CFG w=([\d.]+)|CFG(?: form, scale)? ([\d.]+)", hit["checkpoint"]).groups()
        assert hit["guidance"] == pytest.approx(float(as_w) if as_w else float(as_s) - 1), hit["checkpoint"]


def test_known_numbers():
    """Some of each source, read off the papers and READMEs."""

    def value(**words):
        hits = search(NUMBERS, **words)
        assert hits["value"].nunique() == 1, hits
        return hits["value"].iloc[0]

    assert value(paper="2308.07896", model="edm-cifar10-cond-vp", solver="scire", nfe=12) == 2.29
    assert value(paper="2312.00094", model="edm-ffhq64-vp", solver="iPNDM-4", nfe=10) == 3.98
    assert value(model="edm-cifar10-uncond-vp", solver="unipc", table="diff-sampler", nfe=10) == 2.89
    assert value(model="rf-cifar10-1", solver="dopri5", metric="fid", table="Table 1a") == 2.58
    assert value(paper="2411.07627", dataset="church", solver="flow-solver") == 19.49
    assert value(paper="2505.21114", model="sit-xl2-256", solver="heun", nfe=16, metric="fid") == 3.68
    assert value(paper="2403.01329", table="abstract", metric="psnr") == 45
    assert value(paper="2510.17699", method="gas", model="edm-cifar10-uncond-vp", nfe=4, table="Table 2a") == 4.05


@pytest.mark.parametrize("name", ["GAS", "S4S", "GITS", "AMED", "EPD", "DyWeight"])
def test_learned_solvers_are_found(name):
    by_solver, by_method = search(NUMBERS, solver=name), search(NUMBERS, method=name)
    assert len(by_solver) >= len(by_method) >= 5
    assert by_method["method"].str.contains(name.lower()).all()
    assert (by_solver["fastsample_solver"] == "").all()


def test_search_forgives_case_spaces_and_hyphens():
    assert len(search(NUMBERS, dataset="cifar10")) == len(search(NUMBERS, dataset="CIFAR-10")) == 850
    assert set(search(NUMBERS, solver="SCIRE", nfe=12)["nfe"]) == {12}
    assert len(search(NUMBERS, paper=None)) == len(NUMBERS)
    assert search(NUMBERS, solver="dpm-solver++").shape[0] < search(NUMBERS, solver="dpm-solver").shape[0]
    assert search(NUMBERS, nfe=7777).empty
    with pytest.raises(ValueError, match="no column 'sampler'"):
        search(NUMBERS, sampler="x")


def test_a_whole_word_is_no_part_of_another():
    assert set(search(NUMBERS, metric="is")["metric"]) == {"is"}  # and not precision
    assert set(search(NUMBERS, model="sde-vp-ddpmpp-deep")["model"]) == {"sde-vp-ddpmpp-deep"}
    assert set(search(NUMBERS, method="ipndm")["method"]) == {"ipndm"}
    assert set(search(NUMBERS, method="gits")["method"]) == {"ipndm+gits", "unipc+gits", "ddim+gits", "ipndm-2+gits"}
    assert set(search(NUMBERS, trained_on="lpips", confidence="high")["trained_on"]) == {"lpips"}


def test_the_summary_says_source_and_evidence():
    hits = search(NUMBERS, paper="2411.07627", dataset="cifar10")
    sheet = summary(hits)
    assert len(sheet.frame) == 2
    letter, text = sheet.notes[0]
    assert letter == "a"
    assert text.startswith("abstract; linear (rectified flow); ")
    assert "confidence high" in text
    assert sheet.lines[0][1][6].text == "fid@30000"
    assert sheet.data is hits


@pytest.mark.parametrize(
    ("words", "printed", "meaning"),
    [
        (dict(paper="2308.07896", fastsample_solver="scire:mode", nfe=15, model="ddim-celeba64"),
         "15 (nominal, 14 calls)", "NFE counts evaluations of the denoiser; (nominal): an upper bound"),
        (dict(paper="2507.14797", method="epd-solver", nfe=5, model="edm-cifar10-uncond-vp"), "5 (depth)", "(depth): "),
        (dict(paper="2308.07896", method="f-pndm", nfe=20, model="ddpm-cifar10"), "20 (steps, 29 calls)", "(steps): "),
        (dict(paper="2411.07627", dataset="cifar10"), "10", ""),
    ],
)  # fmt: skip
def test_the_summary_says_what_the_nfe_counts(words, printed, meaning):
    sheet = summary(search(NUMBERS, **words))
    assert {line[1][5].text for line in sheet.lines} == {printed}
    foot = [text for letter, text in sheet.notes if not letter]
    assert (meaning in foot[0]) if meaning else not foot


def line(solver, nfe, value, **changes):
    facts = {
        "model": "edm-cifar10-uncond-vp", "solver": solver, "grid": "logsnr", "nfe": nfe, "made": nfe,
        "metric": "fid@50000", "samples": 50_000, "guidance": 0.0, "value": value,
    }  # fmt: skip
    return facts | changes


def placed(*lines, **row):
    """Published numbers beside lines whose rows have these fields."""
    found = pd.DataFrame(lines).assign(cells=[(str(number),) for number in range(len(lines))])
    facts = {"classifier_scale": 0.0, "protocol.uint8": "floor(clip(127.5 x + 128, 0, 255))"} | row
    rows = found.assign(cell=[cell for (cell,) in found["cells"]], **facts)
    return beside(found, rows, NUMBERS, SUITE)


def test_beside_matches_checkpoint_solver_grid_calls_and_guidance():
    karras = {"grid": "karras"}
    wide, notes = placed(
        line("ipndm", 10, 3.0, **karras), line("ipndm:order=4", 10, 3.0, **karras),
        line("ipndm:order=2", 10, 3.0, **karras), line("ipndm", 11, 3.0, **karras),
        line("ipndm", 10, 3.0, model="edm-cifar10-uncond-ve", **karras),
        line("ipndm", 10, 3.0, metric="kid@50000", **karras),
        line("heun", 16, 3.6, model="sit-xl2-256", guidance=0.375),
        line("heun", 16, 3.6, model="sit-xl2-256"), line("my-own", 10, 3.0), line("ipndm", 10, 3.0, grid="uniform"),
    )  # fmt: skip
    assert wide["published"].tolist() == [(2.77,), (2.77,), (), (), (), (), (3.68,), (), (), ()]
    assert wide["difference"].tolist()[0] == (0.23,)
    assert wide["difference"].tolist()[6] == (-0.08,)
    assert wide["sources"][0][0].startswith("arXiv 2312.00094; README of zju-pi/diff-sampler")
    assert "README of the authors' code" in wide["sources"][0][0]
    assert notes == ["No published numbers are known for edm-cifar10-uncond-ve."]


def test_beside_goes_by_calls_and_not_by_what_is_printed():
    """SciRE's 15 of order 2 are 14 calls; EDM's 35 is spent by a budget of 36."""
    faces, fixed = {"model": "ddim-celeba64", "grid": "nsr"}, "scire:mode=singlestep_fixed"
    budgets = ((15, {}), (14, {}), (15, {"made": 14}))
    wide, notes = placed(*(line(fixed, nfe, 3.4, **faces | made) for nfe, made in budgets))
    assert wide["published"].tolist() == [(), (3.38,), (3.38,)]
    assert wide["difference"].tolist() == [(), (), ()]
    assert notes == ["No difference is formed where protocols differ: NFE 15 (nominal, 14 calls), here calls."]
    wide, _ = placed(line("edm-heun:denoise=true", 36, 2.0, made=35, grid="karras"))
    assert wide["published"][0] == (1.97, 2.01)
    assert wide["difference"][0] == (0.03, -0.01)  # its last data prediction is EDM's end at 0


def test_an_interval_of_ones_own_is_no_papers():
    """Of a paper that does not state its end, and by times of a VP path as by noise-to-signal ratios."""
    cell = line("dpm-solver-3", 20, 3.0, model="sde-vp-ddpmpp-deep")
    told = "t_end 1e-4, here 0.001"
    assert any(told in note for note in placed(cell)[1])
    nsr = cards()["sde-vp-ddpmpp-deep"].path.build().nsr(1e-4)
    assert not any(told in note for row in ({"t_end": 1e-4}, {"sigma_min": nsr}) for note in placed(cell, **row)[1])
    faces = line("scire:mode=singlestep_fixed", 10, 7.0, model="ddim-celeba64", grid="nsr")
    assert placed(faces)[0]["difference"][0]
    wide, notes = placed(faces, t_end=1e-4)
    assert (wide["difference"][0], notes[0].rpartition(": ")[2]) == ((), "t_end not stated, here 0.0001.")


@pytest.mark.parametrize("meaning", ["steps", "nominal", "depth"])
def test_what_counts_no_calls_forms_no_difference(meaning):
    numbers = NUMBERS.copy()
    numbers.loc[numbers["paper"] == "2312.00094", "nfe_meaning"] = meaning
    found = pd.DataFrame([line("ipndm", 10, 3.0, grid="karras") | {"cells": ("a",)}])
    hits = numbers[numbers["paper"] == "2312.00094"]
    wide, notes = beside(found, found.assign(cell="a", classifier_scale=0.0), hits, SUITE)
    assert wide["published"][0] == (2.77,)
    assert wide["difference"][0] == ()
    assert f"NFE 10 ({meaning})" in notes[0]


@pytest.mark.parametrize(
    ("asked", "row", "published", "difference", "field"),
    [
        (("unipc", 10), {}, (2.85, 2.89), (), "uint8 floor, here round; threshold quantile 0.995, here none"),
        (("unipc", 10), {"threshold": 0.995}, (2.85, 2.89), (None, 0.11), "uint8 floor, here round"),
        (("unipc", 10), {"protocol.uint8": "floor(clip(127.5 x + 127.5, 0, 255))"}, (2.85, 2.89), (0.15, None),
         "uint8 round, here floor; threshold quantile 0.995, here none"),
        (("ipndm", 10, "karras"), {"t_end": 0.01}, (2.77,), (), "t_end 0.002, here 0.01"),
        (("ipndm", 10, "karras"), {"sigma_min": 0.02}, (2.77,), (), "t_end 0.002, here 0.02"),
        (("ipndm", 10, "karras"), {"t_end": float("nan")}, (2.77,), (0.23,), ""),
        (("ipndm", 10, "karras"), {"sigma_max": 40.0}, (2.77,), (), "start not stated, here 40"),
        (("ipndm", 10, "karras"), {"sigma_max": 80.0, "sigma_min": 0.002}, (2.77,), (0.23,), ""),
        (("ipndm", 10, "karras"), {"threshold": 0.995, "threshold_max": 2.0}, (2.77,), (),
         "threshold none, here quantile 0.995; threshold_max none, here 2"),
        (("ipndm", 10, "karras"), {"protocol.reference[inception-v3-compat]": "ffhq-train n=70000"}, (2.77,), (),
         "reference of CIFAR-10, here ffhq-train n=70000"),
        (("ipndm", 10, "karras"), {"protocol.reference[inception-v3-compat]": "edm-cifar10 n=50000"}, (2.77,), (0.23,),
         ""),
        (("ipndm", 10, "karras"), {"classifier_scale": 1.0}, (), (), ""),
    ],
)  # fmt: skip
def test_another_protocol_forms_no_difference_and_is_named(asked, row, published, difference, field):
    solver, nfe, *grid = asked
    wide, notes = placed(line(solver, nfe, 3.0, **({"grid": grid[0]} if grid else {})), **row)
    assert wide["published"][0] == published
    assert wide["difference"][0] == pytest.approx([float("nan") if x is None else x for x in difference], nan_ok=True)
    told = [note for note in notes if "protocols differ" in note]
    assert (field in told[0]) if field else not told


def test_a_quoted_number_is_no_second_source():
    """Of one value that is measured and quoted the quoted one goes; alone it stands without a difference."""
    mine = NUMBERS[(NUMBERS["paper"] == "2312.00094") & (NUMBERS["value"] == 2.77)]
    quoted = mine.assign(paper="2999.99999", quoted_from="2312.00094")
    found = pd.DataFrame([line("ipndm", 10, 3.0, grid="karras") | {"cells": ("a",)}])
    rows = found.assign(cell="a", classifier_scale=0.0)
    wide, notes = beside(found, rows, pd.concat([quoted, mine]), SUITE)
    assert (wide["published"][0], wide["difference"][0]) == ((2.77,), (0.23,))
    assert not any("2999.99999" in source for source in wide["sources"][0])
    assert notes == []
    wide, notes = beside(found, rows, quoted, SUITE)
    assert (wide["published"][0], wide["difference"][0]) == ((2.77,), ())
    assert notes == ["No difference is formed where protocols differ: source quoted from 2312.00094."]


def test_a_number_from_fewer_samples_is_shown_without_a_difference():
    wide, notes = placed(line("ipndm", 10, 5.0, samples=1000, metric="fid@1000", grid="karras"))
    assert wide["published"][0] == (2.77,)
    assert wide["difference"][0] == ()
    assert notes == ["No difference is formed where protocols differ: samples 50,000, here 1,000."]


def test_features_of_another_extractor_stand_beside_nothing():
    assert kind_of("precision[cifar10-resnet]@1000") == "precision[cifar10-resnet]"
    assert (kind_of("fid@1000"), kind_of("psnr")) == ("fid", "psnr")
    numbers = NUMBERS.assign(metric="precision")
    found = pd.DataFrame([
        line("ipndm", 10, 0.6, grid="karras", metric=f"precision[{name}]@50000") | {"cells": ("a",)}
        for name in ("cifar10-resnet", "inception-v3-compat")
    ])  # fmt: skip
    rows = found.head(1).assign(cell="a", classifier_scale=0.0)
    assert [bool(values) for values in beside(found, rows, numbers, SUITE)[0]["published"]] == [False, True]


def test_a_model_with_numbers_of_other_solvers_only():
    _, notes = placed(line("rk4", 10, 3.0))
    assert notes == ["No published number of edm-cifar10-uncond-vp has the same solver, grid, calls and metric."]
