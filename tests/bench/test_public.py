"""Public checkpoints in the benchmark: every form of a file from a card to a row."""

import gzip
import io
import json
import zipfile
from pathlib import Path

import pytest
import torch
from rich.console import Console

from fastsample.bench.cells import plan_cells
from fastsample.bench.learning.distillation import Distillation
from fastsample.bench.request import Request, RequestError
from fastsample.bench.sampling import Sampler
from fastsample.bench.sweep import run_sweep
from fastsample.models.catalogue import model_names, open_model
from fastsample.models.networks.registry import build_network
from fastsample.models.public.cards import card_named
from fastsample.results.store import Store
from fastsample.solvers.learned.shelf import add_table
from fastsample.solvers.spec import table_of

from ..cards import table
from ..command import command

DATA = Path(__file__).parents[1] / "data" / "checkpoints"
quiet = Console(quiet=True)


def golden(name):
    return gzip.decompress((DATA / f"{name}.gz").read_bytes())


INDEX = json.loads(golden("fmt_index.json"))


# Files of the published layouts at reduced width: (the card it is like, what the card says otherwise, the file).


def saved(value):
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def weights(network, config):
    """A network with random weights, none of them zero as at the start of training."""
    torch.manual_seed(0)
    built = build_network(network, config)
    with torch.no_grad():
        for parameter in built.parameters():
            if parameter.requires_grad and not parameter.any():
                parameter.normal_(std=0.02)
    return built.state_dict()


def network_of(like, **changes):
    network = card_named(like).network
    return network.name, {**network.config, **changes}


ADM = {"model_channels": 32, "channel_mult": [1, 2], "num_res_blocks": 1, "attention_resolutions": [2],
       "num_head_channels": 16}  # fmt: skip
SONG = {"img_resolution": 8, "model_channels": 8, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4]}
DD = {"ch": 32, "ch_mult": [1, 2], "num_res_blocks": 1, "resolution": 8, "attn_resolutions": []}
FIRST_STAGE = card_named("ldm-church").first_stage.config
DIT = {"input_size": 4, "hidden_size": 32, "depth": 1, "num_heads": 2, "num_classes": 5}


def edm():
    config = INDEX["fmt_edm_tiny.pkl"]["init_kwargs"]
    changes = {"network": {"config": config}, "labels": {"classes": 4}, "image_shape": [3, 8, 8]}
    return "edm-cifar10-cond-ve", changes, golden("fmt_edm_tiny.pkl")


def score_sde():
    config = INDEX["fmt_score_sde_tiny.pth"]["config"]
    changes = {"network": {"config": {"image_size": 8, "model": config["model"]}}, "image_shape": [3, 8, 8]}
    return "sde-ve-ncsnpp", changes, golden("fmt_score_sde_tiny.pth")


def ddim():
    config = INDEX["fmt_ddim_tiny.pth"]["config"]
    changes = {"network": {"config": {"image_size": 8, "model": config["model"]}}, "image_shape": [3, 8, 8]}
    return "ddim-celeba64", changes, golden("fmt_ddim_tiny.pth")


def shadowed(like):
    """Averages without names, as score_sde and RectifiedFlow keep them."""
    model = {"nf": 8, "ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": [4]}
    name, config = network_of(like, image_size=8)
    config["model"] = {**config["model"], **model}
    state = weights(name, config)
    trained = [key for key, parameter in build_network(name, config).named_parameters() if parameter.requires_grad]
    file = {
        "optimizer": {"state": {}, "param_groups": []},
        "model": {f"module.{key}": torch.zeros_like(value) for key, value in state.items()},
        "ema": {"decay": 0.999999, "num_updates": 9, "shadow_params": [state[key] for key in trained]},
        "step": 9,
    }
    changes = {"network": {"config": {"image_size": 8, "model": model}}, "image_shape": [3, 8, 8]}
    return like, changes, saved(file)


def rectified_flow():
    return shadowed("rf-cifar10-1")


def sub_vp():
    return shadowed("sde-subvp-ddpmpp")


