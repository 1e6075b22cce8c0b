"""Published numbers: one schema, certain mappings only, search, and their place beside measured ones."""

import re

import pandas as pd
import pytest

from fastsample.models.public.cards import cards
from fastsample.results.published import COLUMNS, beside, published, search, summary
from fastsample.solvers.grids import Grid
from fastsample.solvers.spec import Spec, complete

NUMBERS = published()
PAPERS = {
    "2011.13456": 2, "2204.13902": 2, "2206.00927": 2, "2209.03003": 34, "2301.12003": 3, "2302.04867": 2,
    "2308.07896": 130, "2310.13268": 58, "2310.19075": 52, "2312.00094": 220, "2403.01329": 43, "2405.15506": 72,
    "2405.20320": 43, "2411.00322": 13, "2411.07627": 4, "2502.17423": 2, "2505.21114": 114, "2510.25229": 14,
    "2512.13255": 21, "2603.03973": 16,
}  # fmt: skip
EVIDENCE = {
    "abstract", "table of the paper", "text of the paper", "table of the paper, quoting earlier work",
    "README of the authors' code", "configuration file of the authors' code", "secondary report",
    "approximate reading by a secondary report", "third-party full-text reading", "public paper summary",
    "public paper notes", "comparison table of another paper", "caption quoted in a public review page",
}  # fmt: skip


def test_the_schema():
    assert tuple(NUMBERS.columns) == COLUMNS
    assert NUMBERS["paper"].value_counts().to_dict() == PAPERS
    assert NUMBERS["paper"].str.fullmatch(r"\d{4}\.\d{5}").all()
    assert set(NUMBERS["evidence"]) == EVIDENCE
    assert (NUMBERS["table"] != "").all()
    assert NUMBERS["unit"].isin(["", "dB", "%", "millions", "days"]).all()
    key = ["paper", "table", "dataset", "resolution", "checkpoint", "schedule", "solver", "nfe_text", "metric"]
    assert not NUMBERS.duplicated(key).any()


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


def test_mappings_name_what_exists():
    models = set(NUMBERS["model"]) - {""}
    assert models <= set(cards())
    for _, hit in NUMBERS[NUMBERS["model"] != ""].drop_duplicates("model").iterrows():
        card = cards()[hit["model"]]
        assert hit["dataset"].lower().replace("-", "") in card.data, hit["model"]
        assert hit["resolution"] == card.image_shape[-1], hit["model"]
    for text in set(NUMBERS["fastsample_solver"]) - {""}:
        Spec.parse(text)
    for text in set(NUMBERS["grid"]) - {""}:
        Grid.parse(text)
    guided = NUMBERS["guidance"].notna()
    for _, hit in NUMBERS[guided].drop_duplicates("checkpoint").iterrows():  # w; papers print it, or s = 1 + w
        as_w, as_s = re.search(r"CFG w=([\d.]+)|(?:CFG|guidance) ([\d.]+)", hit["checkpoint"]).groups()
        assert hit["guidance"] == (float(as_w) if as_w else float(as_s) - 1), hit["checkpoint"]
    assert guided.equals(NUMBERS["checkpoint"].str.contains(r"CFG|guidance \d"))


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
    assert value(paper="2505.21114", model="sit-xl2-256", solver="heun", nfe=16) == 3.68
    assert value(paper="2403.01329", table="abstract", metric="psnr") == 45


def test_search_forgives_case_spaces_and_hyphens():
    assert len(search(NUMBERS, dataset="cifar10")) == len(search(NUMBERS, dataset="CIFAR-10")) == 391
    assert set(search(NUMBERS, solver="SCIRE", nfe=12)["nfe"]) == {12}
    assert len(search(NUMBERS, paper=None)) == len(NUMBERS)
    assert search(NUMBERS, solver="dpm-solver++").shape[0] < search(NUMBERS, solver="dpm-solver").shape[0]
    assert search(NUMBERS, nfe=7777).empty
    with pytest.raises(ValueError, match="no column 'sampler'"):
        search(NUMBERS, sampler="x")


def test_the_summary_says_source_and_evidence():
    hits = search(NUMBERS, paper="2411.07627", dataset="cifar10")
    sheet = summary(hits)
    assert len(sheet.frame) == 2
    assert sheet.notes == (("a", "abstract; linear (rectified flow)"),)
    assert sheet.lines[0][1][6].text == "fid@30000"
    assert sheet.data is hits


ROWS = pd.DataFrame({"cell": ["a"]})


def line(solver, nfe, value, **changes):
    facts = {
        "model": "edm-cifar10-uncond-vp", "solver": solver, "grid": "logsnr", "nfe": nfe, "metric": "fid@50000",
        "samples": 50_000, "guidance": 0.0, "value": value, "cells": ("a",),
    }  # fmt: skip
    return facts | changes


def test_beside_matches_checkpoint_solver_evaluations_and_guidance():
    lines = pd.DataFrame([
        line("unipc", 10, 3.0), line("unipc:order=3,variant=bh2", 10, 3.0), line("unipc:order=2", 10, 3.0),
        line("unipc", 11, 3.0), line("unipc", 10, 3.0, model="edm-cifar10-uncond-ve"),
        line("unipc", 10, 3.0, metric="kid@50000"), line("heun", 16, 3.6, model="sit-xl2-256", guidance=0.375),
        line("heun", 16, 3.6, model="sit-xl2-256"), line("my-own", 10, 3.0),
    ])  # fmt: skip
    wide, notes = beside(lines, ROWS, NUMBERS, complete)
    assert wide["published"].tolist() == [(2.89,), (2.89,), (), (), (), (), (3.68,), (), ()]
    assert wide["difference"].tolist()[0] == (0.11,)
    assert wide["difference"].tolist()[6] == (-0.08,)
    assert wide["sources"][0][0].startswith("arXiv 2312.00094, README of zju-pi/diff-sampler")
    assert "README of the authors' code" in wide["sources"][0][0]
    assert notes == ["No published numbers are known for edm-cifar10-uncond-ve."]


def test_a_number_from_fewer_samples_is_shown_without_a_difference():
    wide, notes = beside(
        pd.DataFrame([line("ipndm", 10, 5.0, samples=1000, metric="fid@1000", grid="karras")]), ROWS, NUMBERS, complete
    )
    assert wide["published"][0] == (2.77,)
    assert wide["difference"][0] == ()
    assert "No difference is formed" in notes[0]
    assert "on the grid" not in wide["sources"][0][0]


def test_a_model_with_numbers_of_other_solvers_only():
    _, notes = beside(pd.DataFrame([line("rk4", 10, 3.0)]), ROWS, NUMBERS, complete)
    assert notes == ["No published number of edm-cifar10-uncond-vp has the same solver, evaluations and metric."]
