import gzip
import json
import math
from pathlib import Path

import pytest

from fastsample.models.path import CosineFlow, DiscreteVP, Edm, LinearFlow, SubVPLinear, VPCosine, VPLinear, path_named

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
PATHS = [VPLinear(), SubVPLinear(), VPCosine(), DiscreteVP.ddpm(), Edm(), LinearFlow(), CosineFlow()]


def schedules(kind):
    with gzip.open(GOLDEN / "schedules.json.gz", "rt") as stream:
        return json.load(stream)[kind]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_derivatives_and_inverse(path):
    ends = path.t_finite, path.t_data
    for i in range(1, 12):
        t = ends[0] + (ends[1] - ends[0]) * (i / 12.3)
        h = 1e-7 * max(1.0, abs(t))
        for value, derivative in ((path.alpha, path.d_alpha), (path.sigma, path.d_sigma)):
            numeric = (value(t + h) - value(t - h)) / (2 * h)
            assert derivative(t) == pytest.approx(numeric, rel=2e-5, abs=1e-6)
        assert path.t_of_lam(path.lam(t)) == pytest.approx(t, rel=1e-9)
        assert path.t_of_nsr(path.nsr(t)) == pytest.approx(t, rel=1e-9)
        assert path.lam(t) == pytest.approx(math.log(path.alpha(t) / path.sigma(t)), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_lambda_rises_from_noise_to_data(path):
    times = [path.t_finite + (path.t_data - path.t_finite) * i / 50 for i in range(51)]
    lams = [path.lam(t) for t in times]
    assert all(b > a for a, b in zip(lams, lams[1:], strict=False))


@pytest.mark.parametrize(("kind", "path"), [("linear", VPLinear()), ("ddpm1000", DiscreteVP.ddpm())])
def test_agrees_with_the_official_schedules(kind, path):
    for point in schedules(kind):
        if math.isnan(point["lam"]):
            continue  # below the first node of the table the official sigma is not a number
        t = point["t"]
        assert path.alpha(t) == pytest.approx(point["alpha"], rel=1e-12)
        assert path.sigma(t) == pytest.approx(point["sigma"], rel=1e-9)
        assert path.lam(t) == pytest.approx(point["lam"], abs=1e-9)
        assert path.t_of_lam(point["lam"]) == pytest.approx(point["t_from_lam"], rel=1e-9)


def test_the_cosine_path_starts_where_dpm_solver_starts():
    """T = 0.9946 of LuChengTHU/dpm-solver; alpha there by the formula of arXiv 2102.09672, eq. 17."""
    path = path_named("vp-cosine")
    ratio = math.cos(math.pi / 2 * (0.9946 + 0.008) / 1.008) / math.cos(math.pi / 2 * 0.008 / 1.008)
    assert path.t_noise == 0.9946
    assert path.nsr(path.t_noise) == pytest.approx(math.sqrt(1 - ratio**2) / ratio, rel=1e-12)


def test_sub_vp_is_the_sde_of_its_paper():
    """dx = -beta/2 x dt + sqrt(beta (1 - exp(-2 int beta))) dw (arXiv 2011.13456, eq. 12): d sigma^2/dt follows."""
    path = SubVPLinear()
    for t in (1e-3, 0.1, 0.5, 1.0):
        beta, sigma = 0.1 + 19.9 * t, path.sigma(t)
        diffusion = beta * (1 - math.exp(-2 * (0.1 * t + 19.9 * t**2 / 2)))
        assert 2 * sigma * path.d_sigma(t) == pytest.approx(-beta * sigma**2 + diffusion, rel=1e-6)
        assert sigma == pytest.approx(VPLinear().sigma(t) ** 2, rel=1e-12)
    assert (path.lam(0.0), path.t_of_lam(math.inf)) == (math.inf, 0.0)


def test_singular_ends():
    flow = LinearFlow()
    assert flow.lam(0.0) == -math.inf
    assert flow.lam(1.0) == math.inf
    assert flow.t_of_lam(-math.inf) == 0
    assert flow.t_of_lam(math.inf) == 1
    assert flow.t_finite == 1e-3
    assert flow.nsr(0.0) == math.inf
    table = DiscreteVP.ddpm()
    assert (table.alpha(0), table.sigma(0), table.t_of_lam(math.inf)) == (1, 0, 0)


def test_unknown_path():
    with pytest.raises(ValueError, match="known: vp-linear"):
        path_named("vp")