def plain(like, config, wrap=lambda state: state, shape=(3, 8, 8), **changes):
    state = weights(*network_of(like, **config))
    return like, {"network": {"config": config}, "image_shape": list(shape), **changes}, saved(wrap(state))


def guided_diffusion():
    return plain("adm-imagenet64", {**ADM, "num_classes": 5}, labels={"classes": 5})


def torchcfm():
    config = {"dim": [3, 8, 8], "num_channels": 32, "channel_mult": [1, 2], "num_res_blocks": 1,
              "num_head_channels": 16, "attention_resolutions": "4"}  # fmt: skip

    def wrap(state):
        return {"net_model": {}, "ema_model": {f"module.{key}": value for key, value in state.items()}, "step": 400000}

    return plain("torchcfm-cifar10-otcfm", config, wrap)


def consistency_models():
    return plain("cm-edm-bedroom", ADM, lambda state: {k: v[..., None] if v.ndim == 3 else v for k, v in state.items()})


def diffusers():
    config = {"sample_size": 8, "layers_per_block": 1, "block_out_channels": [32, 64],
              "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
              "up_block_types": ["AttnUpBlock2D", "UpBlock2D"]}  # fmt: skip
    return plain("hf-ddpm-cifar10", config)


def rfpp():
    return plain("rfpp-cifar10", SONG)


def fast_ode():
    return plain("fast-ode-cifar10", SONG)


def latent_diffusion():
    """With its first stage in the same file, a Lightning checkpoint in a zip."""
    changed = {**ADM, "num_heads": 2, "num_head_channels": -1}
    unet = weights(*network_of("ldm-church", **changed))
    stage = weights("AutoencoderKL", {"embed_dim": 4, "ddconfig": {**FIRST_STAGE["ddconfig"], **DD}})
    state = {f"model.diffusion_model.{key}": torch.zeros_like(value) for key, value in unet.items()}
    state |= {f"model_ema.diffusion_model{key.replace('.', '')}": value for key, value in unet.items()}
    state |= {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(5)}
    state |= {f"first_stage_model.{key}": value for key, value in stage.items()}
    state |= {"betas": torch.zeros(5), "scale_factor": torch.tensor(0.2276)}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model.ckpt", saved({"state_dict": state, "callbacks": {}}))
    changes = {
        "member": "model.ckpt", "network": {"config": changed}, "first_stage": {"config": {"ddconfig": DD}},
        "image_shape": [3, 8, 8], "latent_shape": [4, 4, 4],
    }  # fmt: skip
    return "ldm-church", changes, file.getvalue()


def dit():
    return plain("dit-xl2-256", DIT, latent_shape=[4, 4, 4], labels={"classes": 5})


def sit():
    return plain("sit-xl2-256", DIT, latent_shape=[4, 4, 4], labels={"classes": 5})


def autoencoder():
    state = weights("AutoencoderKL", {"embed_dim": 4, "ddconfig": {**FIRST_STAGE["ddconfig"], **DD}})
    return "sd-vae-ft-ema", {"network": {"config": {"ddconfig": DD}}, "image_shape": [3, 8, 8]}, saved(state)


def classifier():
    config = {"image_size": 8, "model_channels": 32, "channel_mult": [1, 2], "num_res_blocks": 1,
              "attention_resolutions": [2], "num_head_channels": 16, "out_channels": 5}  # fmt: skip
    state = weights(*network_of("adm-imagenet64-classifier", **config))
    return "adm-imagenet64-classifier", {"network": {"config": config}, "image_shape": [3, 8, 8]}, saved(state)


FORMS = [edm, score_sde, sub_vp, ddim, rectified_flow, guided_diffusion, torchcfm, consistency_models, diffusers, rfpp,
         fast_ode, latent_diffusion]  # fmt: skip
TRANSFORMERS = [dit, sit]


