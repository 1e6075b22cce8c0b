"""Protocols of papers: what `--protocol` sets, what wins over it, and what it says."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from fastsample.bench.metrics.reference import data_set
from fastsample.bench.protocol import asked_of
from fastsample.bench.request import Request, read_request
from fastsample.datasets.published_moments import published_references
from fastsample.models.analytic import ring_mixture
from fastsample.models.catalogue import open_model
from fastsample.models.path import DiscreteVP, Edm, LinearFlow, VPLinear
from fastsample.models.public.cards import cards
from fastsample.results.commands import bench_command
from fastsample.results.papers.page import filled
from fastsample.results.papers.presets import presets
from fastsample.results.protocol import Protocol
from fastsample.results.published import papers
from fastsample.results.store import Store
from fastsample.solvers.solver import solvers

from ..command import command

DOCS = Path(__file__).parents[2] / "docs"
NAMES = ["edm", "adm", "score-sde", "dpm-solver", "dpm-solver-v3", "diff-sampler", "scire", "rectified-flow", "edm2"]
FEW = ("--samples", "4", "--metrics", "psnr")


def model_of(path=None, **changes):
    """A model on CIFAR-10, as its card would have it."""
    model = replace(open_model("cifar10-tiny-vp"), **dict(data="cifar10", reference="edm-cifar10") | changes)
    return model if path is None else replace(model, path=path, make=lambda *_: ring_mixture(path))


def asked(preset, model, solver="ddim", nfe=10, **given):
    return asked_of(read_request(None, protocol=preset, **given), model, solver, nfe)


def test_the_page_is_made_from_the_protocols():
    page = (DOCS / "protocols.md").read_text("utf-8")
    assert filled(page) == page
    assert list(presets()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_rule_sets_fields_that_there_are_for_cells_that_there_can_be(name):
    references = {entry.id: entry for entry in published_references()}
    paths = {path.name for path in (VPLinear(), DiscreteVP.ddpm(), Edm(), LinearFlow())}
    assert set(presets()[name].papers) <= set(papers())
    for rule in presets()[name].rules:
        assert {*rule.set} <= {*Protocol.model_fields, "samples", "seeds"} - {"preset", "guidance", "guide"}
        Request(**rule.set)
        assert {*rule.solvers} <= {*solvers()}
        assert {*rule.paths} <= paths
        assert rule.set or rule.note
        if "reference" in rule.set:
            assert references[rule.set["reference"]].data == rule.data
        assert not rule.data or any(data_set(card.data) == rule.data for card in cards().values())


def test_a_cell_has_what_its_paper_does_and_the_row_can_be_repeated(tmp_path):
    ended = command(
        "bench", "--protocol", "dpm-solver", "--model", "gmm2d", "--solver", "ddim", "--nfe", "4,16", *FEW,
        "--uint8", "floor", "--out", tmp_path / "s",
    )  # fmt: skip
    assert ended.code == 0
    assert "protocol dpm-solver: samples: 4 as given, where it has 50000" in ended.out
    assert "protocol dpm-solver: uint8: floor as given, where it has round" in ended.out
    short, long = sorted(Store(tmp_path / "s").rows(), key=lambda row: row.nfe)
    assert (short.t_end, long.t_end) == (None, 1e-4)  # 1e-3 is the model's own
    assert {(row.preset, row.uint8, row.samples) for row in (short, long)} == {("dpm-solver", "floor", 4)}
    plain = ["bench", "--model", "gmm2d", "--solver", "ddim", "--nfe", "4", "--uint8", "floor", *FEW]
    assert command(*plain, "--out", tmp_path / "s").code == 0
    assert len(Store(tmp_path / "s").rows()) == 2  # that of the protocol
    again = shlex.split(bench_command(long))[1:-1]
    assert command(*again, tmp_path / "again").code == 0
    (row,) = Store(tmp_path / "again").rows()
    assert (row.cell, row.metrics) == (long.cell, long.metrics)


def test_a_sweep_names_its_protocol_and_a_wrong_name_is_told(tmp_path):
    (tmp_path / "sweep.toml").write_text('protocol = "score-sde"\nsamples = 8\n')
    request = read_request(tmp_path / "sweep.toml", samples=4)
    assert (request.preset, request.samples) == ("score-sde", 4)
    for words in (["--protocol", "emd"], ["--config", tmp_path / "wrong.toml"]):
        (tmp_path / "wrong.toml").write_text('protocol = "emd"\n')
        ended = command("bench", *words, "--out", tmp_path / "s")
        assert ended.code == 2
        assert "unknown protocol 'emd'" in ended.err
        assert "edm" in ended.err


def test_thresholds_of_some_solvers_stay_theirs_and_do_not_share_a_column(tmp_path):
    words = ["--protocol", "diff-sampler", "--model", "gmm2d", "--solver", "edm-euler,unipc", "--nfe", "4", *FEW]
    assert command("bench", *words, "--out", tmp_path).code == 0
    rows = {row.solver: row.threshold for row in Store(tmp_path).rows()}
    assert rows == {"edm-euler": None, "unipc": 0.995}
    ended = command("table", tmp_path)
    assert ended.code == 2
    assert "threshold" in ended.err


def test_the_models_own_ends_and_reference_are_left_unset():
    request, notes = asked("edm", model_of(Edm()))
    assert (request.asked, request.samples, request.seeds) == (Protocol(preset="edm"), 50_000, 3)
    assert notes == ["protocol edm: seeds: the least of three runs is reported; here each run has its row"]
    request, _ = asked("edm", model_of(reference="score-sde-cifar10"))
    assert (request.sigma_min, request.sigma_max, request.reference) == (0.002, 80.0, "edm-cifar10")


def test_what_is_given_takes_the_other_name_of_an_end_with_it():
    request, notes = asked("edm", model_of(), t_end=1e-4)
    assert (request.t_end, request.sigma_min, request.sigma_max) == (1e-4, None, 80.0)
    request, notes = asked("dpm-solver", model_of(), nfe=20, sigma_min=0.02)
    assert (request.t_end, request.sigma_min) == (None, 0.02)
    request, notes = asked("edm", model_of(Edm()), uint8="floor", samples=50_000)
    assert (request.uint8, request.samples) == ("floor", 50_000)
    assert notes[1:] == ["protocol edm: uint8: floor as given, where it has round"]


@pytest.mark.parametrize(
    ("preset", "model", "solver", "note"),
    [
        ("score-sde", model_of(), "ddim", "reference: score-sde-cifar10 is by tfhub-inception, an extractor that"),
        ("dpm-solver", model_of(), "ddim", "reference: dpm-solver-cifar10 is by pytorch-fid, an extractor that is not"),
        ("dpm-solver", model_of(DiscreteVP.ddpm()), "ddim", "t_end: 1e-3 or 1e-4 by the type of discretisation"),
        ("scire", model_of(), "ddim", "t_end: 1e-3 and 1e-4 were both tried"),
        ("scire", model_of(DiscreteVP.ddpm()), "ddim", "t_end: t_end=0.0001 is no end of the path"),
        ("edm", model_of(DiscreteVP.ddpm(100)), "ddim", "sigma_max: sigma_max=80 is no end of the path"),
        ("diff-sampler", model_of(shape=(4, 8, 8)), "unipc", "threshold: cifar10-tiny-vp is a latent model"),
        ("rectified-flow", model_of(), "ddim", "samples, reference: not known for cifar10-tiny-vp"),
        ("adm", model_of(data="celeba", reference=""), "ddim", "reference: not known for cifar10-tiny-vp"),
        ("dpm-solver-v3", model_of(data="celeba", reference=""), "ddim", "samples, uint8, reference: not known"),
    ],
)
def test_what_cannot_be_met_is_said_and_the_rest_applies(preset, model, solver, note):
    request, notes = asked(preset, model, solver)
    assert any(text.startswith(f"protocol {preset}: {note}") for text in notes)
    field = note.split(":")[0].split(",")[-1].strip()
    assert getattr(request, field) in (None, "")
    fields, _ = presets()[preset].fields(data_set(model.data), 32, model.path.name, solver, 10)
    met = {name: value for name, value in fields.items() if name in ("samples", "uint8", "seeds")}
    assert {name: getattr(request, name) for name in met} == met


def test_they_are_listed():
    ended = command("list", "protocols")
    assert ended.code == 0
    assert all(name in ended.out for name in NAMES)
