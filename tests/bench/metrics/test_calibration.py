"""Intervals cover and the gate keeps its level: on simulated features and (slow) on an embedded model."""

import numpy as np
import pandas as pd
import pytest
import torch

from fastsample.bench.cells import plan_cells
from fastsample.bench.metrics.error import psnr_values
from fastsample.bench.metrics.features import EMBEDDED, open_extractor
from fastsample.bench.metrics.frechet import features_distance, influence, symmetric_root
from fastsample.bench.request import Request
from fastsample.bench.sampling import Sampler
from fastsample.datasets.levels import to_uint8
from fastsample.datasets.moments import shipped_reference
from fastsample.results.baseline import baseline_of
from fastsample.results.gate import check
from fastsample.results.statistics import Estimate, mean_interval, paired_interval
from fastsample.results.store import Store


def coverage(estimates):
    """Share of 95 % intervals that hold the mean of all values."""
    truth = np.mean([one.value for one in estimates])
    found = [one.interval() for one in estimates]
    return np.mean([one.low <= truth <= one.high for one in found])


def distance(features, reference):
    return Estimate(features_distance(features, reference), (influence(features, reference),))


class World:
    """Skewed, correlated features like those of a network: [n, d] after a rectifier."""

    def __init__(self, d, seed=0):
        rng = np.random.default_rng(seed)
        self.mixing = rng.standard_normal((d, d)) / np.sqrt(d) * np.exp(-3 * np.arange(d) / d)
        real = self(rng.standard_normal((50_000, d)))
        self.reference = real.mean(0), symmetric_root(np.cov(real, rowvar=False))

    def __call__(self, z, shift=0.0):
        return np.maximum(z @ self.mixing.T + 0.1 + shift, 0)

    def solvers(self, count, shift, seed):
        """The distances of two solvers of one noise; without a shift both are as good as real images."""
        rng = np.random.default_rng(seed)
        z = rng.standard_normal((count, len(self.mixing)))
        other = z + 0.1 * rng.standard_normal(z.shape)
        return [distance(self(noise, gap), self.reference) for noise, gap in ((z, shift), (other, 0.0))]


