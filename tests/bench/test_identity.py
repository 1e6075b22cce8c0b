"""The identity of a cell: two cells that differ in one thing that decides numbers are two cells."""

from dataclasses import replace

import pytest

from fastsample.bench import cells
from fastsample.bench.cells import plan_cells
from fastsample.bench.request import Request
from fastsample.models.catalogue import open_model

PLAIN = dict(model="gmm2d", solver="dpmpp-2m", nfe=8, samples=12)


def identity(metrics=("psnr",), **changes):
    """Of the only cell of a request, with an empty protocol: nothing else may stand in for a key."""
    (cell,), _ = plan_cells(Request(**PLAIN | changes), metrics)
    return cell.identity({})


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"samples": 13},
        {"precision": "float64"},
        {"model": "gmm2d-flow", "solver": "euler"},
        {"solver": "unipc"},
        {"solver": "dpmpp-2m:denoise=true", "nfe": 9},
        {"nfe": 9},
        {"grid": "uniform"},
        {"metrics": ("psnr", "curvature")},
    ],
    ids=lambda changes: ",".join(changes),
)
def test_what_decides_numbers_is_in_the_identity(changes):
    assert identity() == identity()
    assert identity(**changes) != identity()


def test_seeds_of_one_request_are_cells_of_their_own():
    found, _ = plan_cells(Request(**PLAIN, seed=3, seeds=2), ("psnr",))
    assert len({cell.identity({}) for cell in found}) == 2
    assert found[0].identity({}) == identity(seed=3)


def test_options_alone_tell_two_cells_apart():
    """The same solver, times and evaluations: only what an option says is another."""
    one, other = (
        plan_cells(Request(**PLAIN | {"solver": f"unipc:variant={name}"}), ())[0][0] for name in ("bh1", "bh2")
    )
    assert (one.plan.times, one.plan.nfe) == (other.plan.times, other.plan.nfe)
    assert one.identity({}) != other.identity({})


def test_budgets_alone_tell_two_cells_apart():
    one, other = (plan_cells(Request(**PLAIN | {"solver": "heun", "nfe": nfe}), ())[0][0] for nfe in (8, 9))
    assert one.plan.times == other.plan.times
    assert one.identity({}) != other.identity({})


def test_times_alone_tell_two_cells_apart():
    """Two files of times have names that no key holds."""
    (one,), _ = plan_cells(Request(**PLAIN), ())
    times = (*one.plan.times[:-2], one.plan.times[-2] * 0.99, one.plan.times[-1])
    assert replace(one, plan=replace(one.plan, times=times)).identity({}) != one.identity({})


def test_solvers_with_the_same_times_are_cells_of_their_own():
    one, other = (
        plan_cells(Request(**PLAIN | {"solver": name, "grid": "logsnr"}), ())[0][0] for name in ("ddim", "dpmpp-2m")
    )
    assert one.plan.times == other.plan.times
    assert one.identity({}) != other.identity({})


def test_guidance_is_in_the_identity(checkpoint):
    model = checkpoint("classes", classes=5)
    assert len({identity(model=model, guidance=w) for w in (0.0, 1.0, 1.5)}) == 3


def test_the_checkpoint_is_in_the_identity(checkpoint, tmp_path):
    """Two files with the same name and other weights: models of one id."""
    found = []
    for seed in (0, 1, 0):
        model = open_model(checkpoint("mine", seed=seed))
        assert model.id == "mine"
        found.append(identity(model=str(tmp_path / "mine.safetensors")))
    assert found[0] == found[2] != found[1]


def test_the_version_is_in_the_identity(monkeypatch):
    before = identity()
    monkeypatch.setattr(cells, "version", lambda _: "another")
    assert identity() != before


def test_the_protocol_is_in_the_identity():
    (cell,), _ = plan_cells(Request(**PLAIN), ("psnr",))
    assert len({cell.identity(facts) for facts in ({}, {"tf32": "True"}, {"tf32": "False"}, {"noise": "True"})}) == 4


def test_classes_drawn_otherwise_are_another_cell(checkpoint, tmp_path, coarse):
    """Through the sweep: labels are a fact of the protocol."""
    from rich.console import Console

    from fastsample.bench.sweep import run_sweep
    from fastsample.results.store import Store

    for labels in ("random", "balanced", "random"):
        asked = Request(
            model=checkpoint("classes", classes=5), solver="euler", nfe=1, samples=4, labels=labels,
            metrics=("curvature",), out=tmp_path / "s",
        )  # fmt: skip
        assert run_sweep(asked, Console(quiet=True)) == []
    assert len(Store(tmp_path / "s").rows()) == 2
