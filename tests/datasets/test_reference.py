"""Moments in one pass and in shards, and the file of reference statistics with its refusals."""

from dataclasses import replace

import numpy as np
import pytest

from fastsample.datasets.moments import FeatureMoments, ReferenceError, ReferenceStats, shipped_reference


@pytest.fixture
def features():
    rng = np.random.default_rng(0)
    return (rng.standard_normal((3000, 12)) @ rng.standard_normal((12, 12)) + 50).astype(np.float32)


@pytest.fixture
def stats(features):
    x = features.astype(np.float64)
    return ReferenceStats(x.mean(0), np.cov(x, rowvar=False), len(x), "toy", "ab12", "set", "train")


def test_moments_are_mean_and_covariance(features, stats):
    moments = FeatureMoments(12)
    for part in np.array_split(features, 7):
        moments.add(part)
    mu, sigma = moments.moments()
    np.testing.assert_allclose(mu, stats.mu, rtol=1e-12)
    np.testing.assert_allclose(sigma, stats.sigma, rtol=0, atol=1e-9)


def test_shards_merge_to_the_whole(features):
    shift = features[:100].mean(0).astype(np.float64)
    whole, parts = FeatureMoments(12, shift), [FeatureMoments(12, shift) for _ in range(3)]
    whole.add(features)
    for moments, share in zip(parts, np.split(features, [10, 1700]), strict=True):
        moments.add(share)
    parts[0].merge(parts[1])
    parts[0].merge(parts[2])
    assert parts[0].n == whole.n
    for a, b in zip(parts[0].moments(), whole.moments(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_moments_refuse_what_does_not_fit():
    moments = FeatureMoments(3)
    with pytest.raises(ValueError, match=r"\[batch, 3\]"):
        moments.add(np.zeros((2, 4)))
    with pytest.raises(ValueError, match="merged"):
        moments.merge(FeatureMoments(3, np.ones(3)))
    moments.add(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="two samples"):
        moments.moments()


def test_a_file_keeps_everything(stats, tmp_path):
    stats.save(tmp_path / "set.npz")
    back = ReferenceStats.load(tmp_path / "set.npz")
    assert back.name == "set-train@toy"
    assert (back.n, back.extractor_sha256) == (3000, "ab12")
    np.testing.assert_array_equal(back.mu, stats.mu)
    np.testing.assert_allclose(back.sigma, stats.sigma, rtol=1e-7)
    assert [file.name for file in tmp_path.iterdir()] == ["set.npz"]


def test_inconsistent_statistics_are_refused(stats):
    tilted = stats.sigma.copy()
    tilted[0, 1] += 1
    for change, message in (
        ({"sigma": stats.sigma[:5]}, r"want \[d\] and \[d, d\]"),
        ({"mu": stats.mu * np.nan}, "not finite"),
        ({"sigma": tilted}, "not symmetric"),
        ({"sigma": -stats.sigma}, "not a covariance"),
        ({"n": 1}, "no covariance"),
    ):
        with pytest.raises(ReferenceError, match=message):
            replace(stats, **change)


def test_other_files_are_refused(stats, tmp_path):
    whole = tmp_path / "whole.npz"
    stats.save(whole)
    cut = tmp_path / "cut.npz"
    cut.write_bytes(whole.read_bytes()[:-200])
    objects = tmp_path / "objects.npz"
    np.savez(objects, mu=np.array([{}], dtype=object))
    single = tmp_path / "single.npy"
    np.save(single, np.zeros(3))
    short = tmp_path / "short.npz"
    np.savez(short, **{**np.load(whole), "sigma_lower": np.zeros(4)})
    for path in (cut, objects, single, short, tmp_path / "absent.npz"):
        with pytest.raises(ReferenceError):
            ReferenceStats.load(path)


def test_an_unknown_shipped_reference_lists_the_known_ones():
    with pytest.raises(ReferenceError, match="known:"):
        shipped_reference("nothing@nobody")