def write_card(folder, server, *forms):
    """A file of cards, each with its own file on the server."""
    text = ""
    port = server.server_address[1]
    for form in forms:
        like, changes, server.files[f"/{form.__name__}"] = form()
        if form is guided_diffusion and classifier in forms:
            changes["classifier"] = f"{folder / 'cards.toml'}#classifier"
        if autoencoder in forms and "latent_shape" in changes:
            changes["first_stage"] = f"{folder / 'cards.toml'}#autoencoder"
        facts = {
            "like": like, "title": "reduced", "urls": [f"http://127.0.0.1:{port}/{form.__name__}"],
            "file": f"{form.__name__}.bin", "size_mb": 1, "sha256": "", "md5": "", **changes,
        }  # fmt: skip
        text += table(form.__name__.replace("_", "-"), facts)
    (folder / "cards.toml").write_text(text)
    return folder / "cards.toml"


def asked(tmp_path, card, **changes):
    facts = dict(model=str(card), solver="dpmpp-2m", nfe=4, samples=8, metrics=("psnr",), out=tmp_path / "store")
    return Request(**facts | changes)


def row_of(request):
    (row,) = Store(request.out, create=False).rows()
    return row


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_from_a_published_file_to_a_row(form, tmp_path, server, coarse):
    request = asked(tmp_path, write_card(tmp_path, server, form))
    assert run_sweep(request, quiet) == []
    path = f"/{form.__name__}"
    assert server.ranges == [(path, None), (path, f"bytes={len(server.files[path]) // 2}-")]
    row = row_of(request)
    assert (row.nfe, row.forwards, row.samples) == (4, 4, 8)
    assert row.metrics["psnr"] > 3
    assert ("labels" in row.protocol) == (form in (edm, guided_diffusion))
    (cell,), _ = plan_cells(request, ())
    assert cell.model.sha256 == row.checkpoint_sha256
    assert cell.model.decode(Sampler(torch.device("cpu")).sample(cell, [0])[0]).shape == (1, 3, 8, 8)
    assert len(server.ranges) == 2


@pytest.mark.parametrize("form", TRANSFORMERS, ids=lambda form: form.__name__)
def test_guided_transformers_with_a_first_stage_of_its_own(form, tmp_path, server, coarse):
    card = f"{write_card(tmp_path, server, form, autoencoder)}#{form.__name__}"
    request = asked(tmp_path, card, guidance=0.5, labels="balanced")
    assert run_sweep(request, quiet) == []
    assert [path for path, _ in server.ranges] == [f"/{form.__name__}"] * 2 + ["/autoencoder"] * 2
    row = row_of(request)
    assert (row.nfe, row.forwards) == (4, 8)
    assert row.metrics["psnr"] > 3
    assert row.protocol["labels"] == "i modulo the number of classes"
    run_sweep(asked(tmp_path, card, guidance=0.5), quiet)
    assert len(Store(request.out, create=False).rows()) == 2


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_model_guided_by_its_classifier(precision, tmp_path, server, coarse):
    card = f"{write_card(tmp_path, server, guided_diffusion, classifier)}#guided-diffusion"
    for scale in (0.0, 2.0):
        request = asked(tmp_path, card, classifier_scale=scale, precision=precision)
        assert run_sweep(request, quiet) == []
    plain, guided = Store(request.out, create=False).rows()
    assert [path for path, _ in server.ranges] == ["/guided_diffusion"] * 2 + ["/classifier"] * 2
    assert (plain.nfe, plain.forwards, plain.classifier_calls) == (4, 4, 0)
    assert (guided.nfe, guided.forwards, guided.classifier_calls) == (4, 4, 4)
    assert guided.protocol["classifier guidance"].endswith("scale 2")
    assert "classifier guidance" not in plain.protocol
    assert guided.metrics["psnr"] > 3
    assert guided.metrics["psnr"] != plain.metrics["psnr"]
    with pytest.raises(RequestError, match="exclude each other"):
        run_sweep(asked(tmp_path, card, classifier_scale=1.0, guidance=1.0), quiet)


