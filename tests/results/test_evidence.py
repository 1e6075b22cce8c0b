"""Intervals from a store: of what its rows hold, paired where the noise is the same."""

import io

import numpy as np
import pytest
from rich.console import Console

from fastsample.bench.cells import plan_cells
from fastsample.bench.metrics import frechet as bias
from fastsample.bench.metrics.features import EMBEDDED
from fastsample.bench.metrics.frechet import extrapolate, influence, symmetric_root
from fastsample.bench.request import Request
from fastsample.bench.sweep import run_sweep
from fastsample.datasets.moments import shipped_reference
from fastsample.results.evidence import Comparison
from fastsample.results.statistics import mean_interval, paired_interval
from fastsample.results.store import Store

from ..rows import row_of

RNG = np.random.default_rng(0)
NOISE = {seed: 3 * RNG.standard_normal(40) for seed in (0, 1, 2)}


def add(store, cell, psnr, seed=0, **changes):
    """A row whose samples have this PSNR."""
    facts = dict(
        checkpoint_sha256="", grid="uniform", times=[1.0, 0.0], samples=len(psnr), seed=seed,
        metrics={"psnr": float(psnr.mean()), "psnr_median": float(np.median(psnr))},
        protocol={"noise": "philox", "psnr reference": f"fine ({seed:016x})"},
        created=f"2026-01-01T00:00:{len(store.rows()):02}+00:00",
    )  # fmt: skip
    store.finish(row_of(cell, **facts | changes), {"psnr": psnr})


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "store")
    for seed, noise in NOISE.items():
        add(store, f"one{seed}", 30 + noise, seed)
        add(store, f"two{seed}", 29 + noise + 0.1 * RNG.standard_normal(40), seed, solver="euler")
    return store


def test_one_noise_is_paired(store):
    comparison = Comparison(store)
    one, two = (store.per_sample(cell)["psnr"] for cell in ("one0", "two0"))
    assert comparison.interval("one0", "psnr") == mean_interval(one)
    assert comparison.interval("one0", "psnr", level=0.5) == mean_interval(one, level=0.5)
    assert comparison.difference("one0", "two0", "psnr") == paired_interval(one, two)
    unpaired = comparison.difference("one0", "two1", "psnr")
    paired = comparison.difference("one0", "two0", "psnr")
    assert unpaired.value == pytest.approx(one.mean() - store.per_sample("two1")["psnr"].mean())
    assert unpaired.high - unpaired.low > 10 * (paired.high - paired.low)


def test_seeds_are_pooled(store):
    comparison = Comparison(store)
    ones, twos = ([f"{name}{seed}" for seed in NOISE] for name in ("one", "two"))
    values = [store.per_sample(cell)["psnr"].mean() for cell in ones]
    pooled = comparison.interval(ones, "psnr")
    assert pooled.value == pytest.approx(np.mean(values))
    assert pooled.high - pooled.value == pytest.approx(4.3027 * np.std(values, ddof=1) / np.sqrt(3), rel=1e-4)
    paired = comparison.difference(ones, twos[::-1], "psnr")
    assert paired.value == pytest.approx(1, abs=0.05)
    assert paired.high - paired.low < 0.1


def test_what_is_not_there_or_not_comparable_is_none(store):
    add(store, "few", np.arange(5.0))
    add(store, "more", 30 + RNG.standard_normal(50), solver="heun2")
    add(store, "other", 30 + NOISE[0], model="n")
    comparison = Comparison(store)
    assert comparison.interval("few", "psnr") is None
    assert comparison.interval("one0", "psnr_median") is None
    assert comparison.interval("one0", "fd[net]@40") is None
    assert comparison.interval(["one0", "few"], "psnr") is None
    for cell in ("few", "more", "other"):
        assert comparison.difference("one0", cell, "psnr") is None


