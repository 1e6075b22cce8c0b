"""`fastsample train`: recipes to runs, weights to start from, and runs that are killed."""

import csv
import gzip
import io
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastsample.bench.cli.app import main
from fastsample.bench.learning.training import train_features, train_recipe
from fastsample.datasets.home import sha256_of
from fastsample.models.catalogue import open_model
from fastsample.models.checkpoints import CheckpointError
from fastsample.models.denoiser import NetworkDenoiser
from fastsample.models.networks.registry import build_network
from fastsample.models.path import LinearFlow
from fastsample.models.public.cards import card_named
from fastsample.models.training import pairs, state
from fastsample.models.training.recipe import RecipeError, changed, command_of, read_recipe, recipes
from fastsample.models.training.start import starting_weights
from fastsample.models.training.state import State
from fastsample.models.training.trainer import train

from ..command import command

DATA = Path(__file__).parents[1] / "data" / "checkpoints"
FLOW = """
title = "tiny"
dataset = "digits"
network = "ResidualMLP"
network_args = {img_resolution = 8, width = 16, blocks = 1}
images = 800
batch = 8
warmup_images = 160
ema_halflife_images = [100, 400]
flip = false
"""
LEARNED = """
[coupling]
kind = "learned"
beta = 5.0
network = "ResidualMLP"
network_args = {img_resolution = 8, out_channels = 2, width = 16, blocks = 1, time = false}
"""
PAIRS = """
[coupling]
kind = "pairs"
teacher = "TEACHER"
nfe = 5
count = 40
"""


def log(folder):
    with (folder / "log.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def written(folder, text, name="mine"):
    (folder / f"{name}.toml").write_text(text)
    return folder / f"{name}.toml"


def test_bad_requests_are_named(tmp_path):
    def refused(told, *words):
        ended = command("train", *words, "--out", tmp_path / "out")
        assert ended.code == 2
        assert told in " ".join(ended.err.split())

    refused("did you mean cifar10-tiny-", "flow", "cifar10-tiny")
    refused("train split of cifar10-jpeg was not found", "flow", "cifar10-tiny-vp", "--data", tmp_path / "none.npz")
    refused("is a recipe for `fastsample train curvature`", "flow", "fast-ode-cifar10")
    refused("is a recipe for `fastsample train reflow`", "curvature", "rfpp-cifar10")
    refused("should be greater than or equal to 1", "flow", "cifar10-tiny-vp", "--images", "0")
    refused("cannot be split into 3 equal parts", "flow", "cifar10-tiny-vp", "--accumulate", "3")
    refused("'auto', 'float32', 'bf16' or 'fp16'", "flow", "cifar10-tiny-vp", "--precision", "float8")
    refused("unknown model 'nobody'", "reflow", written(tmp_path, FLOW + PAIRS.replace("TEACHER", "nobody")))
    refused("did you mean cifar10-resnet", "classifier", "cifar10-resne")


def test_recipes_are_listed_with_their_commands(capsys):
    assert command("list", "recipes").code == 0
    said = capsys.readouterr().out
    assert all(recipe[:12] in said for recipe in recipes())
    kinds = {name: command_of(recipe) for name, recipe in recipes().items()}
    assert (kinds["cifar10-tiny-flow"], kinds["fast-ode-ffhq64"], kinds["rfpp-cifar10-distilled"]) == (
        "flow", "curvature", "reflow",
    )  # fmt: skip


def test_changes_of_a_recipe_are_checked():
    recipe = read_recipe("rfpp-cifar10")
    other = changed(recipe, {"batch": 4, "images": None, "coupling.teacher": "gmm2d", "start": ""})
    assert (other.batch, other.images, other.start, other.coupling.teacher) == (4, recipe.images, "", "gmm2d")
    assert other.coupling.count == recipe.coupling.count
    with pytest.raises(RecipeError, match="batch: Input should be greater than 0"):
        changed(recipe, {"batch": 0})


# Published files at reduced width: (card, what it says otherwise, network inside, its arguments).
SONG = {"img_resolution": 8, "model_channels": 8, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4]}
NCSN = {"embedding_type": "fourier", "encoder_type": "residual", "channel_mult_noise": 2,
        "resample_filter": [1, 3, 3, 1], "augment_dim": 9}  # fmt: skip
ADM = {"img_resolution": 8, "model_channels": 64, "channel_mult": [1], "num_blocks": 1, "attn_resolutions": [8],
       "label_dim": 5}  # fmt: skip
COLOURS = {"in_channels": 3, "out_channels": 3}


def edm():
    """EDM's own pickle."""
    index = json.loads(gzip.decompress((DATA / "fmt_index.json.gz").read_bytes()))["fmt_edm_tiny.pkl"]["init_kwargs"]
    raw = gzip.decompress((DATA / "fmt_edm_tiny.pkl.gz").read_bytes())
    inside = {**SONG, **NCSN, **COLOURS, "label_dim": 4}
    return "edm-cifar10-cond-ve", index, raw, 4, ("SongUNet", inside, "edm", "edm-F", 1.0), ""


