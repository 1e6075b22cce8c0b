import numpy as np
import pytest
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from fastsample.bench.metrics.error import psnr_values, square_errors, summarise_psnr
from fastsample.bench.metrics.features import EMBEDDED, Extractor
from fastsample.bench.metrics.frechet import frechet_distance, symmetric_root
from fastsample.datasets.levels import to_signal, to_uint8
from fastsample.results.metrics import METRICS, Asked, parse_metric

from ...measuring import value_of

RNG = np.random.default_rng(0)


def judging(**known):
    """An extractor whose reference is known without a network."""
    extractor = Extractor(EMBEDDED, None, None, torch.device("cpu"))
    vars(extractor).update(known)
    return extractor


def covariance(d, n=None):
    factor = RNG.standard_normal((d, n or 2 * d))
    return factor @ factor.T / (n or 2 * d)


def test_frechet_distance_of_diagonal_covariances_is_the_closed_form():
    a, b = RNG.uniform(0.1, 2, 7), RNG.uniform(0.1, 2, 7)
    mu = RNG.standard_normal(7)
    expected = np.sum(mu**2) + np.sum((np.sqrt(a) - np.sqrt(b)) ** 2)
    assert frechet_distance(mu, np.diag(a), np.zeros(7), np.diag(np.sqrt(b))) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("n", [None, 5], ids=["full rank", "rank deficient"])
def test_frechet_distance_is_torch_fidelitys(n):
    d = 12
    mu1, mu2, s1, s2 = RNG.standard_normal(d), RNG.standard_normal(d), covariance(d, n), covariance(d)
    theirs = fid_statistics_to_metric({"mu": mu1, "sigma": s1}, {"mu": mu2, "sigma": s2}, False)
    ours = frechet_distance(mu1, s1, mu2, symmetric_root(s2))
    assert ours == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)


def test_features_to_distance_is_torch_fidelitys():
    features, real = (
        RNG.standard_normal((300, 16)).astype(np.float32),
        RNG.standard_normal((400, 16)).astype(np.float32) + 0.3,
    )
    statistics = [fid_features_to_statistics(torch.from_numpy(one)) for one in (features, real)]
    theirs = fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"]
    wide = real.astype(np.float64)
    moments = wide.mean(0), symmetric_root(np.cov(wide, rowvar=False))
    assert value_of("fd", judging(moments=moments), features) == pytest.approx(theirs, rel=1e-6)


def test_kid_is_and_precision_recall_tell_equal_from_different():
    real = RNG.standard_normal((600, 8)).astype(np.float32)
    same, other = RNG.standard_normal((500, 8)).astype(np.float32), real[:500] + 3
    extractor = judging(real_features=real)
    near, far = (
        {kind: value_of(kind, extractor, one) for kind in ("kid", "precision", "recall")} for one in (same, other)
    )
    assert abs(near["kid"]) < 0.02 < far["kid"]
    assert near["precision"] > 0.8 > far["precision"]
    assert near["recall"] > 0.8 > far["recall"]
    confident = np.eye(8, dtype=np.float32)[np.tile(np.arange(8), 500)] * 20
    assert value_of("is", extractor, same, confident) == pytest.approx(8, abs=0.2)


def test_psnr_by_hand():
    image = torch.zeros(2, 1, 2, 2)
    reference = image + torch.tensor([0.2, 0.02])[:, None, None, None]
    assert psnr_values(image, reference).tolist() == pytest.approx([20.0, 40.0], abs=1e-5)
    assert psnr_values(image + 5, image + 3).tolist() == pytest.approx(
        [206.0206, 206.0206], abs=1e-3
    )  # both clamp to 1
    assert psnr_values(torch.full((1, 2), 3.0), torch.full((1, 2), 2.6)).tolist() == pytest.approx([20.0], abs=1e-4)
    summary = summarise_psnr(np.array([20.0, 40.0]))
    assert (summary["psnr"], summary["psnr_median"]) == (30.0, 30.0)
    assert summary["psnr_pooled"] == pytest.approx(-10 * np.log10((1e-2 + 1e-4) / 2))


def test_square_errors_are_per_dimension_and_unclamped():
    x, reference = torch.zeros(2, 1, 2, 2), torch.full((2, 1, 2, 2), 3.0)
    reference[1] = torch.tensor([[0.0, 0.0], [0.0, 4.0]])
    assert square_errors(x, reference).tolist() == [9.0, 4.0]


def test_uint8_rule():
    levels = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0, -1 + 1 / 255, 0.999])
    assert to_uint8(levels).tolist() == [0, 0, 128, 255, 255, 1, 255]
    every = torch.arange(256, dtype=torch.uint8)
    assert to_uint8(to_signal(every)).tolist() == every.tolist()


def test_names_state_extractor_and_count():
    assert parse_metric("fd", "cifar10-resnet").name(1000) == "fd[cifar10-resnet]@1000"
    assert parse_metric("kid[inception-v3-compat]", "x").name(50) == "kid[inception-v3-compat]@50"
    assert parse_metric("fid", "x") == Asked(METRICS["fid"], "inception-v3-compat")
    assert parse_metric("fid", "x").name(50000) == "fid@50000"
    for kind in ("psnr", "truncation", "curvature", "straightness"):
        assert parse_metric(kind, "x") == Asked(METRICS[kind])
        assert parse_metric(kind, "x").name(5) == kind
    with pytest.raises(ValueError, match="did you mean psnr"):
        parse_metric("pnsr", "x")
