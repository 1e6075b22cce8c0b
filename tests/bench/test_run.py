import io

import numpy as np
import pytest
import torch
from rich.console import Console

from fastsample.bench import sweep
from fastsample.bench.cells import plan_cells
from fastsample.bench.request import Request, RequestError
from fastsample.bench.sampling import Sampler, choose_device
from fastsample.bench.sweep import run_sweep
from fastsample.bench.worker import Worker
from fastsample.models.catalogue import open_model
from fastsample.models.checkpoints import DenoiserMetadata, save_checkpoint
from fastsample.models.networks.song_unet import SongUNet
from fastsample.models.noise import normal
from fastsample.results.evidence import Comparison
from fastsample.results.store import Store

from ..measuring import row_of, runner_of

quiet = Console(quiet=True)


def request(tmp_path, **changes):
    facts = dict(
        model="gmm2d", solver=("heun", "dpmpp-2m"), nfe=(4, 8), samples=12, batch_size=8, metrics=("psnr",),
        out=tmp_path / "store", precision="float64",
    )  # fmt: skip
    return Request(**facts | changes)


def rows(asked):
    return Store(asked.out, create=False).rows()


def numbers(row):
    return row.model_dump(exclude={"seconds", "created"})


def test_a_sweep_fills_its_store(tmp_path):
    asked = request(tmp_path)
    assert run_sweep(asked, quiet) == []
    found = rows(asked)
    assert {(row.solver, row.nfe_asked, row.nfe) for row in found} == {
        ("heun", 4, 4), ("heun", 8, 8), ("dpmpp-2m", 4, 4), ("dpmpp-2m", 8, 8),
    }  # fmt: skip
    for row in found:
        assert row.metrics["psnr_reference"] > 100
        assert 10 < row.metrics["psnr"] < row.metrics["psnr_reference"]
        assert row.forwards == row.nfe
        assert set(row.seconds) == {"network", "solver", "metrics", "total"}
        arrays = Store(asked.out).per_sample(row.cell)
        assert arrays["psnr"].shape == (12,)
        assert arrays["psnr"].mean() == pytest.approx(row.metrics["psnr"])


@pytest.mark.parametrize("metrics", [("psnr",), ("psnr", "curvature")])
def test_the_nfe_of_a_row_is_what_was_made(metrics, tmp_path):
    """Not what was asked for: of 5 evaluations Heun makes 4, of 7 rk4 makes 4; with `afs` an Euler step is free."""
    made = {"heun": (5, 4), "rk4": (7, 4), "euler:afs=true": (5, 5)}
    for solver, (asked, count) in made.items():
        out = tmp_path / solver.partition(":")[0]
        run_sweep(request(tmp_path, solver=solver, nfe=asked, samples=3, batch_size=2, metrics=metrics, out=out), quiet)
        (row,) = Store(out).rows()
        assert (row.nfe_asked, row.nfe, row.forwards) == (asked, count, count)
        (cell,), _ = plan_cells(request(tmp_path, solver=solver, nfe=asked), ())
        model = open_model("gmm2d").make(None, None, 0.0, None)
        cell.plan(model, Sampler(torch.device("cpu")).start(cell, [0]))
        assert model.nfe == count


def test_the_same_command_twice_gives_the_same_rows(tmp_path):
    asked = request(tmp_path)
    run_sweep(asked, quiet)
    first = rows(asked)
    run_sweep(asked, quiet)
    assert rows(asked) == first  # nothing was computed again
    again = request(tmp_path, out=tmp_path / "other")
    run_sweep(again, quiet)
    assert [numbers(row) for row in rows(again)] == [numbers(row) for row in first]


def test_batch_size_changes_nothing(tmp_path):
    sampler = Sampler(choose_device("cpu"))
    (cell, *_), _ = plan_cells(request(tmp_path, precision="float32", samples=70), ("psnr",))
    whole = sampler.sample(cell, list(range(64)))[0]
    parts = torch.cat([sampler.sample(cell, list(range(low, min(low + 17, 64))))[0] for low in range(0, 64, 17)])
    torch.testing.assert_close(parts, whole, rtol=0, atol=2e-5)


