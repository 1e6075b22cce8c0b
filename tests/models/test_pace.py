"""What a step of training waits for: it makes no tensor of Python's numbers, and looks at the loss when it is due."""

import csv
import os
import signal

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fastsample.datasets.home import sha256_of
from fastsample.datasets.image_set import ImageDataset
from fastsample.models.training import trainer
from fastsample.models.training.process import autocast_for
from fastsample.models.training.state import State
from fastsample.models.training.trainer import draw, train

# On a device each of them waits: a number that is read, and a tensor that is made of numbers or copied there.
WAITS = ("_local_scalar_dense", "lift_fresh", "_to_copy")


class Counted(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.removeprefix("aten::")
        self.seen += [name] if name in WAITS else []
        return function(*args, **(kwargs or {}))


def log(folder):
    with (folder / "log.csv").open(newline="") as file:
        return [row[:-1] for row in csv.reader(file)]  # without the seconds


@pytest.fixture
def asynchronous(monkeypatch):
    """The pace of a device that computes while the host goes on."""
    monkeypatch.setattr(trainer, "_pace", lambda device: (4, 2))


@pytest.mark.parametrize("accumulate", [1, 4])
def test_steps_wait_only_where_the_loss_is_looked_at(accumulate, toy, images, asynchronous, tmp_path, monkeypatch):
    monkeypatch.setattr(State, "save", lambda run: None)
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda optimizer: None)  # it keeps its step counts on the host
    counts = []
    for count in (8, 16):
        with Counted() as counted:
            train(toy(images=8 * count, accumulate=accumulate, precision="float32"), images, tmp_path / str(count))
        counts.append(len(counted.seen))
    assert counts[1] - counts[0] == 2  # eight steps more, and two looks


def test_the_pace_changes_no_number(toy, unet, learned, images, asynchronous, tmp_path, monkeypatch):
    recipe = toy(**unet, coupling=learned, flip=True)
    train(recipe, images, tmp_path / "ahead")
    monkeypatch.setattr(trainer, "_pace", lambda device: (1, 0))
    train(recipe, images, tmp_path / "one by one")
    assert log(tmp_path / "ahead") == log(tmp_path / "one by one")
    assert len(log(tmp_path / "ahead")) == 9
    one, other = (sha256_of(tmp_path / name / "toy.safetensors") for name in ("ahead", "one by one"))
    assert one == other


def test_a_run_ahead_stops_at_the_step_where_it_is_told_to_and_goes_on(
    toy, images, asynchronous, tmp_path, monkeypatch
):
    train(toy(images=64), images, tmp_path / "whole")
    update, steps = State.update, []

    def interrupted(run):
        steps.append(run.step)
        if len(steps) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return update(run)

    monkeypatch.setattr(State, "update", interrupted)
    assert train(toy(images=64), images, tmp_path / "pieces").images_seen == 24
    assert train(toy(images=64), images, tmp_path / "pieces").finished
    assert log(tmp_path / "pieces") == log(tmp_path / "whole")


def test_a_loss_that_is_not_finite_is_named_with_its_step_and_nothing_is_saved(
    toy, images, asynchronous, tmp_path, monkeypatch
):
    train(toy(images=8), images, tmp_path)
    saved, own = sha256_of(tmp_path / "state.pt"), ImageDataset.signal
    drawn = []

    def broken(self, index):
        drawn.append(index)
        return own(self, index) * (torch.nan if len(drawn) == 2 else 1)

    monkeypatch.setattr(ImageDataset, "signal", broken)
    with pytest.raises(FloatingPointError, match="toy: the loss is nan at step 2"):
        train(toy(), images, tmp_path)
    assert sha256_of(tmp_path / "state.pt") == saved


@pytest.mark.parametrize("coupling", [{"kind": "independent"}, {"kind": "minibatch-ot"}], ids=lambda one: one["kind"])
def test_a_process_reads_its_rows_alone_and_gets_those_of_the_whole(coupling, toy, images, tmp_path, monkeypatch):
    recipe, read, own = toy(coupling=coupling, flip=True), [], ImageDataset.signal
    run = State(recipe, images, trainer.describe(recipe, images, "float32"), tmp_path, "cpu", None)
    whole = draw(run, images)
    monkeypatch.setattr(ImageDataset, "signal", lambda self, index: (read.append(len(index)), own(self, index))[1])
    parts = [draw(run, images, rank, 4) for rank in range(4)]
    for name in ("x0", "noise"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))
    assert torch.equal(torch.cat([part.numbers for part in parts], 1), whole.numbers)
    assert read == [2 if coupling["kind"] == "independent" else 8] * 4  # a matching is of the whole batch


def test_bfloat16_is_taken_where_the_device_computes_in_it(monkeypatch):
    asked = []
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: asked.append(including_emulation)
    )
    autocast_for("cuda")
    assert asked == [False]
