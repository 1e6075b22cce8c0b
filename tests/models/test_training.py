"""Training: exact resumption, the schedules, what is written, and that it learns."""

import csv
import io
import os
import re
import signal
import zipfile

import pytest
import torch

from fastsample.datasets.home import sha256_of
from fastsample.datasets.image_set import ImageDataset
from fastsample.models.checkpoints import CheckpointError, load_checkpoint, load_model
from fastsample.models.networks.registry import build_network
from fastsample.models.training.classifier import ClassifierRecipe, accuracy, train_classifier
from fastsample.models.training.recipe import RecipeError, read_recipe, recipes
from fastsample.models.training.state import preview, read_state
from fastsample.models.training.trainer import train

COLUMNS = ("step", "images", "loss", "penalty", "lr", "grad_norm")


def log(folder):
    with (folder / "log.csv").open(newline="") as file:
        return [tuple(row[name] for name in COLUMNS) for row in csv.DictReader(file)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_in_pieces_is_the_unbroken_run(toy, unet, learned, images, tmp_path, monkeypatch, number):
    recipe = toy(**unet, coupling=learned, ema_halflife_images=(20, 60), accumulate=2)
    whole = train(recipe, images, tmp_path / "whole")
    assert whole.finished
    assert whole.images_seen == 64

    signal_of, drawn = ImageDataset.signal, []

    def interrupted(self, index):
        drawn.append(index)
        if len(drawn) == 4:
            os.kill(os.getpid(), number)
        return signal_of(self, index)

    monkeypatch.setattr(ImageDataset, "signal", interrupted)
    before = signal.getsignal(number)
    first = train(recipe, images, tmp_path / "pieces")
    assert signal.getsignal(number) is before
    assert not first.finished
    assert first.images_seen == 32
    with (tmp_path / "pieces" / "log.csv").open("a") as file:  # as a crash after the last save leaves it
        file.write("5,40,nan,0,0,0,0\n")
    second = train(recipe, images, tmp_path / "pieces")
    assert second.finished
    assert len(log(tmp_path / "whole")) == 8
    assert log(tmp_path / "pieces") == log(tmp_path / "whole")
    for name in ("toy.safetensors", "toy-ema2.safetensors"):
        assert sha256_of(tmp_path / "pieces" / name) == sha256_of(tmp_path / "whole" / name)
    assert not list((tmp_path / "pieces").glob(".*"))


def test_a_time_limit_stops_a_run_that_goes_on_later(toy, images, tmp_path):
    lines = []
    assert train(toy(), images, tmp_path, max_minutes=0, tell=lines.append).images_seen == 8
    assert re.fullmatch(r"training toy: 8 of [\d,]+ images, loss \S+  \d+ images/s", lines[0])
    assert train(toy(images=16), images, tmp_path).finished
    network, metadata, _ = load_model(tmp_path / "toy.safetensors")
    assert (metadata.images_seen, metadata.data) == (16, "toy train")
    samples = preview(network, toy(), (2, 3, 8, 8), steps=3)
    assert samples.shape == (2, 3, 8, 8)
    assert samples.abs().max() <= 1
    assert (tmp_path / "samples.png").stat().st_size > 0


def test_another_run_is_not_resumed(toy, images, tmp_path):
    train(toy(images=8), images, tmp_path)
    with pytest.raises(CheckpointError, match="differs in prediction, lr"):
        train(toy(prediction="x0", lr=1e-4), images, tmp_path)
    other = ImageDataset("toy", "train", 255 - images.images, images.labels)
    with pytest.raises(CheckpointError, match="differs in data_sha256"):
        train(toy(), other, tmp_path)


def test_impossible_runs_are_refused(toy, learned, images, tmp_path):
    with pytest.raises(ValueError, match="fewer than one batch of 29"):
        train(toy(batch=29), images, tmp_path)
    with pytest.raises(RecipeError, match="parameters, and it says 7"):
        train(toy(parameters=7), images, tmp_path)
    with pytest.raises(RecipeError, match=r"the encoder ResidualMLP refuses its arguments: .*colour"):
        train(toy(coupling={**learned, "network_args": {"colour": 1}}), images, tmp_path)
    small = ImageDataset("small", "train", images.images[..., :4, :4], images.labels)
    with pytest.raises(RecipeError, match=r"small has samples \(3, 4, 4\), and the network of toy takes \(3, 8, 8\)"):
        train(toy(), small, tmp_path)
    with pytest.raises(CheckpointError, match="the teacher's file does not fit its network: missing"):
        train(toy(), images, tmp_path, start={})


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_what_was_saved(toy, images, tmp_path, monkeypatch):
    train(toy(images=8), images, tmp_path)
    saved = sha256_of(tmp_path / "state.pt")
    monkeypatch.setattr(ImageDataset, "signal", lambda self, index: self.images[index] * torch.nan)
    with pytest.raises(FloatingPointError, match="toy: the loss is nan at step 1"):
        train(toy(), images, tmp_path)
    assert sha256_of(tmp_path / "state.pt") == saved


@pytest.mark.parametrize(("path", "prediction"), [("vp-linear", "eps"), ("flow", "velocity")])
def test_training_learns(toy, tmp_path, path, prediction):
    flat = torch.linspace(0, 255, 16).to(torch.uint8)[:, None, None, None].expand(16, 3, 8, 8).contiguous()
    data = ImageDataset("flat", "train", flat, torch.zeros(16, dtype=torch.int64))
    wide = {**toy().network_args, "width": 256}
    train(toy(path=path, prediction=prediction, network_args=wide, images=1600, lr=4e-3, batch=16), data, tmp_path)
    losses = [float(row[2]) for row in log(tmp_path)]
    assert sum(losses[-20:]) < 0.7 * sum(losses[:20])


def test_training_begins_with_the_weights_that_are_given(toy, images, tmp_path):
    torch.manual_seed(5)
    start = build_network("ResidualMLP", toy().network_args).state_dict()
    recipe = toy(images=8, lr=1e-12, ema_halflife_images=(1e-3,))
    train(recipe, images, tmp_path, start=start)
    tensors, _ = load_checkpoint(tmp_path / "toy.safetensors")
    assert max(float((tensors[name] - start[name]).abs().max()) for name in start) < 2e-3  # they are stored as float16


def test_averages_keep_the_old_weights_for_their_half_life(toy, images, tmp_path):
    """Of a half-life far beyond the run the average stays at the start, of one far below it is the last step's."""
    torch.manual_seed(5)
    start = build_network("ResidualMLP", toy().network_args).state_dict()
    recipe = toy(images=32, lr=0.05, warmup_images=0, ema_ramp=0.0, ema_halflife_images=(1e-3, 1e12, 8.0))
    train(recipe, images, tmp_path, start=start)
    last = torch.load(tmp_path / "state.pt", weights_only=True)["objective"]
    moved = max(float((last[f"network.{name}"] - start[name]).abs().max()) for name in start)
    assert moved > 0.05
    averages = [load_checkpoint(tmp_path / f"toy{end}.safetensors")[0] for end in ("", "-ema2", "-ema3")]
    for name, tensor in start.items():
        torch.testing.assert_close(averages[0][name].float(), last[f"network.{name}"], rtol=2e-3, atol=2e-3)
        torch.testing.assert_close(averages[1][name].float(), tensor, rtol=2e-3, atol=2e-3)
    assert any(
        (averages[2][name] - other).abs().max() > 0.01 for name in start for other in (start[name], averages[0][name])
    )


def test_each_epoch_is_a_new_permutation(toy, images, tmp_path, monkeypatch):
    signal_of, drawn = ImageDataset.signal, []

    def recorded(self, index):
        drawn.append(index.tolist())
        return signal_of(self, index)

    monkeypatch.setattr(ImageDataset, "signal", recorded)
    train(toy(images=8 * 12), images, tmp_path)
    epochs = [[k for batch in drawn[i : i + 3] for k in batch] for i in range(0, 12, 3)]  # 3 batches of 28 images
    assert all(len(set(epoch)) == 24 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert {i for epoch in epochs for i in epoch} == set(range(28))  # what one epoch leaves out, others draw


def test_micro_batches_make_the_batch(toy, images, tmp_path):
    for parts in (1, 4):
        train(toy(accumulate=parts, images=24), images, tmp_path / str(parts))
    for whole, split in zip(log(tmp_path / "1"), log(tmp_path / "4"), strict=True):
        assert [float(v) for v in split] == pytest.approx([float(v) for v in whole], rel=2e-3)


def test_classes_are_one_hot_rows(toy, unet, images, tmp_path):
    unet["network_args"] = {**unet["network_args"], "label_dim": 10}
    recipe = toy(**unet, classes=10, images=16)
    train(recipe, images, tmp_path)
    network, metadata, _ = load_model(tmp_path / "toy.safetensors")
    assert metadata.num_classes == 10
    x, t, labels = torch.randn(10, 3, 8, 8), torch.full((10,), 0.5), torch.eye(10)
    assert (network(x, t, labels) - network(x, t, labels.roll(1, 0))).abs().max() > 0


@pytest.mark.parametrize(("precision", "told"), [("bf16", "bfloat16"), ("fp16", "float16 autocast with loss scaling")])
def test_half_precision(toy, images, tmp_path, precision, told):
    train(toy(images=16, lr=0.01, precision=precision), images, tmp_path / precision)
    train(toy(images=16, lr=0.01, precision="float32"), images, tmp_path / "whole")
    _, metadata = load_checkpoint(tmp_path / precision / "toy.safetensors")
    assert metadata.precision.startswith(told)
    half, whole = (float(log(tmp_path / name)[1][2]) for name in (precision, "whole"))
    assert half == pytest.approx(whole, rel=0.02)
    assert half != whole
    scaler = torch.load(tmp_path / precision / "state.pt", weights_only=True)["scaler"]
    assert scaler.get("scale") == (2.0**15 if precision == "fp16" else None)


def test_schedules(toy):
    plan = toy(images=1000, batch=10, warmup_images=100, decay=0.5, lr=1.0, ema_halflife_images=(20,))
    assert plan.lr_at(0) == pytest.approx(0.1)
    assert plan.lr_at(90) == plan.lr_at(490) == 1.0
    assert plan.lr_at(750) == pytest.approx(0.5)
    assert plan.lr_at(1000) == 0
    assert plan.ema_decay_at(0, 20) == 0
    assert plan.ema_decay_at(200, 20) == pytest.approx(0.5)
    assert plan.ema_decay_at(900, 20) == pytest.approx(0.5**0.5)
    cosine = plan.model_copy(update={"schedule": "cosine"})
    assert [cosine.lr_at(seen) for seen in (0, 100, 550, 1000)] == pytest.approx([0.1, 1.0, 0.5, 0.0])
    constant = plan.model_copy(update={"schedule": "constant", "ema_ramp": 0.0})
    assert [constant.lr_at(seen) for seen in (0, 500, 1000)] == pytest.approx([0.1, 1.0, 1.0])
    assert constant.ema_decay_at(0, 20) == pytest.approx(0.5**0.5)


def test_recipes_are_found_by_name():
    assert read_recipe("cifar10-tiny-vp").prediction == "v"
    assert all(name == recipe.id for name, recipe in recipes().items())
    with pytest.raises(RecipeError, match="did you mean cifar10-tiny-"):
        read_recipe("cifar10-tiny")


OWN = """
like = "rfpp-cifar10"
title = "My own"
images = 1024
[times]
kind = "uniform"
[network_args.network_args]
img_resolution = 8
in_channels = 3
out_channels = 3
"""


def test_a_recipe_of_ones_own_takes_over_what_it_does_not_say(tmp_path):
    (tmp_path / "mine.toml").write_text(OWN)
    mine, like = read_recipe(str(tmp_path / "mine.toml")), read_recipe("rfpp-cifar10")
    assert (mine.id, mine.images, mine.times.kind) == ("mine", 1024, "uniform")
    assert (mine.coupling, mine.loss, mine.lr) == (like.coupling, like.loss, like.lr)
    assert mine.network_args["prediction"] == "edm-F"
    assert mine.network_args["network_args"]["img_resolution"] == 8


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a = [", "not a TOML file"),
        (OWN.replace("rfpp-cifar10", "nobody"), "`like` names 'nobody', which is no shipped recipe"),
        (OWN.replace('"uniform"', '"sometimes"'), "times"),
        (OWN.replace('"uniform"', '"uniform"\na = 3.0'), "times.uniform.a: Extra inputs"),
        (OWN.replace("images = 1024", "images = 0"), "images: Input should be greater than 0"),
        (OWN.replace("images = 1024", "colour = 1"), "colour: Extra inputs"),
        (OWN.replace("images = 1024", "flip = true"), "pairs cannot be flipped"),
        (OWN.replace("images = 1024", "accumulate = 3"), "a batch of 512 cannot be split into 3 equal parts"),
        (OWN.replace("rfpp-cifar10", "fast-ode-cifar10").replace('"uniform"', '"at-noise"'), "needs the coupling"),
        (OWN + "[coupling]\nreal = 0.5\n", "real and real_count go together"),
        (OWN + "[coupling]\nreal = 0.5\nreal_count = 9\n", None),
        (OWN.replace("images = 1024", "classes = 5") + "[coupling]\nreal = 0.5\nreal_count = 9\n", "without classes"),
    ],
)
def test_a_wrong_recipe_is_told(tmp_path, text, told):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    if told is None:
        assert read_recipe(str(file)).coupling.real_count == 9
        return
    with pytest.raises(RecipeError, match=told):
        read_recipe(str(file))


@pytest.mark.parametrize(
    ("network", "args"),
    [
        ("CifarResNet", {"num_classes": 4, "stem": 8, "widths": [8, 8, 8]}),
        ("ConvClassifier", {"num_classes": 4, "widths": [8, 8], "features": 16}),
    ],
)
def test_a_classifier_is_trained_and_measured(tmp_path, network, args):
    colours = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]], dtype=torch.uint8)
    labels = torch.arange(64) % 4
    pixels = colours[labels][:, :, None, None].expand(64, 3, 32, 32).contiguous()
    data = ImageDataset("colours", "train", pixels, labels)
    recipe = ClassifierRecipe(
        title="Colours", epochs=4, batch=16, lr=0.1, ema_halflife_images=32, network=network, network_args=args
    )
    before = torch.get_rng_state()
    metadata = train_classifier("colours", recipe, data, data, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    trained, told, _ = load_model(tmp_path / "colours.safetensors")
    assert told == metadata
    assert accuracy(trained, data) == metadata.test_accuracy > 0.7


def test_a_damaged_state_is_named_and_the_run_begins_anew(toy, images, flips, tmp_path, capsys):
    train(toy(images=16), images, tmp_path / "whole")
    train(toy(images=8), images, tmp_path / "run")
    state = tmp_path / "run" / "state.pt"
    found = known = 0
    step = read_state(tmp_path / "run")["step"]
    for _ in flips(state, 8 * state.stat().st_size // 150):
        if read := read_state(tmp_path / "run"):
            known += read["step"] == step
        else:
            found += capsys.readouterr().err.count(f"{state} is damaged")
            assert (tmp_path / "run" / "state.damaged.pt").is_file()
            assert not state.exists()
    assert (found > 140, found + known) == (True, 151)
    state.write_bytes((tmp_path / "run" / "state.damaged.pt").read_bytes())
    assert train(toy(images=16), images, tmp_path / "run").finished
    assert capsys.readouterr().err.count("state.pt is damaged") == 1
    assert sha256_of(tmp_path / "run" / "toy.safetensors") == sha256_of(tmp_path / "whole" / "toy.safetensors")
    assert log(tmp_path / "run") == log(tmp_path / "whole")


def test_a_state_that_claims_more_than_its_bytes_is_not_read(toy, images, tmp_path, capsys):
    """As those of checkpoints: nothing is unpacked, and tensors that share their values are not multiplied."""
    train(toy(images=8), images, tmp_path)
    file = tmp_path / "state.pt"
    state = torch.load(file, weights_only=True)
    packed = io.BytesIO()
    with zipfile.ZipFile(file) as stored, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for record in stored.infolist():
            archive.writestr(record.filename, stored.read(record))
    shared = io.BytesIO()
    torch.save(state | {"objective": dict.fromkeys(map(str, range(100)), torch.zeros(50_000))}, shared)
    for content, told in ((packed, "torch.save does not compress"), (shared, "claim more than twice its bytes")):
        file.write_bytes(content.getvalue())
        assert read_state(tmp_path) is None
        assert told in capsys.readouterr().err
