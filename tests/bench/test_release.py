"""Of several models one network is in memory at a time, and one that is opened again has the same numbers."""

import gc
from itertools import groupby
from weakref import WeakSet, ref

import pytest
import torch
from torch import nn

from fastsample.bench.cells import plan_cells
from fastsample.bench.request import Request
from fastsample.bench.sampling import Sampler
from fastsample.models.catalogue import open_model
from fastsample.models.checkpoints import CheckpointError
from fastsample.models.networks.dit import DiT
from fastsample.models.networks.edm2_unet import EDM2Precond
from fastsample.models.networks.ldm_autoencoder import AutoencoderKL
from fastsample.models.networks.song_unet import SongUNet

from .test_public import autoencoder, dit, write_card
from .test_public_guides import strong, weak

CPU = torch.device("cpu")


@pytest.fixture
def alive(monkeypatch):
    """Asserts how many networks of the kinds that the tests use are in memory, beside copies in half precision."""
    made, init = WeakSet(), nn.Module.__init__

    def spy(self, *given, **named):
        init(self, *given, **named)
        if type(self) in (SongUNet, DiT, AutoencoderKL, EDM2Precond):
            made.add(self)

    def assert_alive(count):
        if len(made) != count:
            gc.collect()
        assert len(made) == count

    monkeypatch.setattr(nn.Module, "__init__", spy)
    return assert_alive


def sampled(sampler, cell):
    with torch.inference_mode():
        return sampler.images(cell, sampler.sample(cell, [0, 1])[0])


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_request_of_several_models_holds_one_network_at_a_time(precision, checkpoint, alive):
    models = [checkpoint(name, seed=seed) for seed, name in enumerate(("one", "two", "three"))]
    facts = dict(solver=("euler", "heun"), nfe=2, precision=precision)
    alone = [
        sampled(Sampler(CPU), cell) for model in models for cell in plan_cells(Request(model=model, **facts), ())[0]
    ]
    alive(0)
    cells, _ = plan_cells(Request(model=models, **facts), ())
    alive(0)
    sampler, together = Sampler(CPU), []
    for _, group in groupby(cells, lambda cell: cell.model.id):
        for cell in group:
            together.append(sampled(sampler, cell))
            alive(1)
        half = ref(sampler.network(cell))
        sampler.release(cell.model)
        alive(0)
        assert half() is None
    assert all(map(torch.equal, together, alone))


def test_one_model_is_opened_once(checkpoint, alive):
    (cell,), _ = plan_cells(Request(model=checkpoint("one"), solver="euler", nfe=2), ())
    network = cell.model.network
    alive(1)
    sampled(Sampler(CPU), cell)
    assert cell.model.network is network


@pytest.mark.parametrize(
    ("forms", "guided"),
    [((dit, autoencoder), {}), ((strong, weak), {"guidance": 0.7})],
    ids=["latent", "guided"],
)
def test_what_a_public_model_is_made_of_is_released_with_it(forms, guided, tmp_path, server, alive):
    file = write_card(tmp_path, server, *forms)
    if guided:
        guided["guide"] = f"{file}#weak"
    request = Request(model=f"{file}#{forms[0].__name__}", solver="euler", nfe=2, **guided)
    (cell,), _ = plan_cells(request, ())
    sampler = Sampler(CPU)
    first = sampled(sampler, cell)
    alive(2)
    sampler.release(cell.model)
    alive(0)
    assert torch.equal(sampled(sampler, cell), first)
    alive(2)


def test_files_that_changed_since_are_refused(checkpoint):
    model = open_model(checkpoint("one"))
    checkpoint("one", seed=1)
    assert model.network is not None
    model.release()
    with pytest.raises(CheckpointError, match="the files of one have changed since it was opened first"):
        _ = model.network
    checkpoint("one")
    assert model.network is not None


def test_an_unreachable_model_leaves_the_others_alone(checkpoint, tmp_path):
    one = checkpoint("one")
    (tmp_path / "bad.safetensors").write_bytes(b"no checkpoint")
    cells, (skipped,) = plan_cells(Request(model=[str(tmp_path / "bad.safetensors"), one], solver="euler", nfe=2), ())
    assert skipped.failed
    assert [cell.model.id for cell in cells] == ["one"]