def plain(like, changes, classes, inside):
    network = card_named(like).network
    torch.manual_seed(0)
    built = build_network(network.name, {**network.config, **changes})
    with torch.no_grad():
        for parameter in built.parameters():
            if parameter.abs().max() < 1e-3:  # as at the start of training
                parameter.normal_(std=0.05)
    file = io.BytesIO()
    torch.save(built.state_dict(), file)
    return like, changes, file.getvalue(), classes, inside, 'layout = "state-dict"\n'


def imagenet():
    return plain("edm-imagenet64", ADM, 5, ("DhariwalUNet", {**ADM, **COLOURS}, "edm", "edm-F", 1.0))


def vp():
    inside = ("SongUNet", {**SONG, **COLOURS}, "vp-linear", "eps", 999.0)
    return plain("edm-baseline-cifar10-vp", SONG, 0, inside)


def rfpp():
    return plain("rfpp-cifar10", SONG | NCSN, 0, ("SongUNet", SONG | NCSN | COLOURS, "edm", "edm-F", 1.0))


def published(form, folder, server):
    """(card, recipe that starts from it): the card's file is on the server."""
    like, changes, server.files["/file"], classes, (name, args, path, prediction, scale), layout = form()
    labels = f"labels = {{classes = {classes}}}\n" if classes else ""
    card = folder / "cards.toml"
    card.write_text(
        f'[{form.__name__}]\nlike = "{like}"\ntitle = "reduced"\nfile = "reduced.bin"\nsize_mb = 1\n{layout}{labels}'
        f'urls = ["http://127.0.0.1:{server.server_address[1]}/file"]\nimage_shape = [3, 8, 8]\n'
        + "".join(f"network.config.{key} = {json.dumps(value)}\n" for key, value in changes.items())
    )
    args = {"network": name, "network_args": args, "path": path, "prediction": prediction, "time_scale": scale}
    facts = {"network_args": args, "start": str(card), "coupling.teacher": str(card), "classes": classes,
             "parameters": 0, "perceptual": "cifar10-conv", "loss": "huber", "batch": 8}  # fmt: skip
    return str(card), changed(read_recipe("rfpp-cifar10"), facts)


@pytest.mark.parametrize("form", [edm, imagenet, vp, rfpp], ids=lambda form: form.__name__)
def test_a_network_begins_as_its_public_teacher(form, tmp_path, server):
    card, recipe = published(form, tmp_path, server)
    network = build_network(recipe.network, recipe.network_args)
    network.load_state_dict(starting_weights(recipe))
    model, classes = open_model(card), torch.arange(4) % max(1, recipe.classes)
    one_hot = torch.nn.functional.one_hot(classes, recipe.classes).float() if recipe.classes else None
    teacher = model.make(model.network, classes if recipe.classes else None, 0.0, None).on(LinearFlow())
    started = NetworkDenoiser(network.eval(), recipe.convention, labels=one_hot)
    torch.manual_seed(0)
    for t in (0.05, 0.2, 0.5, 0.8, 0.95):
        z = torch.randn(4, 3, 8, 8)
        with torch.no_grad():
            ours, theirs = started.velocity(z, t), teacher.velocity(z, t)
        assert (ours - theirs).abs().max() < 1e-5 * max(1, theirs.abs().max())
        assert theirs.abs().max() > 0.05


@pytest.mark.slow
def test_a_reflow_and_its_distillation_from_a_published_file(tmp_path, server, monkeypatch, capsys):
    monkeypatch.setattr(pairs, "SHARD", 16)
    _, recipe = published(edm, tmp_path, server)
    facts = {"images": 16, "lr": 1e-9, "coupling.count": 16, "coupling.nfe": 5, "coupling.solver": "edm-heun"}
    run = train_recipe(recipe := changed(recipe, facts), tmp_path / "first")
    assert run.finished
    assert open_model(str(run.checkpoint)).num_classes == 4
    # The run's own weights are those of the teacher, and a distillation starts from them.
    own = changed(recipe, {"start": str(run.checkpoint), "coupling.teacher": str(run.checkpoint),
                           "coupling.solver": "euler", "times": {"kind": "at-noise"}})  # fmt: skip
    for name, tensor in starting_weights(own).items():
        torch.testing.assert_close(tensor, starting_weights(recipe)[name], atol=1e-3, rtol=1e-3)  # stored as float16
    assert train_recipe(own, tmp_path / "second").finished
    assert len({row["loss"] for row in log(tmp_path / "second")}) == 2


