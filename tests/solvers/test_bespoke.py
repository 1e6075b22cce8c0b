"""Bespoke steps at the identity are the base methods."""

import pytest
import torch

from fastsample.models.analytic import ring_mixture
from fastsample.models.path import LinearFlow
from fastsample.solvers.learned.bespoke import ScaleTime, rk1_bespoke, rk2_bespoke
from fastsample.solvers.solver import get

PATH = LinearFlow(t_data=1.0)
POINTS = torch.randn(16, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("step", "base"), [(rk1_bespoke, "euler"), (rk2_bespoke, "midpoint")])
def test_identity_is_the_base_method(step, base):
    count = 8
    identity = ScaleTime([i / count for i in range(count + 1)], [1.0] * (count + 1), [1.0] * count, [0.0] * count)
    expected = get(base).plan(PATH, count, "uniform")(ring_mixture(PATH), POINTS)
    assert torch.allclose(step(ring_mixture(PATH), POINTS, identity), expected, rtol=0, atol=1e-13)


def test_a_constant_scale_changes_nothing():
    nodes = [ScaleTime([0, 0.3, 0.6, 0.8, 0.999], [s] * 5, [1.1, 1.0, 0.9, 0.8], [0.0] * 4) for s in (1.0, 3.0)]
    assert torch.allclose(*(rk2_bespoke(ring_mixture(PATH), POINTS, n) for n in nodes), rtol=0, atol=1e-13)
