"""--guide and --guidance-interval from the command line to rows, with the calls that were made."""

import json
import shlex

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from fastsample.bench.cells import plan_cells
from fastsample.bench.metrics.solution import reference_for
from fastsample.bench.replay import Replay
from fastsample.bench.request import Request, read_request
from fastsample.bench.sampling import Sampler
from fastsample.bench.sweep import run_sweep
from fastsample.models.path import VPLinear
from fastsample.results.commands import bench_command, export_command, sample_command
from fastsample.results.comparable import incomparable
from fastsample.results.overview import differences
from fastsample.results.row import frame_of
from fastsample.results.store import Store
from fastsample.solvers.learned.shelf import learned_tables

from ..command import command

quiet = Console(quiet=True)
GUIDED = ["--guide", "gmm2d-flow-mean", "--cfg", 1.5]


def run(out, *words, model="gmm2d", nfe=6):
    asked = ["--model", model, "--solver", "dpmpp-2m", "--nfe", nfe, "--samples", 4, "--metrics", "psnr"]
    return command("bench", *asked, "--reference-steps", 40, *words, "--out", out)


def acting(row, low=0.0, high=np.inf):
    """Evaluations of a multistep row at which guidance acts."""
    return sum(low < VPLinear().nsr(t) <= high for t in row.times[:-1])


def test_guides_and_intervals_are_told_apart_and_counted(tmp_path):
    interval = ["--guidance-interval", "0.3,5"]
    for words in ([], GUIDED, [*GUIDED, *interval], [*GUIDED, "--guidance-interval", "0.3,"]):
        assert run(tmp_path, *words).code == 0
    assert run(tmp_path, "--guide", "gmm2d-flow", "--cfg", 1.5).code == 0
    rows = Store(tmp_path).rows()
    assert len({row.cell for row in rows}) == len({row.metrics["psnr"] for row in rows if row.guide}) + 1 == 5
    by = {(row.guide, row.guidance_low, row.guidance_high): row for row in rows}
    plain, guided = by["", None, None], by["gmm2d-flow-mean", None, None]
    within, above = by["gmm2d-flow-mean", 0.3, 5.0], by["gmm2d-flow-mean", 0.3, None]
    assert "guide" not in plain.protocol
    assert guided.protocol["guide"] == "gmm2d-flow-mean (exact)"
    assert {row.nfe for row in rows} == {6}
    assert (plain.forwards, guided.forwards) == (6, 12)
    assert 6 < within.forwards == 6 + acting(within, 0.3, 5.0) < above.forwards == 6 + acting(above, 0.3) < 12
    assert (guided.guidance, guided.guide) == (0.5, "gmm2d-flow-mean")
    frame = frame_of(rows)
    told = set(differences(frame, guided.cell, within.cell)["field"])
    assert {"guidance_low", "guidance_high", "forwards"} <= told
    assert {"guide", "protocol.guide"} <= set(
        differences(frame, guided.cell, by["gmm2d-flow", None, None].cell)["field"]
    )
    for one, other, field in ((guided, within, "guidance_low"), (guided, by["gmm2d-flow", None, None], "guide")):
        assert f"psnr: {field} is" in incomparable(frame_of([one, other]), "psnr")
    ended = command("table", tmp_path)
    assert ended.code == 2
    assert "these rows do not belong in one table: psnr: guidance is" in " ".join(ended.err.split())


def test_rows_are_repeated_by_their_commands_and_replayed(tmp_path):
    narrow = ["--guidance-interval", "0.3,5", "--t-end", "1e-4", "--threshold", "0.9"]
    for words in (GUIDED, [*GUIDED, *narrow], ["--guide", "gmm2d-flow", "--cfg", 1.5]):
        assert run(tmp_path / "s", *words).code == 0
    rows, replay = Store(tmp_path / "s").rows(), Replay(Store(tmp_path / "s"), "cpu")
    assert len(rows) == 3
    for row in rows:
        words = shlex.split(bench_command(row))[1:]
        assert command(*words[:-1], tmp_path / "again").code == 0
        again = next(one for one in Store(tmp_path / "again").rows() if one.cell == row.cell)
        assert again.metrics == row.metrics
        assert f"--guide {row.guide} " in sample_command(row)
        batch = replay.run(replay.cell(row.cell), [0, 1])
        (cell,), _ = plan_cells(request_of(row, tmp_path), ("psnr",))
        x, _, forwards = Sampler(torch.device("cpu")).sample(cell, [0, 1])
        assert sum(forwards) == 2 * row.forwards
        torch.testing.assert_close(batch.x, x, rtol=0, atol=0)