def test_only_what_a_metric_needs_is_read_and_old_features_are_not(store, tmp_path, monkeypatch):
    fd, old = "fd[net]@40", Store(tmp_path / "old")
    (row, *_) = store.rows()
    row = row.model_copy(update={"metrics": row.metrics | {fd: 2.0, "psnr@16": 30.0}, "samples": 40})
    psi = RNG.standard_normal((2, 40))
    old.finish(row, {"psnr": np.arange(16.0), f"influence[{fd}]": psi, "features[net]": np.ones((40, 9))})
    read, of = [], np.lib.npyio.NpzFile.__getitem__
    monkeypatch.setattr(np.lib.npyio.NpzFile, "__getitem__", lambda self, name: read.append(name) or of(self, name))
    comparison = Comparison(old)
    assert comparison.interval(row.cell, fd).value == 2.0
    assert read == [f"influence[{fd}]"]
    assert comparison.interval(row.cell, "psnr@16") == mean_interval(np.arange(16.0))  # of the first samples alone
    assert comparison.interval(row.cell, "psnr_median") is None
    assert read == [f"influence[{fd}]", "psnr"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """600 images of two solvers of a mixture, as `bench` measures them."""
    folder = tmp_path_factory.mktemp("run")
    metrics = ("fd", "fd-inf")
    request = Request(
        model="gmm-image", solver=("euler", "heun"), nfe=(2,), samples=600, metrics=metrics, out=folder / "store"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTSAMPLE_HOME", str(folder / "home"))
        patch.setattr(bias, "_FEWEST", 3)  # what the extrapolation is worth is no matter here
        patch.setattr(Store, "drop", lambda *_, **__: None)  # the parts stay, with their features
        assert run_sweep(request, Console(quiet=True)) == []
    return Store(folder / "store", create=False)


def test_a_row_keeps_standard_errors_and_influences(run):
    names = {f"fd[{EMBEDDED}]@600", f"fd-inf[{EMBEDDED}]@600"}
    comparison = Comparison(run)
    for row in run.rows():
        assert set(row.metrics) == set(row.standard_errors) == names
        assert 0 < row.metrics[f"fd-inf[{EMBEDDED}]@600"] < row.metrics[f"fd[{EMBEDDED}]@600"]
        for name in names:
            found = comparison.interval(row.cell, name)
            assert found.value == row.metrics[name]
            assert found.high - found.low == pytest.approx(2 * 1.96 * row.standard_errors[name], rel=0.15)
    one, two = (row.cell for row in run.rows())
    for name in names:
        found = comparison.difference(one, two, name)
        assert found.excludes_zero
        assert found.low < found.value < found.high


def test_influences_are_those_of_the_features_and_an_older_store_has_none(run, tmp_path, monkeypatch):
    monkeypatch.setattr(bias, "_FEWEST", 3)
    row = run.rows()[0]
    arrays, parts = run.per_sample(row.cell), run.parts(row.sampling)
    (name,) = (name for name in parts.names(0, 600) if name.startswith(f"features[{EMBEDDED}]"))
    features = parts.read(0, 600, name)
    stats = shipped_reference(f"cifar10-jpeg-train@{EMBEDDED}")
    reference = stats.mu, symmetric_root(stats.sigma)
    name = f"fd[{EMBEDDED}]@600"
    np.testing.assert_allclose(arrays[f"influence[{name}]"], influence(features, reference))
    found = extrapolate(features, reference)
    assert row.metrics[f"fd-inf[{EMBEDDED}]@600"] == found.value
    older = Store(tmp_path)
    older.finish(row, {key: value for key, value in arrays.items() if not key.startswith("influence")})
    assert Comparison(run).interval(row.cell, name) is not None
    assert Comparison(older).interval(row.cell, name) is None
    assert Comparison(older).interval(row.cell, f"fd-inf[{EMBEDDED}]@600") is None


def test_too_few_samples_for_an_extrapolation_are_told(tmp_path):
    screen = Console(file=io.StringIO(), width=200)
    request = Request(
        model="gmm-image", solver="euler", nfe=(2,), samples=16, metrics=("fd", "fd-inf"), out=tmp_path / "store"
    )
    assert run_sweep(request, screen) == []
    assert "without fd-inf: an extrapolation in 192 features needs at least 3840 samples" in screen.file.getvalue()
    assert set(Store(tmp_path / "store").rows()[0].metrics) == {f"fd[{EMBEDDED}]@16"}


def test_seeds_repeat_every_cell(tmp_path):
    cells, _ = plan_cells(Request(model="gmm2d", solver=("heun", "euler"), nfe=(4,), seed=5, seeds=3), ("psnr",))
    assert [(cell.plan.solver.name, cell.seed) for cell in cells] == [
        (name, seed) for name in ("heun", "euler") for seed in (5, 6, 7)
    ]
