"""Samplers that share evaluations give what each of them gives alone, bit for bit."""

import itertools
from pathlib import Path

import pytest
import torch

from fastsample.bench.cells import plan_cells
from fastsample.bench.request import Request, read_request
from fastsample.bench.sampling import Sampler
from fastsample.bench.tree import Tree
from fastsample.models.noise import step_noise
from fastsample.solvers.solver import solvers

SOLVERS = ("scire", "dpmpp-2m", "unipc", "deis", "ipndm", "flow-solver", "ddim", "heun")  # of the README's sweep
PLAIN = tuple(name for name, one in solvers().items() if not one.stochastic and not one.adaptive)


def cells_of(model, solver, nfe, **asked):
    cells, _ = plan_cells(Request(model=model, solver=solver, nfe=nfe, **asked), ())
    return [cell for cell in cells if cell.rows]


def shared(cells, indices, denoiser=None):
    """Results of all cells walked together, and the times at which the model was asked."""
    sampler, some = Sampler(torch.device("cpu")), cells[0]
    x, denoiser = sampler.start(some, indices), denoiser or sampler.denoiser(some, indices)
    tree, found = Tree([cell.rows for cell in cells], x.dtype), {}
    walked = tree.walk(denoiser, x, lambda k: step_noise(some.seed, indices, some.model.shape, k).to(x))
    for leaf, result, _ in walked:
        found |= dict.fromkeys(leaf.cells, result)
    return [found[place] for place in range(len(cells))], denoiser.nfe


def holds(model, solver, nfe, samples=2, **asked):
    cells = cells_of(model, solver, nfe, **asked)
    indices, sampler = list(range(samples)), Sampler(torch.device("cpu"))
    with torch.inference_mode():
        results, made = shared(cells, indices)
        assert made == len(Tree([cell.rows for cell in cells], torch.float32).times) or asked
        for cell, result in zip(cells, results, strict=True):
            alone, evaluations, _ = sampler.sample(cell, indices)
            assert torch.equal(alone, result), str(cell)
            assert evaluations == [cell.rows.nfe] * samples


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("model", ["gmm2d", "gmm2d-flow"])
def test_shared_equals_unshared_on_exact_models(model, precision):
    holds(model, (*PLAIN, "ddpm", "euler:afs=true", "deis:denoise=true"), range(3, 11), 5, precision=precision)


@pytest.mark.parametrize("model", ["cifar10-tiny-vp", "cifar10-tiny-flow"])
def test_shared_equals_unshared_on_networks(model):
    holds(model, SOLVERS, (5, 6))


@pytest.mark.slow
@pytest.mark.parametrize("model", ["cifar10-tiny-vp", "cifar10-tiny-flow"])
def test_shared_equals_unshared_for_thirty_solvers(model):
    assert len(PLAIN) >= 30
    holds(model, PLAIN, range(3, 11), 3)


def test_a_played_table_is_its_solver():
    """In float64 to rounding, on every path."""
    sampler, indices = Sampler(torch.device("cpu")), [0, 1, 2]
    for model in ("gmm2d", "gmm2d-flow"):
        cells = cells_of(model, (*PLAIN, "ddpm"), (6, 9), precision="float64")
        for cell, result in zip(cells, shared(cells, indices)[0], strict=True):
            noise = lambda k: step_noise(0, indices, (2,), k).double()  # noqa: E731
            direct = cell.plan(sampler.denoiser(cell, indices), sampler.start(cell, indices), noise)
            torch.testing.assert_close(result, direct, rtol=1e-9, atol=1e-9, msg=str(cell))


def made_over_needed(cells):
    groups = [list(group) for _, group in itertools.groupby(cells, lambda cell: cell.group)]
    made = sum(len(Tree([cell.rows for cell in group], torch.float32).times) for group in groups)
    return made / sum(cell.rows.nfe for cell in cells)


def test_how_much_is_shared():
    assert made_over_needed(cells_of("cifar10-tiny-flow", SOLVERS, (5, 6, 8, 10, 12, 15, 20))) <= 0.88
    assert made_over_needed(cells_of(("cifar10-tiny-vp", "cifar10-tiny-flow"), PLAIN[:30], range(3, 11))) <= 0.62


@pytest.mark.slow
def test_how_much_the_search_shares():
    cells, _ = plan_cells(read_request(Path(__file__).parents[2] / "docs" / "search.toml"), ())
    assert made_over_needed(cells) <= 0.71


def test_a_failure_is_of_those_it_leads_to():
    """What asks the model where it fails has no result; what does not ask there has its own."""

    class Failing(type(Sampler(torch.device("cpu")).denoiser(cells_of("gmm2d", "ddim", 4)[0], [0]))):
        def _combine(self, x, t, p, r):
            if self.nfe == 3:
                raise ArithmeticError("no")
            return super()._combine(x, t, p, r)

    cells = cells_of("gmm2d", ("ddim", "dpmpp-2m"), 4)
    good = Sampler(torch.device("cpu")).denoiser(cells[0], [0])
    bad = Failing.__new__(Failing)
    bad.__dict__ |= good.__dict__
    results, _ = shared(cells, [0], bad)
    assert sorted(type(found) is ArithmeticError for found in results) == [False, True]


def test_memory_is_the_longest_sampler_whatever_their_number(monkeypatch):
    sizes, empty = [], torch.empty
    monkeypatch.setattr(torch, "empty", lambda *size, **kinds: sizes.append(size) or empty(*size, **kinds))
    cells = cells_of("gmm2d", PLAIN, range(3, 11))
    longest = max(cell.rows.nfe for cell in cells)
    shared(cells, [0, 1, 2])
    assert sizes[0] == (longest + 1, 6)