def request_of(row, out):
    facts = {name: value for name, value in row.asked if value is not None}
    return Request(model=row.model, solver=row.sampler, nfe=row.nfe_asked, samples=row.samples, out=out, **facts)


def test_reference_solutions_are_of_the_guided_model():
    flow, found = {"guide": "gmm2d-flow"}, []
    asked = ({}, {"guide": "gmm2d-flow-mean"}, flow, flow | {"guidance_low": 0.3}, flow | {"guidance_high": 0.3})
    for words in asked:
        (cell,), _ = plan_cells(Request(model="gmm2d", guidance=0.5 if words else 0.0, **words), ())
        bare = cell.protocol.model_copy(update={"guide": "", "guidance_low": None, "guidance_high": None})
        found.append({reference_for(cell.model, 0, protocol, "cpu").id for protocol in (cell.protocol, bare)})
    assert len(set.union(*found)) == len(asked)  # distillation asks with the weight alone


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--guide", "gmm2d-flow"], "the guide gmm2d-flow does nothing without a weight: give --guidance W or --cfg S"),
        (["--guidance-interval", "1,2"], "an interval of guidance does nothing without a weight"),
        ([*GUIDED, "--guidance-interval", "2,1"], "LO,HI with LO below HI"),
        ([*GUIDED, "--guidance-interval", "2"], "guidance_interval is LO,HI, two noise-to-signal ratios, not '2'"),
        ([*GUIDED, "--guidance-interval", "-1,2"], "guidance_low: Input should be greater than or equal to 0"),
        ([*GUIDED, "--guidance-interval", "a,2"], "guidance_low: Input should be a valid number"),
        (["--guide", "gmm2d", "--cfg", 2], "gmm2d cannot guide gmm2d: a model that guides itself changes nothing"),
        (["--guide", "gmm-image", "--cfg", 2], "gmm-image cannot guide gmm2d: its samples are 3x32x32"),
        (["--guide", "gmm3d", "--cfg", 2], "unknown model 'gmm3d'; did you mean"),
        (["--cfg", 2], "gmm2d has no classes, which classifier-free guidance needs"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(words, told, tmp_path):
    ended = run(tmp_path, *words)
    assert ended.code == 2
    assert told in " ".join(ended.err.split())
    assert not Store(tmp_path).rows()


def test_a_toml_file_says_the_same(tmp_path):
    for interval in ('"0.3, 5"', "[0.3, 5]"):
        (tmp_path / "a.toml").write_text(f'guide = "gmm2d-flow"\ncfg = 1.5\nguidance_interval = {interval}\n')
        found = read_request(tmp_path / "a.toml")
        assert (found.guide, found.guidance, found.guidance_low, found.guidance_high) == ("gmm2d-flow", 0.5, 0.3, 5.0)
    assert read_request(None, guide="x", guidance=1.0, guidance_interval="0,2").guidance_low is None


def calls_of(cell):
    """(calls of the model's network, of the guide's, calls that the ledger tells) in one run of two samples."""
    counts = {"own": 0, "guide": 0}
    for name in counts:

        def count(*_, name=name):
            counts[name] += 1

        getattr(cell.model.network, name).register_forward_hook(count)
    with torch.inference_mode():
        _, _, calls = Sampler(torch.device("cpu")).sample(cell, [0, 1])
    return counts["own"], counts["guide"], calls


@pytest.mark.parametrize("model", ["cifar10-tiny-vp", "cifar10-tiny-flow"])
@pytest.mark.parametrize("solver", ["dpmpp-2m", "heun", "ddim:afs=true"])
def test_both_networks_are_called_as_told(model, solver):
    """The embedded models guide one another over their paths: the flow from where the other's path begins."""
    guide = {"cifar10-tiny-vp": "cifar10-tiny-flow", "cifar10-tiny-flow": "cifar10-tiny-vp"}[model]
    for low, high in ((None, None), (0.3, 5.0)):
        asked = dict(guidance_low=low, guidance_high=high, sigma_max=100.0)
        (cell,), _ = plan_cells(Request(model=model, guide=guide, guidance=0.4, solver=solver, nfe=6, **asked), ())
        own, other, calls = calls_of(cell)
        assert own == 6
        assert calls == [own + other] * 2
        assert other == 6 if low is None else 0 < other < 6


def test_an_interval_of_classifier_free_guidance(checkpoint, tmp_path, monkeypatch):
    file = checkpoint("own", classes=4)
    for words in ({}, {"guidance_low": 0.3, "guidance_high": 5.0}):
        request = Request(
            model=file, solver="dpmpp-2m", nfe=6, samples=2, metrics=("psnr",), guidance=1.0, reference_steps=20,
            out=tmp_path / "s", **words,
        )  # fmt: skip
        assert run_sweep(request, quiet) == []
    one, other = sorted(Store(tmp_path / "s").rows(), key=lambda row: row.forwards)
    assert (one.nfe, other.nfe, other.forwards) == (6, 6, 12)
    assert one.forwards == 6 + acting(one, 0.3, 5.0) < 12
    (cell,), _ = plan_cells(request, ())
    count = []
    cell.model.network.register_forward_hook(lambda *_: count.append(1))
    with torch.inference_mode():
        Sampler(torch.device("cpu")).sample(cell, [0])
    assert len(count) == one.forwards


def test_samples_with_a_guide_are_drawn(tmp_path):
    words = ["--model", "gmm-image", "--solver", "ddim", "--nfe", 3, "--samples", 2]
    guided = ["--guide", "cifar10-tiny-vp", "--guidance", 0.5, "--guidance-interval", "0.1,9"]
    for name, more in (("plain", []), ("guided", guided)):
        assert command("sample", *words, *more, "-o", tmp_path / f"{name}.png").code == 0
    plain, other = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("plain", "guided"))
    assert plain.shape == other.shape
    assert (plain != other).any()


