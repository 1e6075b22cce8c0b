"""What a protocol asks for beside model and sampler: the interval, thresholding, the rule of rounding."""

import shlex
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console

from fastsample.bench.protocol import under
from fastsample.bench.request import Request, RequestError, read_request
from fastsample.bench.sweep import run_sweep
from fastsample.datasets.levels import to_uint8
from fastsample.models.altered import Thresholded
from fastsample.models.analytic import ring_mixture
from fastsample.models.catalogue import open_model
from fastsample.models.path import Edm, VPLinear
from fastsample.results.commands import bench_command, sample_command
from fastsample.results.comparable import incomparable
from fastsample.results.overview import differences
from fastsample.results.protocol import Protocol
from fastsample.results.row import frame_of
from fastsample.results.store import Store
from fastsample.solvers.proofs.golden import SHIPPED, cases, rebuild

from ..command import command

CASES = [
    case
    for _, case in cases(SHIPPED)
    if not case["solver"].startswith("reference")
    and (case.get("t_end") == 1e-4 or case.get("options", {}).get("dynamic_thresholding"))
]


def model_of(path):
    return replace(open_model("gmm2d"), path=path, make=lambda *_: ring_mixture(path))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['solver']}-{case.get('nfe')}")
def test_what_official_code_makes_at_1e_4_and_with_thresholding(case):
    """The golden numbers, by the model that the options of the command line make."""
    thresholded = bool(case.get("options", {}).get("dynamic_thresholding"))
    _, plan = rebuild(case)
    asked = Protocol(threshold=0.995 if thresholded else None, t_end=None if thresholded else 1e-4)
    model = under(model_of(Edm() if case["problem"] == "gmm2d_edm" else VPLinear()), asked)
    assert model.path == plan.path
    start = torch.tensor(case.get("x_T", case.get("x_init")), dtype=torch.float64)
    result = torch.tensor(case.get("x_0", case.get("x_final")), dtype=torch.float64)
    assert float((plan(model.make(None, None, 0.0, None), start) - result).abs().max()) < 1e-8


def test_there_are_such_cases():
    assert len(CASES) >= 6


@pytest.mark.parametrize("q", [0.9, 0.995, 1.0])
def test_the_quantile_is_torchs_and_has_no_limit(q):
    x = torch.randn(3, 1000, generator=torch.Generator().manual_seed(0)).double() * 3
    base = ring_mixture(VPLinear())
    found = Thresholded(base, q)._answer(x, x, 0.5, 1.0, 0.0)
    size = torch.quantile(x.abs(), q, dim=1).clamp(min=1)[:, None]
    torch.testing.assert_close(found, x.clamp(-size, size) / size, rtol=1e-12, atol=0)
    few = Thresholded(base, q, 1.5)._answer(x, x, 0.5, 1.0, 0.0)
    torch.testing.assert_close(few, x.clamp(-1.5, 1.5) / 1.5, rtol=1e-12, atol=0)
    wide = torch.linspace(-4, 4, 2**24 + 3)[None]  # torch.quantile refuses so many
    assert Thresholded(base, q)._answer(wide, wide, 0.5, 1.0, 0.0).abs().max() == 1


def test_uint8_rules():
    levels = torch.arange(256)
    exact = (levels - 127.5) / 127.5
    for rule in ("round", "floor"):
        assert to_uint8(exact + 1e-4, rule).tolist() == levels.tolist()
    assert to_uint8(exact - 1e-4, "round").tolist() == levels.tolist()
    assert to_uint8(exact - 1e-4, "floor").tolist() == [0, *range(255)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"t_end": 2.0}, "t_end=2 is no end of the path of gmm2d"),
        ({"t_end": -0.1}, "t_end=-0.1 is no end"),
        ({"sigma_max": 1e9}, "sigma_max=1e\\+09 is no end"),
        ({"sigma_min": 10.0, "sigma_max": 5.0}, "sigma_min=10, sigma_max=5 is no end"),
        ({"model": "gmm2d-flow", "t_end": 1.5}, "is no end of the path of gmm2d-flow"),
    ],
)
def test_an_interval_that_a_path_has_not_is_refused(changes, message, tmp_path):
    with pytest.raises(RequestError, match=message):
        run_sweep(Request(**dict(model="gmm2d", metrics=("psnr",), out=tmp_path) | changes), Console(quiet=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"t_end": 1e-4, "sigma_min": 0.01}, "two names of one end"),
        ({"threshold_max": 2.0}, "give its quantile too"),
        ({"threshold": 1.5}, "less than or equal to 1"),
        ({"uint8": "up"}, "'round' or 'floor'"),
    ],
)
def test_a_protocol_that_cannot_be_is_refused(changes, message):
    with pytest.raises(RequestError, match=message):
        read_request(None, **changes)


def test_protocols_are_told_apart_in_identity_row_and_diff(tmp_path):
    protocols = ({}, {"t_end": 1e-4}, {"sigma_min": 0.02, "sigma_max": 50.0}, {"threshold": 0.995}, {"uint8": "floor"})
    for asked in protocols:
        few = dict(model="gmm-image", solver="dpmpp-2m", nfe=6, samples=4, metrics=("psnr",), out=tmp_path / "s")
        assert run_sweep(Request(**few | asked), Console(quiet=True)) == []
    rows = Store(tmp_path / "s").rows()
    assert len({row.cell for row in rows}) == len(protocols)
    usual = next(row for row in rows if row.asked == Protocol())
    for row in rows:
        told = {name for name, value in row.asked if value != getattr(usual, name)}
        fields = set(differences(frame_of(rows), usual.cell, row.cell)["field"])
        assert told <= fields
        assert bool(incomparable(frame_of([usual, row]), "psnr")) == bool(row.altered)  # rounding is no part of psnr
    ends = {row.sigma_min: row.times for row in rows}
    path = VPLinear()
    assert [path.nsr(ends[0.02][k]) for k in (0, -1)] == pytest.approx([50, 0.02])
    values = [row.metrics["psnr"] for row in rows]
    assert len(np.unique(values)) == 4  # rounding changes images, not the error


def test_the_command_of_a_row_repeats_it(tmp_path):
    options = ["--t-end", "1e-4", "--threshold", "0.9,1.5", "--uint8", "floor"]
    asked = ["--model", "gmm-image", "--solver", "ddim", "--nfe", "4", "--samples", "4", "--metrics", "psnr"]
    assert command("bench", *asked, *options, "--out", tmp_path / "s").code == 0
    (row,) = Store(tmp_path / "s").rows()
    assert (row.t_end, row.threshold, row.threshold_max, row.uint8) == (1e-4, 0.9, 1.5, "floor")
    words = shlex.split(bench_command(row))[1:]
    assert command(*words[:-1], tmp_path / "again").code == 0
    (again,) = Store(tmp_path / "again").rows()
    assert (again.cell, again.metrics) == (row.cell, row.metrics)
    words = shlex.split(sample_command(row))[1:-1]
    assert command(*words, tmp_path / "x.png", "--samples", "2").code == 0


def test_cfg_is_one_more_than_guidance(tmp_path):
    for scale, weight in ((1.5, 0.5), (1.4, 0.4), (1.7, 0.7), ("2.05", 1.05), (0, -1.0)):
        assert read_request(None, cfg=scale) == read_request(None, guidance=weight)
    (tmp_path / "sweep.toml").write_text("cfg = 1.5\n")
    assert read_request(tmp_path / "sweep.toml").guidance == 0.5
    with pytest.raises(RequestError, match="two names of one weight"):
        read_request(None, cfg=1.5, guidance=0.5)