@pytest.mark.parametrize(
    ("name", "start", "told"),
    [
        ("rfpp-cifar10", "cifar10-tiny-flow", "path is flow there and edm here; prediction is velocity there"),
        ("rfpp-cifar10", "edm-baseline-cifar10-vp", "path is vp-linear there and edm here"),
        ("rfpp-cifar10", "ddpm-cifar10", "path is vp-discrete there and edm here"),
        ("rfpp-cifar10", "cifar10-resnet", "holds a classifier"),
        ("cifar10-tiny-flow", "sd-vae-ft-ema", "returns image"),
        ("cifar10-tiny-flow", "cifar10-tiny-vp", "path is vp-linear there and flow here"),
        ("fast-ode-cifar10", "fast-ode-cifar10", "prediction is velocity in a form of its own there and velocity here"),
        ("fast-ode-cifar10", "torchcfm-cifar10-otcfm", "time_scale is 1.0 there and -1.0 here; time_shift"),
        ("cifar10-tiny-vp", "iddpm-cifar10", "path is a vp-discrete of its own there"),
    ],
)
def test_weights_that_mean_something_else_are_refused(name, start, told):
    recipe = changed(read_recipe(name), {"start": start})
    with pytest.raises(CheckpointError, match=told):
        starting_weights(recipe)


# Where a run is killed: right after so many calls. A fourth of the steps is saved.
KILLS = {
    "between a step and its row in the log": (State, "update", 18),
    "before the new state has its name": (torch, "save", 3),
    "before the weights are those of the state": (state, "save_checkpoint", 5),
}


def killed(words, owner, name, calls):
    """The command in a process of its own, killed right after so many calls of `owner.name`; False if it ended."""
    child = os.fork()
    if child == 0:
        called, save, counted = getattr(owner, name), State.save, itertools.count(1)

        def call(*given, **named):
            value = called(*given, **named)
            if next(counted) == calls:
                os.kill(os.getpid(), signal.SIGKILL)
            return value

        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            train.__wrapped__.__kwdefaults__["save_minutes"] = 0.0
            State.save = lambda run: save(run) if run.step % 4 == 0 else None
            setattr(owner, name, call)
            sys.argv = ["fastsample", *map(str, words)]
            main()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("kind", ["flow", "curvature", "reflow"])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(kind, tmp_path, monkeypatch):
    """SIGKILL at three places, each time the same command again: the losses and the weights of the unbroken run."""
    monkeypatch.setattr(pairs, "SHARD", 8)
    teacher = tmp_path / "teacher"
    if kind == "reflow":
        first = written(tmp_path, FLOW, "teacher")
        assert command("train", "flow", first, "--images", 80, "--out", teacher).code == 0
    text = FLOW + {"flow": "", "curvature": LEARNED, "reflow": PAIRS}[kind]
    file = written(tmp_path, text.replace("TEACHER", str(teacher / "teacher.safetensors")))
    words = ["train", kind, file, "--out"]
    assert command(*words, tmp_path / "whole").code == 0
    pieces, reached = tmp_path / "pieces", [0]
    for place, kill in KILLS.items():
        assert killed([*words, pieces], *kill), place
        reached.append(torch.load(pieces / "state.pt")["step"])
    assert reached == [0, 16, 24, 36]
    assert command(*words, pieces).code == 0
    assert len(log(tmp_path / "whole")) == 100
    assert log(pieces) == log(tmp_path / "whole")
    for name in ("mine.safetensors", "mine-ema2.safetensors"):
        assert sha256_of(pieces / name) == sha256_of(tmp_path / "whole" / name)


DISTRIBUTED = """
network = "Velocity"
time_scale = -1.0
time_shift = 1.0
accumulate = 2
images = 48
[network_args]
network = "SongUNet"
path = "edm"
prediction = "edm-F"
[network_args.network_args]
img_resolution = 8
in_channels = 1
out_channels = 1
augment_dim = 9
model_channels = 8
channel_mult = [1]
num_blocks = 1
attn_resolutions = []
dropout = 0.0
"""


@pytest.mark.slow
@pytest.mark.parametrize("coupling", ["", LEARNED])
def test_two_processes_train_as_one(coupling, tmp_path):
    kept = [line for line in FLOW.splitlines() if not line.startswith(("network", "images"))]
    file = written(tmp_path, "\n".join(kept) + DISTRIBUTED + coupling)
    words = ["-m", "fastsample.bench", "train", "curvature" if coupling else "flow", file, "--device", "cpu", "--out"]
    several = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for name, start in (("one", [sys.executable]), ("two", several)):
        subprocess.run([*map(str, [*start, *words, tmp_path / name])], check=True)
    one, two = log(tmp_path / "one"), log(tmp_path / "two")
    assert len(one) == len(two) == 6
    for a, b in zip(one, two, strict=True):
        assert [float(v) for v in b.values()] == pytest.approx([float(v) for v in a.values()], rel=2e-3, abs=1e-7)
        assert float(b["loss"]) == pytest.approx(float(a["loss"]), rel=1e-5)


def test_a_classifier_needs_its_name(tmp_path):
    with pytest.raises(ValueError, match="did you mean cifar10-conv"):
        train_features("cifar10-con", tmp_path)


def test_points_with_a_prior_of_their_own_are_refused(tmp_path):
    with pytest.raises(RecipeError, match="two_modes has a prior of its own"):
        train_recipe(read_recipe("gauss8-flow"), tmp_path, dataset="two_modes")
