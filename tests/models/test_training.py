"""Training: exact resumption, the schedules, the losses, and that it learns."""

import csv
import os
import signal

import pytest
import torch

from fastsample.datasets.images import ImageDataset
from fastsample.models.checkpoints import CheckpointError, load_model, sha256_of
from fastsample.models.denoiser import weights
from fastsample.models.training.classifier import ClassifierRecipe, accuracy, train_classifier
from fastsample.models.training.config import RECIPES, Recipe, recipe_named
from fastsample.models.training.losses import draw_times, regression_loss
from fastsample.models.training.trainer import preview, train


def recipe(**changes):
    args = {"img_resolution": 8, "in_channels": 3, "out_channels": 3, "model_channels": 8, "channel_mult": [1, 2],
            "num_blocks": 1, "attn_resolutions": [4], "dropout": 0.2}  # fmt: skip
    return Recipe(
        **{
            "id": "toy",
            "title": "A toy",
            "dataset": "toy",
            "network_args": args,
            "path": "vp-linear",
            "prediction": "eps",
            "images": 64,
            "batch": 8,
            "warmup_images": 16,
            "ema_halflife_images": 20,
            **changes,
        }
    )


@pytest.fixture
def images():
    pixels = torch.randint(0, 256, (28, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return ImageDataset("toy", "train", pixels, torch.arange(28) % 10)


def log(folder):
    with (folder / "log.csv").open(newline="") as file:
        return [(row["step"], row["images"], row["loss"], row["lr"], row["grad_norm"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_in_pieces_is_the_unbroken_run(images, tmp_path, number):
    whole = train(recipe(), images, tmp_path / "whole")
    assert whole.finished
    assert whole.images_seen == 64

    def interrupted_loss(network, x0, the_recipe):
        if len(log(tmp_path / "pieces")) == 3:
            os.kill(os.getpid(), number)
        return regression_loss(network, x0, the_recipe)

    interrupted_loss.__name__ = regression_loss.__name__
    before = signal.getsignal(number)
    first = train(recipe(), images, tmp_path / "pieces", loss=interrupted_loss)
    assert signal.getsignal(number) is before
    assert not first.finished
    assert first.images_seen == 32
    with (tmp_path / "pieces" / "log.csv").open("a") as file:  # as a crash after the last save leaves it
        file.write("5,40,nan,0,0,0\n")
    second = train(recipe(), images, tmp_path / "pieces")
    assert second.finished
    assert len(log(tmp_path / "whole")) == 8
    assert log(tmp_path / "pieces") == log(tmp_path / "whole")
    assert sha256_of(second.checkpoint) == sha256_of(whole.checkpoint)


def test_a_time_limit_stops_a_run_that_goes_on_later(images, tmp_path):
    assert train(recipe(), images, tmp_path, max_minutes=0).images_seen == 8
    assert train(recipe(images=16), images, tmp_path).finished
    network, metadata, _ = load_model(tmp_path / "toy.safetensors")
    assert (metadata.images_seen, metadata.data) == (16, "toy train")
    samples = preview(network, recipe(), (2, 3, 8, 8), steps=3)
    assert samples.shape == (2, 3, 8, 8)
    assert samples.abs().max() <= 1
    assert (tmp_path / "samples.png").stat().st_size > 0


def test_another_run_is_not_resumed(images, tmp_path):
    train(recipe(images=8), images, tmp_path)
    with pytest.raises(CheckpointError, match="differs in prediction, lr"):
        train(recipe(prediction="x0", lr=1e-4), images, tmp_path)
    other = ImageDataset("toy", "train", 255 - images.images, images.labels)
    with pytest.raises(CheckpointError, match="differs in data_sha256"):
        train(recipe(), other, tmp_path)


def test_impossible_runs_are_refused(images, tmp_path):
    with pytest.raises(ValueError, match="fewer than one batch of 29"):
        train(recipe(batch=29), images, tmp_path)
    with pytest.raises(FloatingPointError, match="the loss is nan at step 0"):
        train(recipe(), images, tmp_path, loss=lambda network, x0, _: network(x0, torch.zeros(8)).mean() * torch.nan)


@pytest.mark.parametrize(("path", "prediction"), [("vp-linear", "eps"), ("flow", "velocity")])
def test_training_learns(tmp_path, path, prediction):
    flat = torch.linspace(0, 255, 16).to(torch.uint8)[:, None, None, None].expand(16, 3, 8, 8).contiguous()
    data = ImageDataset("flat", "train", flat, torch.zeros(16, dtype=torch.int64))
    train(recipe(path=path, prediction=prediction, images=960, batch=16), data, tmp_path)
    losses = [float(row[2]) for row in log(tmp_path)]
    assert sum(losses[-20:]) < 0.7 * sum(losses[:20])


@pytest.mark.parametrize("prediction", ["eps", "x0", "velocity", "v"])
@pytest.mark.parametrize("path", ["vp-linear", "flow"])
def test_the_loss_is_zero_for_the_true_answer(path, prediction):
    """A network that knows the data's only image can recover eps, hence every target."""
    the_recipe, image = recipe(path=path, prediction=prediction), torch.linspace(-1, 1, 192).reshape(1, 3, 8, 8)

    def knowing(x, labels):
        out = []
        for row, label in zip(x.double(), labels.double(), strict=True):
            t = float(label) / the_recipe.time_scale
            eps = (row - the_recipe.noise_path.alpha(t) * image[0]) / the_recipe.noise_path.sigma(t)
            p, r = weights(the_recipe.noise_path, t, prediction)
            out.append(p * image[0] + r * eps)
        return torch.stack(out)

    torch.manual_seed(1)
    assert regression_loss(knowing, image.expand(16, -1, -1, -1), the_recipe).max() < 1e-5


@pytest.mark.parametrize("times", ["uniform", "logit-normal"])
def test_times_have_their_distribution(times):
    torch.manual_seed(0)
    drawn = torch.tensor(draw_times(20_000, recipe(times=times, path="flow")))
    assert 0 <= drawn.min() <= drawn.max() <= 0.999
    below = (drawn[:, None] < 0.999 * torch.tensor([0.1, 0.25, 0.5, 0.9])).double().mean(dim=0)
    logit = torch.tensor([0.1, 0.25, 0.5, 0.9]).logit()
    expected = torch.special.ndtr(logit) if times == "logit-normal" else logit.sigmoid()
    torch.testing.assert_close(below, expected.double(), atol=0.015, rtol=0)


def test_schedules():
    plan = recipe(images=1000, batch=10, warmup_images=100, decay=0.5, lr=1.0, ema_halflife_images=20)
    assert plan.lr_at(0) == pytest.approx(0.1)
    assert plan.lr_at(90) == plan.lr_at(490) == 1.0
    assert plan.lr_at(750) == pytest.approx(0.5)
    assert plan.lr_at(1000) == 0
    assert plan.ema_decay_at(0) == 0
    assert plan.ema_decay_at(200) == pytest.approx(0.5)
    assert plan.ema_decay_at(900) == pytest.approx(0.5**0.5)


def test_recipes_are_found_by_name():
    assert recipe_named("cifar10-tiny-vp").prediction == "v"
    assert all(name == the_recipe.id for name, the_recipe in RECIPES.items())
    with pytest.raises(ValueError, match="cifar10-tiny-vp, cifar10-tiny-flow"):
        recipe_named("cifar10-huge")


def test_a_classifier_is_trained_and_measured(tmp_path):
    colours = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]], dtype=torch.uint8)
    labels = torch.arange(64) % 4
    pixels = colours[labels][:, :, None, None].expand(64, 3, 32, 32).contiguous()
    data = ImageDataset("colours", "train", pixels, labels)
    small = {"num_classes": 4, "stem": 8, "widths": [8, 8, 8]}
    metadata = train_classifier(
        ClassifierRecipe(epochs=4, batch=16, lr=0.1, ema_halflife_images=32, network_args=small), data, data, tmp_path
    )
    network, told, _ = load_model(tmp_path / "cifar10-resnet.safetensors")
    assert told == metadata
    assert accuracy(network, data) == metadata.test_accuracy > 0.7
