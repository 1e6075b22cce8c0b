"""Parity with the official implementations: every golden case, in float64.

FASTSAMPLE_GOLDEN=FOLDER runs another folder of files of the same format.
"""

import os
from pathlib import Path

import pytest
import torch

from fastsample.solvers.proofs.golden import SHIPPED, NotASolver, cases, compare, problem
from fastsample.solvers.solver import get

FOLDER = Path(os.environ.get("FASTSAMPLE_GOLDEN", SHIPPED))
CASES = list(cases(FOLDER))


def test_there_are_cases():
    assert CASES, f"no golden cases in {FOLDER}"


@pytest.mark.parametrize("case", [case for _, case in CASES], ids=[name for name, _ in CASES])
def test_agrees_with_the_official_code(case):
    try:
        parity = compare(case)
    except NotASolver as reason:
        pytest.skip(str(reason))
    assert parity.nfe == parity.golden_nfe
    assert parity.time_error <= 1e-9
    assert parity.error <= parity.tolerance


REFERENCES = [(name, case) for name, case in CASES if case["solver"].startswith("reference")]


@pytest.mark.parametrize("case", [case for _, case in REFERENCES], ids=[name for name, _ in REFERENCES])
def test_reference_solutions_are_reached(case):
    """The golden reference solutions, which are no solver's, are where our dopri5 ends with a small tolerance."""
    denoiser = problem(case)
    if case.get("t_end") == 0.0:
        pytest.skip("EDM's sigma = 0 is reached by a last data prediction, not by the ODE solver")
    start, end = (
        torch.tensor(case.get(a, case.get(b)), dtype=torch.float64) for a, b in (("x_T", "x_init"), ("x_0", "x_final"))
    )
    path = denoiser.path if denoiser.path.name != "edm" else denoiser.path.between(case["t_start"], case["t_end"])
    result = get("dopri5").plan(path, 1, rtol=1e-11, atol=1e-12)(denoiser, start)
    assert (result - end).abs().max() < max(2e-8, case.get("compare_with_atol") or 0)
