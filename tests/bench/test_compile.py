"""A fused network: other last bits, so another cell; the same numbers to rounding."""

import shutil
from dataclasses import replace

import pytest
import torch

from fastsample.bench.cells import plan_cells
from fastsample.bench.request import Request
from fastsample.bench.sampling import Sampler


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a compiler")
def test_a_compiled_network_samples_the_same_to_rounding(checkpoint):
    asked = dict(model=checkpoint("own"), solver="heun", nfe=4)
    (plain,), (fused,) = (plan_cells(Request(**asked, compiled=on), ())[0] for on in (False, True))
    assert plain.identity({}) != fused.identity({})
    assert plain.sampling != fused.sampling
    sampler = Sampler(torch.device("cpu"))
    with torch.inference_mode():
        one, other = (sampler.sample(cell, [0, 1, 2])[0] for cell in (plain, fused))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert type(sampler.network(fused).network) is not type(sampler.network(plain).network)
    again = replace(plain, protocol=plain.protocol.model_copy(update={"compiled": True}))
    assert again.identity({}) == fused.identity({})
