"""The numbers of every solver, as they were when the version of the numerics was last raised.

After a change that is meant to move numbers raise NUMERICS in solvers/numerics.py and run
`python tests/solvers/test_numerics.py`, which writes the data anew.
"""

import json
import warnings
from pathlib import Path

import pytest
import torch

from fastsample.models.catalogue import open_model
from fastsample.models.noise import normal, step_noise
from fastsample.solvers.numerics import NUMERICS
from fastsample.solvers.solver import solvers

DATA = Path(__file__).parents[1] / "data" / "numerics.json"
MODELS = ("gmm2d", "gmm2d-flow-mean")


def numbers(solver, options):
    """Float64 results at NFE 13 of three samples of each exact problem, in one list."""
    found = []
    for name in MODELS:
        model = open_model(name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            plan = solver.plan(model.path, 13, **options)
        x = normal(7, range(3), (2,)).double()
        denoiser = model.make(None, None, 0.0, None)
        result = plan(denoiser, x, lambda step, x=x: step_noise(7, range(3), (2,), step).to(x))
        found += [denoiser.nfe, *result.flatten().tolist()]
    return found


def claims():
    for solver in solvers().values():
        for options in (*solver.variants, {"denoise": True}):
            text = ",".join(f"{key}={value}" for key, value in options.items())
            yield f"{solver.name}:{text}".rstrip(":"), solver, dict(options)


def differing():
    """Names of solvers, with options, whose numbers are not those of the data."""
    kept = json.loads(DATA.read_text())["solvers"]
    return [
        name for name, solver, options in claims()
        if name not in kept or kept[name] != pytest.approx(numbers(solver, options), rel=1e-9, abs=1e-9)
    ]  # fmt: skip


def test_numbers_change_with_the_version_of_the_numerics_only():
    kept = json.loads(DATA.read_text())
    moved = differing()
    assert (moved, kept["version"]) == ([], NUMERICS), (
        f"the numbers of {', '.join(moved) or 'no solver'} moved, and the data are of version {kept['version']} of the "
        f"numerics ({NUMERICS} in solvers/numerics.py): raise NUMERICS, and renew the data with "
        "`python tests/solvers/test_numerics.py`"
    )
    assert set(kept["solvers"]) == {name for name, _, _ in claims()}


def test_a_coefficient_moves_the_numbers_of_its_solver_only(monkeypatch):
    from fastsample.solvers.families import flow_solver

    true = flow_solver.adams_weights
    monkeypatch.setattr(flow_solver, "adams_weights", lambda *given: [1.01 * w for w in true(*given)])
    assert {name.partition(":")[0] for name in differing()} == {"flow-solver"}


if __name__ == "__main__":
    torch.set_num_threads(1)
    data = {"version": NUMERICS, "solvers": {name: numbers(solver, options) for name, solver, options in claims()}}
    DATA.write_text(json.dumps(data, indent=1) + "\n")