def test_a_table_is_learned_for_one_guide_and_interval(tmp_path):
    few = ["--nfe", 4, "--train", 64, "--validation", 64, "--steps", 2, "--initial", "dpmpp-2m"]
    interval = ["--guidance-interval", "0.1,20"]
    learned = [*GUIDED[:2], "--guidance", 0.5, *interval]
    assert command("distill", "bns", "--model", "gmm2d", *few, *learned).code == 0
    (file,) = (file for file in learned_tables() if file.guide)
    assert (file.guide, file.guided_within, file.guidance) == ("gmm2d-flow-mean (exact)", (0.1, 20.0), 0.5)
    bench = ["bench", "--model", "gmm2d", "--solver", "bns", "--nfe", 4, "--samples", 4, "--metrics", "psnr"]
    assert command(*bench, *learned, "--reference-steps", 40, "--out", tmp_path / "s").code == 0
    (row,) = Store(tmp_path / "s").rows()
    assert row.protocol["table"] == file.sha256
    assert "transfer" not in row.options
    for words in ([*GUIDED[:2], "--guidance", 0.5], ["--guide", "gmm2d-flow", "--guidance", 0.5, *interval], []):
        ended = command(*bench, *words, "--out", tmp_path / "other")
        assert ended.code in (1, 2)
        assert "there is no table for this model and guidance" in " ".join(ended.err.split())
    explained = ["bns", "--model", "gmm2d", "--nfe", 4, "--json"]
    ended = command("explain", *explained, *learned)
    assert json.loads(ended.out)["forwards"] == row.forwards < 8
    assert command("explain", *explained).code == 2
    words = shlex.split(export_command(row))[1:]
    assert command(*words, "-o", tmp_path / "sampler.py").code == 0
    assert (
        "guidance 0.5 by gmm2d-flow-mean (exact) where 0.1 < sigma/alpha <= 20" in (tmp_path / "sampler.py").read_text()
    )
