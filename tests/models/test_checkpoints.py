"""Round trips, refusals of damaged files, and the embedded models."""

import json
import os
import resource

import pytest
import torch
from safetensors.torch import save_file

from fastsample.datasets.home import sha256_of
from fastsample.models import checkpoints
from fastsample.models.checkpoints import (
    CheckpointError,
    DenoiserMetadata,
    embed_checkpoint,
    embedded_models,
    load_checkpoint,
    load_model,
    save_checkpoint,
)
from fastsample.models.networks.song_unet import SongUNet

ARGS = {"img_resolution": 8, "in_channels": 3, "out_channels": 3, "model_channels": 8, "channel_mult": [1, 2],
        "num_blocks": 1, "attn_resolutions": [4]}  # fmt: skip


def described(**changes):
    return DenoiserMetadata(
        **{
            "id": "toy",
            "title": "A toy",
            "network": "SongUNet",
            "network_args": ARGS,
            "image_shape": (3, 8, 8),
            "data": "none",
            "data_sha256": "00",
            "images_seen": 5,
            "ema_halflife_images": 2.5,
            "optimizer": {"lr": 0.1},
            "loss": "regression_loss",
            "precision": "float32",
            "path": "vp-linear",
            "prediction": "eps",
            "time_scale": 1000.0,
            "times": "uniform",
            **changes,
        }
    )


@pytest.fixture
def weights():
    torch.manual_seed(0)
    return SongUNet(**ARGS).state_dict()


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_round_trip(weights, storage, tmp_path):
    path, metadata = tmp_path / "toy.safetensors", described(storage=storage)
    save_checkpoint(path, weights, metadata)
    back, told = load_checkpoint(path)
    assert told == metadata
    assert [file.name for file in tmp_path.iterdir()] == ["toy.safetensors"]
    assert set(back) == set(weights)
    for name, tensor in weights.items():
        assert back[name].dtype == torch.float32
        half = storage == "float16" and tensor.ndim >= 2 and name.endswith("weight")
        assert torch.equal(back[name], tensor.half().float() if half else tensor)
    again = tmp_path / "again.safetensors"
    save_checkpoint(again, back, told)
    assert again.read_bytes() == path.read_bytes()


def test_a_loaded_model_computes_what_was_saved(weights, tmp_path):
    path = tmp_path / "toy.safetensors"
    save_checkpoint(path, weights, described(storage="float32"))
    network, metadata, sha256 = load_model(path)
    assert sha256 == sha256_of(path)
    assert metadata.image_shape == (3, 8, 8)
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    original = SongUNet(**ARGS).eval()
    original.load_state_dict(weights)
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([0.5, 700.0])
    with torch.no_grad():
        assert torch.equal(network(x, t), original(x, t))


def test_values_that_are_not_finite_are_never_written_or_read(weights, tmp_path):
    path = tmp_path / "toy.safetensors"
    weights["out.weight"] = torch.full((2, 2), 1e6)  # overflows half precision
    with pytest.raises(CheckpointError, match=r"not finite in out\.weight"):
        save_checkpoint(path, weights, described())
    assert not path.exists()
    save_file({"a": torch.tensor([1.0, float("nan")])}, path, {"fastsample": described().model_dump_json()})
    with pytest.raises(CheckpointError, match="not finite in a"):
        load_checkpoint(path)


def test_an_unfinished_write_leaves_the_old_file(weights, tmp_path, monkeypatch):
    path = tmp_path / "toy.safetensors"
    save_checkpoint(path, weights, described())
    before = path.read_bytes()

    def full(_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(path, weights, described())
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["toy.safetensors"]


def test_damaged_and_foreign_files_are_refused(weights, tmp_path):
    path = tmp_path / "toy.safetensors"
    save_checkpoint(path, weights, described())
    whole = path.read_bytes()
    for content in (whole[:-50], whole[:5], b""):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="cannot be read"):
            load_checkpoint(path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(tmp_path / "absent.safetensors")
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="no fastsample metadata"):
        load_checkpoint(path)
    save_file({"a": torch.zeros(2)}, path, {"fastsample": '{"kind": "denoiser", "format": 2}'})
    with pytest.raises(CheckpointError, match="not valid"):
        load_checkpoint(path)


def test_tensors_must_fit_the_network(weights, tmp_path):
    path = tmp_path / "toy.safetensors"
    weights["extra"] = torch.zeros(1)
    weights["map_layer0.bias"] = torch.zeros(3)
    del weights["map_layer1.bias"]
    save_checkpoint(path, weights, described())
    with pytest.raises(CheckpointError) as error:
        load_model(path)
    told = str(error.value)
    assert "missing: map_layer1.bias; unexpected: extra; mis-shaped: map_layer0.bias (3,) for (32,)" in told
    save_checkpoint(path, weights, described(network_args={"size": 3}))
    with pytest.raises(CheckpointError, match="SongUNet refuses its configuration"):
        load_model(path)


def test_embedding_indexes_a_file_and_guards_it(weights, tmp_path, monkeypatch):
    source, folder = tmp_path / "toy.safetensors", tmp_path / "embedded"
    save_checkpoint(source, weights, described())
    monkeypatch.setattr(checkpoints, "_EMBEDDED", folder)
    assert embedded_models() == {}
    assert embed_checkpoint(source) == "toy"
    assert load_model("toy")[2] == embedded_models()["toy"]["sha256"] == sha256_of(source)
    save_checkpoint(folder / "toy.safetensors", weights, described(images_seen=6))
    with pytest.raises(CheckpointError, match="has changed"):
        load_model("toy")
    with pytest.raises(CheckpointError, match="embedded: toy"):
        load_model("toys")


@pytest.mark.parametrize("name", embedded_models())
def test_the_shipped_models_load(name):
    network, metadata, _ = load_model(name)
    assert metadata.id == name
    assert json.loads(metadata.model_dump_json())["network_args"] == metadata.network_args
    assert sum(p.numel() for p in network.parameters()) > 0


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model_channels": 1_024}, "does not fit its network: mis-shaped: "),
        ({"model_channels": 100_000}, "more than 4,000,000,000 parameters or 50,000"),
        ({"num_blocks": 1_000_000}, "more than 4,000,000,000 parameters or 50,000"),
        ({"num_blocks": 10**9}, "num_blocks is 1000000000, more than 1,048,576"),
        ({"channel_mult": [1, 10**18]}, "channel_mult is 1000000000000000000, more than"),
    ],
)
def test_a_network_of_absurd_width_is_refused_before_it_is_built(weights, changes, told, tmp_path):
    path = tmp_path / "wide.safetensors"
    save_checkpoint(path, weights, described(network_args=ARGS | changes))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=told):
        load_model(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB
