"""Published grids are the sigmas of their codes."""

import gzip
import json
from pathlib import Path

import pytest

from fastsample.models.path import DiscreteVP, Edm, LinearFlow, VPLinear
from fastsample.solvers.grids import Grid

CASES = json.loads(gzip.decompress((Path(__file__).parents[1] / "data" / "grids.json.gz").read_bytes()))["schedules"]
EDM = {"karras": "karras:rho={rho}", "exponential": "exponential", "polyexponential": "polyexponential:rho={rho}",
       "kl-optimal": "kl-optimal", "beta-sigma": "beta-sigma:a={alpha},b={beta}"}  # fmt: skip
TABLE = {"simple": "integer-simple", "sgm_uniform": "integer-trailing", "normal": "integer-normal",
         "ddim_uniform": "integer-ddim", "beta-index": "integer-beta:a={alpha},b={beta}"}  # fmt: skip


def sigmas(case):
    """Ours for a case, by the intervals that the code has, and those of the code."""
    name, given, found = case["name"], case["parameters"], case["sigmas"]
    if name in EDM:  # n points, and 0 after them
        n = len(found) - 1 - (found[-1] == 0)
        path = Edm(t_noise=case["sigma_max"], t_data=case["sigma_min"])
        return Grid.parse(EDM[name].format(**given))(path, n, path.t_noise, path.t_data), found[: n + 1]
    if name == "ays":
        path = Edm(t_noise=found[0], t_data=found[-1])
        return Grid.parse(f"ays-{given['list']}")(path, case["n"], path.t_noise, path.t_data), found
    flow = {"flow-mu": "dynamic-shift:mu={mu}", "linear-quadratic": "linear-quadratic:threshold={threshold_noise}"}
    if name in flow:
        path = LinearFlow(t_data=1.0)
        times = Grid.parse(flow[name].format(**given))(path, case["n"], 0.0, 1.0)
        return [1 - t for t in times], found
    if name == "flow-shift-default":  # n points, the last of a sigma that is shifted twice, and 0 after them
        path = LinearFlow(t_data=1 - found[-2])
        times = Grid.parse("shift-sigma:s={shift}".format(**given))(path, case["n"] - 1, 0.0, path.t_data)
        return [1 - t for t in times], found[:-1]
    path = VPLinear(t_data=given["eps_s"]) if name == "vp" else DiscreteVP.ddpm()
    if name == "vp":
        times = Grid.parse("uniform")(path, len(found) - 2, 1.0, path.t_data)
        return [path.nsr(t) for t in times], found[:-1]
    times = Grid.parse(TABLE[name].format(**given))(path, case["n"], 1.0, path.t_data)
    return [path.nsr(t) for t in times], found


@pytest.mark.filterwarnings("ignore:integer-ddim has")
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['name']}-{case['parameters']}-{case['n']}")
def test_a_grid_is_that_of_its_code(case):
    ours, theirs = sigmas(case)
    assert ours == pytest.approx(theirs, rel=case.get("tolerance", 1e-9), abs=1e-12)