def test_a_table_learned_without_a_classifier_is_anothers(tmp_path, server):
    card = f"{write_card(tmp_path, server, guided_diffusion, classifier)}#guided-diffusion"
    model = open_model(card)
    made_for = {"solver": "bns", "model": model.id, "model_sha256": model.sha256}
    add_table(table_of("dpmpp-2m", model, 4).model_copy(update=made_for))
    (plain,), _ = plan_cells(asked(tmp_path, card, solver="bns"), ())
    guided = asked(tmp_path, card, solver="bns", classifier_scale=2.0)
    with pytest.raises(ValueError, match=r"no table for this model and guidance, but for guided-diffusion .*--trans"):
        plan_cells(guided, ())
    (cell,), _ = plan_cells(guided.model_copy(update={"transfer": True}), ())
    assert (plain.options, cell.options) == ({}, {"transfer": "guided-diffusion"})
    with pytest.raises(ValueError, match=r"without a classifier, and .*#classifier .* scale 2 guides the model"):
        Distillation(cell.model, Sampler(torch.device("cpu"))).run("bns", 4)


def test_an_extractor_that_cannot_take_the_images_is_left_out_with_the_reason(tmp_path, server, coarse):
    request = asked(tmp_path, write_card(tmp_path, server, ddim), metrics=("psnr", "fd"))
    console = Console(file=io.StringIO(), width=200)
    assert run_sweep(request, console) == []
    assert "means nothing on images of 8x8" in console.file.getvalue()
    row = row_of(request)
    assert "psnr" in row.metrics
    assert not any(name.startswith(("fd", "features", "extractor")) for name in (*row.metrics, *row.protocol))


def test_a_file_given_by_hand(tmp_path, server, coarse):
    card = write_card(tmp_path, server, ddim)
    (tmp_path / "mine.pth").write_bytes(server.files["/ddim"])
    request = asked(tmp_path, card, checkpoint=tmp_path / "mine.pth")
    assert run_sweep(request, quiet) == []
    assert server.ranges == []
    with pytest.raises(RequestError, match="one --model with --checkpoint"):
        plan_cells(asked(tmp_path, card, model=("gmm2d", str(card)), checkpoint=tmp_path / "mine.pth"), ())
    with pytest.raises(ValueError, match="gmm2d is none"):
        plan_cells(asked(tmp_path, "gmm2d", checkpoint=tmp_path / "mine.pth"), ())


def test_what_a_card_says_decides_its_rows(tmp_path, server):
    file = write_card(tmp_path, server, ddim)
    text = file.read_text()
    found = set()
    for changes in ("", "note = 'x'", "path = {beta_last = 0.03}"):
        file.write_text(f"{text}{changes}\n")
        (cell,), _ = plan_cells(asked(tmp_path, file), ())
        found.add(cell.model.conditions)
    assert len(found) == 2


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("adm-imagenet64-classifier", "a classifier that guides others"),
        ("sd-vae-ft-ema", "first stage of latent models"),
        ("edm-cifar10", "did you mean"),
    ],
)
def test_models_that_cannot_be_sampled_are_told_before_a_download(name, told):
    with pytest.raises(ValueError, match=told):
        open_model(name)


@pytest.mark.parametrize("name", ["adm-bedroom", "gmm2d"])
def test_models_without_a_classifier_say_so_before_a_download(name):
    with pytest.raises(ValueError, match=f"{name} has no classifier"):
        open_model(name, classifier_scale=1.0)


def test_all_models_are_listed():
    names = model_names()
    assert {"gmm2d", "cifar10-tiny-vp", "edm-cifar10-uncond-vp", "sit-xl2-256"} <= {*names}
    assert "223 MB" in names["edm-cifar10-uncond-vp"]


def test_the_commands_of_public_models(tmp_path):
    code, told, _ = command("models", "info", "edm-cifar10-uncond-vp")
    assert code == 0
    assert "non-commercial" in told
    assert command("models", "fetch", "sde-vp-ddpmpp", "--checkpoint", tmp_path / "none.pth").code == 2
    for words in (("models", "fetch"), ("bench", "--out", tmp_path / "store", "--model")):
        code, _, told = command(*words, "sde-vp-ddpmpp")
        assert code == 2
        assert "only be fetched in a browser" in told