@pytest.mark.parametrize(
    ("d", "count", "repeats"),
    [
        (32, 200, 300),
        pytest.param(64, 1000, 600, marks=pytest.mark.slow),
        pytest.param(192, 1000, 400, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("shift", [0.1, 0.0], ids=["far", "at the minimum"])
def test_intervals_of_distances_cover(d, count, repeats, shift):
    world = World(d)
    found = [world.solvers(count, shift, seed) for seed in range(repeats)]
    assert 0.92 <= coverage([one for one, _ in found]) <= 0.98
    assert 0.92 <= coverage([one.minus(two, paired=True) for one, two in found]) <= 0.98


class Memory(Store):
    """A store of one row per solver, as `bench` would write it, that is not written."""

    def __init__(self, runs, seed, reference):
        self.arrays, lines = {}, []
        for solver, (psnr, features) in runs.items():
            estimate, name = distance(features, reference), f"fd[net]@{len(psnr)}"
            self.arrays[solver] = {"psnr": psnr, f"influence[{name}]": estimate.parts[0]}
            lines.append({
                "cell": solver, "model": "m", "solver": solver, "options": "", "grid": "uniform", "nfe_asked": 5,
                "nfe": 5, "seed": seed, "samples": len(psnr), "metrics.psnr": psnr.mean(),
                "metrics.psnr_reference": 99.0, f"metrics.{name}": estimate.value, "versions.fastsample": "1",
            })  # fmt: skip
        self.lines = pd.DataFrame(lines)

    def frame(self):
        return self.lines

    def per_sample(self, cell, names):
        return self.arrays[cell]


def alarms(pairs, reference):
    """Share of honest (baseline, run) pairs of independent noise in which the gate finds anything worse."""
    found = []
    for one, two in pairs:
        findings = check(Memory(two, 1, reference), baseline_of(Memory(one, 0, reference)))
        assert len(findings) == 2 * len(one)
        assert all(finding.verdict != "not comparable" for finding in findings)
        found.append(any(finding.verdict == "regression" for finding in findings))
    return np.mean(found)


def test_honest_runs_raise_no_alarm():
    """Two solvers, two metrics each, 200 times: a family-wise level of 1 % allows no more than 2 %."""
    world = World(16)

    def runs(seed):
        rng = np.random.default_rng(seed)
        z, ease = rng.standard_normal((100, 16)), rng.gamma(2.0, 1.5, 100)
        return {f"s{n}": (20 + n + ease + 0.3 * rng.standard_normal(100), world(z + 0.1 * n, 0.1)) for n in range(2)}

    assert alarms([(runs(2 * n), runs(2 * n + 1)) for n in range(200)], world.reference) <= 0.02


# The rest draws 6,400 images of cifar10-tiny-flow by two solvers; a run of twice the evaluations is their reference.
COUNT, SOLVERS = 6400, ("ddim", "flow-solver")


@pytest.fixture(scope="module")
def drawn():
    """PSNR [n] and features [n, 192] of each solver, by name."""
    sampler, extractor = Sampler(torch.device("cpu")), open_extractor(EMBEDDED, torch.device("cpu"))
    request = Request(model="cifar10-tiny-flow", solver=SOLVERS, nfe=(5,), samples=COUNT)
    cells, _ = plan_cells(request, ())
    (fine,), _ = plan_cells(request.model_copy(update={"solver": ("flow-solver",), "nfe": (10,)}), ())
    parts = {name: ([], []) for name in SOLVERS}
    with torch.inference_mode():
        for low in range(0, COUNT, 64):
            indices = list(range(low, low + 64))
            best = sampler.sample(fine, indices)[0]
            for cell in cells:
                x = sampler.sample(cell, indices)[0]
                psnr, features = parts[cell.plan.solver.name]
                psnr.append(psnr_values(x, best))
                features.append(extractor(to_uint8(x))[0])
    return {name: (np.concatenate(psnr), np.concatenate(features)) for name, (psnr, features) in parts.items()}


@pytest.fixture(scope="module")
def reference():
    stats = shipped_reference(f"cifar10-jpeg-train@{EMBEDDED}")
    return stats.mu, symmetric_root(stats.sigma)


def ranges(count, permutations):
    """Disjoint sets of `count` images, from each of some permutations of all."""
    for seed in range(permutations):
        order = np.random.default_rng(seed).permutation(COUNT)
        yield from order[: COUNT // count * count].reshape(-1, count)


@pytest.mark.slow
def test_psnr_of_a_real_model_covers(drawn):
    """200 disjoint noise ranges of 32 images against the mean of all."""
    one, two = (drawn[name][0].reshape(-1, 32) for name in SOLVERS)
    for found, truth in [
        ([mean_interval(values) for values in one], one.mean()),
        ([mean_interval(values) for values in two], two.mean()),
        ([paired_interval(b, a) for a, b in zip(one, two, strict=True)], two.mean() - one.mean()),
    ]:
        assert 0.92 <= np.mean([interval.low <= truth <= interval.high for interval in found]) <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("count", [256, 640])
def test_distances_of_a_real_model_cover(drawn, reference, count):
    """At least 200 sets, disjoint within a permutation, against the mean distance of such sets."""
    one, two = (
        [distance(drawn[name][1][s], reference) for s in ranges(count, 200 * count // COUNT)] for name in SOLVERS
    )
    assert 0.92 <= coverage(one) <= 0.98
    assert 0.92 <= coverage(two) <= 0.98
    assert 0.92 <= coverage([b.minus(a, paired=True) for a, b in zip(one, two, strict=True)]) <= 0.98


@pytest.mark.slow
def test_honest_runs_of_a_real_model_raise_no_alarm(drawn, reference):
    """200 pairs of a baseline and a run on other noise, 320 images each."""
    runs = [{name: tuple(values[s] for values in drawn[name]) for name in SOLVERS} for s in ranges(320, 20)]
    assert alarms(list(zip(runs[0::2], runs[1::2], strict=True)), reference) <= 0.02