def test_an_interrupted_sweep_goes_on_from_its_last_part(tmp_path, monkeypatch):
    asked = request(tmp_path, samples=200, solver=("euler", "heun"), nfe=4, batch_size=64)
    measured, original = [], Worker.measure

    def interrupted(self, cells, first, end):
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append((first, end))
        return original(self, cells, first, end)

    monkeypatch.setattr(Worker, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(asked, quiet)
    assert rows(asked) == []
    assert measured == [(0, 64), (64, 128)]
    monkeypatch.setattr(Worker, "measure", lambda *given: measured.append(given[2:]) or original(*given))
    assert run_sweep(asked, quiet) == []
    assert measured[2:] == [(128, 192), (192, 200)]
    whole = request(tmp_path, samples=200, solver=asked.solver, nfe=4, batch_size=64, out=tmp_path / "whole")
    assert run_sweep(whole, quiet) == []
    assert [numbers(row) for row in rows(asked)] == [numbers(row) for row in rows(whole)]
    for row in rows(asked):
        one, other = (Store(a.out).per_sample(row.cell) for a in (asked, whole))
        assert one.keys() == other.keys()
        for name, array in one.items():
            np.testing.assert_array_equal(array, other[name])
    assert not list((asked.out / "partial").iterdir())


def calls_of(asked, monkeypatch):
    """(evaluations for samples, for references) that a sweep makes."""
    ledgers = []
    original = sweep.prepare

    def prepare(*given):
        ready = original(*given)
        ledgers.append(ready.worker.tools.ledger)
        return ready

    monkeypatch.setattr(sweep, "prepare", prepare)
    assert run_sweep(asked, quiet) == []
    return ledgers[-1].evaluations["sampling"], ledgers[-1].evaluations["references"]


def test_a_metric_more_needs_no_sample_that_is_kept(tmp_path, monkeypatch):
    kept = dict(model="gmm-image", precision="float32", samples=16, nfe=4, keep="features")
    asked = request(tmp_path, **kept, metrics=("psnr", "fd"))
    made = calls_of(asked, monkeypatch)[0]
    assert made == 16 * 7  # Heun and DPM-Solver++ share the first of 4 evaluations each
    more = request(tmp_path, **kept, metrics=("psnr", "fd", "is"))
    assert calls_of(more, monkeypatch) == (0, 0)
    fresh = request(tmp_path, **kept, metrics=more.metrics, out=tmp_path / "fresh")
    assert calls_of(fresh, monkeypatch)[0] == made
    assert [row.metrics for row in rows(more)[-2:]] == [row.metrics for row in rows(fresh)]
    assert [(row.nfe, row.forwards) for row in rows(more)[-2:]] == [(4, 4), (4, 4)]


def test_twice_the_samples_need_the_other_half(tmp_path, monkeypatch):
    few = dict(model="gmm-image", precision="float32", samples=16, nfe=4, keep="features", metrics=("psnr", "fd"))
    made = calls_of(request(tmp_path, **few), monkeypatch)[0]
    assert calls_of(request(tmp_path, **few | {"samples": 32}), monkeypatch)[0] == made
    whole = request(tmp_path, **few | {"samples": 32}, out=tmp_path / "whole")
    assert calls_of(whole, monkeypatch)[0] == 2 * made
    assert [row.metrics for row in rows(request(tmp_path))[-2:]] == [row.metrics for row in rows(whole)]


def test_without_features_values_of_samples_still_serve(tmp_path, monkeypatch):
    made = calls_of(request(tmp_path, samples=16), monkeypatch)[0]
    assert calls_of(request(tmp_path, samples=32), monkeypatch)[0] == made


def test_psnr_is_of_the_first_samples(tmp_path, monkeypatch):
    asked = request(tmp_path, samples=100, psnr_samples=20, metrics=("psnr", "truncation"), solver="heun", nfe=4)
    sampling, references = calls_of(asked, monkeypatch)
    # In batches of 8: of the third one only half is compared, and nobody wants those behind it. Two walk 8 each.
    assert (sampling, references) == (24 * 4, 64 * 641 + 16 * 640 * 3 // 2 + 2 * 8 * 640)
    (row,) = rows(asked)
    values = Store(asked.out).per_sample(row.cell)["psnr"]
    assert values.shape == (20,)
    assert row.metrics["psnr@20"] == pytest.approx(values.mean())
    assert {"psnr_median@20", "psnr_pooled@20", "psnr_reference", "truncation@20"} < {*row.metrics}
    assert Comparison(Store(asked.out)).interval(row.cell, "psnr@20").value == row.metrics["psnr@20"]
    alone = request(tmp_path, samples=20, metrics=("psnr",), solver="heun", nfe=4, out=tmp_path / "alone")
    run_sweep(alone, quiet)
    assert rows(alone)[0].metrics["psnr"] == pytest.approx(row.metrics["psnr@20"], rel=1e-12)


def test_out_of_memory_halves_the_batch(tmp_path, monkeypatch):
    asked = request(tmp_path, samples=40, batch_size=40, precision="float64")
    run_sweep(asked, quiet)
    original = Sampler.denoiser

    def small(self, cell, indices):
        if len(indices) > 12 and cell.plan.nfe > 0 and indices[0] != 0:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, cell, indices)

    monkeypatch.setattr(Sampler, "denoiser", small)
    halved = request(tmp_path, samples=40, batch_size=20, precision="float64", out=tmp_path / "halved")
    assert run_sweep(halved, quiet) == []
    for one, other in zip(rows(asked), rows(halved), strict=True):
        assert (one.cell, one.protocol["batch"]) == (other.cell, "40 samples")
        assert other.metrics == pytest.approx(one.metrics, rel=1e-9)
        assert other.protocol["batch"] == "20 samples, down to 10 where memory did not suffice"


def test_stochastic_solvers_depend_on_the_seed_alone(tmp_path):
    asked = request(tmp_path, solver="ddpm", nfe=6)
    sampler = Sampler(choose_device("cpu"))
    (cell,), _ = plan_cells(asked, ())
    whole = sampler.sample(cell, [0, 1, 2, 3])[0]
    torch.testing.assert_close(sampler.sample(cell, [2])[0], whole[2:3], rtol=0, atol=1e-12)
    (other,), _ = plan_cells(request(tmp_path, solver="ddpm", nfe=6, seed=1), ())
    assert (sampler.sample(other, [2])[0] - whole[2:3]).abs().max() > 0.1


def test_budgets_that_a_method_cannot_fill_are_skipped(tmp_path):
    cells, skipped = plan_cells(request(tmp_path, solver=("rk4", "euler"), nfe=(3, 8)), ())
    assert [(cell.plan.solver.name, cell.plan.nfe) for cell in cells] == [("rk4", 8), ("euler", 3), ("euler", 8)]
    assert "needs at least 4" in skipped[0].reason
    with pytest.raises(RequestError, match="needs at least 4"):
        plan_cells(request(tmp_path, solver="rk4", nfe=3), ())


def broken_checkpoint(file):
    """A network that overflows: every weight is finite, its output is not."""
    torch.manual_seed(0)
    arguments = dict(
        img_resolution=8,
        in_channels=3,
        out_channels=3,
        model_channels=8,
        channel_mult=[1],
        num_blocks=1,
        attn_resolutions=[],
    )
    network = SongUNet(**arguments)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(3e38)
    metadata = DenoiserMetadata(
        id="overflow", title="overflows", network="SongUNet", network_args=arguments, image_shape=(3, 8, 8),
        data="none",
        data_sha256="", images_seen=0, ema_halflife_images=0, optimizer={}, loss="none", precision="float32",
        storage="float32", path="vp-linear", prediction="eps", time_scale=1000.0, times="uniform",
    )  # fmt: skip
    save_checkpoint(file, network.state_dict(), metadata)


def test_a_network_that_returns_nan_leaves_no_row(tmp_path):
    broken_checkpoint(tmp_path / "overflow.safetensors")
    asked = request(tmp_path, model=str(tmp_path / "overflow.safetensors"), precision="float32", nfe=4, solver="euler")
    failures = run_sweep(asked, quiet)
    assert len(failures) == 1
    assert "NaN or infinity" in failures[0]
    assert rows(asked) == []
    (cell,), _ = plan_cells(asked, ("psnr",))
    with pytest.raises(FloatingPointError, match="NaN or infinity"):
        row_of(runner_of(Store(asked.out)), cell)


def test_a_full_disk_leaves_no_row(tmp_path, monkeypatch):
    asked = request(tmp_path, solver="euler", nfe=4)
    (cell,), _ = plan_cells(asked, ("psnr",))
    store = Store(asked.out)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        row_of(runner_of(store), cell)
    assert Store(asked.out, create=False).rows() == []
    assert not list(asked.out.rglob("*.part"))


BENDS = dict(
    metrics=("psnr", "curvature", "straightness", "truncation"), solver=("euler", "heun", "dopri5", "ddpm"), nfe=8,
    samples=16,
)  # fmt: skip


def test_metrics_of_trajectories_have_values_samples_and_intervals(tmp_path):
    asked = request(tmp_path, model=("gmm2d", "gmm2d-flow"), **BENDS)
    assert run_sweep(asked, quiet) == []
    comparison = Comparison(Store(asked.out))
    for row in rows(asked):
        arrays = Store(asked.out).per_sample(row.cell)
        # Points of the plane are not clamped by PSNR, whose R is 4.
        assert row.metrics["truncation"] == pytest.approx(4 / 10 ** (row.metrics["psnr_pooled"] / 20))
        assert row.metrics["truncation"] == pytest.approx(np.sqrt(arrays["truncation"].mean()))
        names = {"truncation"} if row.solver in ("dopri5", "ddpm") else {"truncation", "curvature", "straightness"}
        assert set(row.metrics) == {"psnr", "psnr_median", "psnr_pooled", "psnr_reference", *names}
        assert set(row.standard_errors) == {"psnr", *names}
        for name in names:
            assert arrays[f"influence[{name}]"].shape == (1, 16)
            interval = comparison.interval(row.cell, name)
            assert interval.low < row.metrics[name] == interval.value < interval.high
        if "curvature" not in names:
            assert not {"curvature", "transport", "truncation_curve"} & set(arrays)
            assert "curvature" not in row.protocol
            continue
        assert row.metrics["curvature"] == pytest.approx(arrays["curvature"].mean())
        ratio = arrays["curvature"].mean() / arrays["transport"].mean()
        assert row.metrics["straightness"] == pytest.approx(ratio)
        path = open_model(row.model).path
        steps = {"euler": 8, "heun": 4}[row.solver]
        times, curve = arrays["truncation_times"], arrays["truncation_curve"]
        assert (len(times), len(curve)) == (steps + 1, steps + 1)
        assert (np.diff(times) > 0).all()
        assert curve[0] < 1e-3 < curve[-1]  # the same noise
        # The cell has as many samples as the curve: its end is the metric, but for the scale of the linear path.
        total = path.alpha(path.t_data) + path.sigma(path.t_data)
        assert curve[-1] * total == pytest.approx(row.metrics["truncation"], rel=1e-4)


def test_the_protocol_of_curvature_is_eulers_official_formula(tmp_path):
    asked = request(tmp_path, model="gmm2d-flow", solver="euler", nfe=100, metrics=("curvature",))
    run_sweep(asked, quiet)
    (row,) = rows(asked)
    model, n, end = open_model("gmm2d-flow"), 100, 0.999  # where the model's path stops
    z = [normal(0, range(12), (2,)).double()]
    for i in range(n):
        z.append(z[-1] + end / n * model.make(None, None, 0.0, None).velocity(z[-1], i / n * end))
    base = (z[0] - z[n]) / end
    official = sum(float(((z[i - 1] - z[i]) * n / end - base).square().mean()) for i in range(1, n + 1)) / n
    assert row.metrics == {"curvature": pytest.approx(official, rel=1e-12)}
    assert "psnr reference" not in row.protocol


@pytest.mark.parametrize("grid", ["quadratic", "shift:s=4"])
def test_the_curvature_of_uneven_steps_is_weighted_with_them(grid, tmp_path):
    asked = request(tmp_path, model="gmm2d-flow", solver="euler", nfe=6, grid=grid, metrics=("curvature",))
    run_sweep(asked, quiet)
    (row,) = rows(asked)
    model, times = open_model("gmm2d-flow"), row.times
    z = [normal(0, range(12), (2,)).double()]
    for low, high in zip(times, times[1:], strict=False):
        z.append(z[-1] + (high - low) * model.make(None, None, 0.0, None).velocity(z[-1], low))
    slopes = [(b - a) / (high - low) for a, b, low, high in zip(z, z[1:], times, times[1:], strict=False)]
    chord = (z[-1] - z[0]) / (times[-1] - times[0])
    steps = np.diff(times) / (times[-1] - times[0])
    squares = [float((slope - chord).square().mean()) for slope in slopes]
    assert row.metrics["curvature"] == pytest.approx(float(steps @ squares), rel=1e-9)
    assert row.metrics["curvature"] != pytest.approx(np.mean(squares), rel=0.05)


def test_batches_change_no_metric_of_trajectories(tmp_path):
    asked = request(tmp_path, model="gmm2d-flow", **BENDS | {"solver": "heun"})
    run_sweep(asked, quiet)
    changes = {"solver": "heun", "samples": 100, "batch_size": 48, "out": tmp_path / "b"}
    more = request(tmp_path, model="gmm2d-flow", **BENDS | changes)
    run_sweep(more, quiet)
    one, other = (Store(a.out).per_sample(rows(a)[0].cell) for a in (asked, more))
    for name in ("curvature", "transport", "truncation"):
        assert other[name].shape == (100,)
        np.testing.assert_allclose(other[name][:16], one[name], rtol=1e-9)
    np.testing.assert_allclose(other["truncation_curve"], one["truncation_curve"], rtol=1e-9)


def test_recording_a_trajectory_changes_no_sample(tmp_path):
    plain = request(tmp_path, solver=("heun", "unipc:afs=true", "ddim:denoise=true"))
    run_sweep(plain, quiet)
    bent = request(tmp_path, solver=plain.solver, metrics=BENDS["metrics"], out=tmp_path / "b")
    run_sweep(bent, quiet)
    for one, other in zip(rows(plain), rows(bent), strict=True):
        assert (one.nfe, one.forwards) == (other.nfe, other.forwards)
        np.testing.assert_array_equal(
            Store(plain.out).per_sample(one.cell)["psnr"], Store(bent.out).per_sample(other.cell)["psnr"]
        )


def test_what_is_foretold_is_what_is_made(tmp_path, monkeypatch):
    asked = request(
        tmp_path, model=("gmm2d", "gmm2d-flow"), samples=20, psnr_samples=9,
        metrics=("psnr", "truncation", "curvature"), solver=("scire", "ddim", "euler", "dpmpp-2m"), nfe=(4, 6, 8),
        seeds=2,
    )  # fmt: skip
    screen = Console(file=io.StringIO(), width=200)
    assert run_sweep(asked, screen, plan=True) == []
    told = screen.file.getvalue()
    assert "0 of 48 cells are finished" in told
    assert rows(asked) == []
    assert "are one sampler" in told  # DDIM and Euler on the flow
    lines = [line.split("│") for line in told.splitlines() if line.startswith("│")]
    counts = np.array([[int(word.replace(",", "")) for word in line[3:6]] for line in lines])
    needed, made, references = counts.sum(0)
    assert calls_of(asked, monkeypatch) == (made, references)
    assert needed == sum(row.nfe * row.samples for row in rows(asked)) > made
    screen = Console(file=io.StringIO(), width=200)
    run_sweep(asked, screen, plan=True)
    assert "48 of 48 cells are finished" in screen.file.getvalue()
