"""Public checkpoints in the benchmark: every form of a file from a card to a row; and what the adapters compute."""

import gzip
import http.server
import io
import json
import math
import sys
import threading
import zipfile
import zlib
from http import HTTPStatus
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from fastsample.bench import reference
from fastsample.bench import run as job
from fastsample.bench.cells import plan_cells
from fastsample.bench.cli import main
from fastsample.bench.request import Request, RequestError
from fastsample.bench.sampling import Sampler
from fastsample.bench.sweep import run_sweep
from fastsample.models import download as downloads
from fastsample.models.catalogue import model_names, open_model
from fastsample.models.checkpoints import CheckpointError
from fastsample.models.networks.ddpm_unet import diffusers_name
from fastsample.models.networks.registry import build_network
from fastsample.models.public import card_named, cards
from fastsample.models.public_model import PublicModel, PublicNetwork, path_of
from fastsample.results.store import Store

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
              "down_block_types": ["DownBlock2D", "AttnDownBlock2D"]}  # fmt: skip
    return plain("hf-ddpm-cifar10", config, lambda state: {diffusers_name(k, 2): v.squeeze() for k, v in state.items()})


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


# A server on this machine that breaks the first connection of each file in the middle.


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        data, wanted = self.server.files[self.path], self.headers.get("Range")
        self.server.ranges.append((self.path, wanted))
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        self.send_response(HTTPStatus.PARTIAL_CONTENT if wanted else HTTPStatus.OK)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.send_header("ETag", '"1"')
        self.end_headers()
        self.wfile.write(data[start:] if wanted else data[: len(data) // 2])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(downloads, "sleep", lambda _: None)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.files, server.ranges = {}, []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def coarse(monkeypatch):
    """Reference solutions of few steps and few samples."""
    monkeypatch.setattr(reference, "NFE", 8)
    for module in (reference, job):
        monkeypatch.setattr(module, "BATCH", 8)
        monkeypatch.setattr(module, "PROBES", 2)


def toml(value):
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(one)}" for key, one in value.items()) + "}"
    return json.dumps(value)


def write_card(folder, server, *forms):
    """A file of cards, each with its own file on the server."""
    text = ""
    port = server.server_address[1]
    for form in forms:
        like, changes, server.files[f"/{form.__name__}"] = form()
        if form is guided_diffusion and classifier in forms:
            changes["classifier"] = f"{folder / 'cards.toml'}#classifier"
        if form in TRANSFORMERS:
            changes["first_stage"] = f"{folder / 'cards.toml'}#autoencoder"
        facts = {
            "like": like, "title": "reduced", "urls": [f"http://127.0.0.1:{port}/{form.__name__}"],
            "file": f"{form.__name__}.bin", "size_mb": 1, "sha256": "", "md5": "", **changes,
        }  # fmt: skip
        text += f"[{form.__name__.replace('_', '-')}]\n" + "".join(f"{k} = {toml(v)}\n" for k, v in facts.items())
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


def test_the_commands_of_public_models(tmp_path, monkeypatch, capsys):
    def command(*words):
        monkeypatch.setattr(sys, "argv", ["fastsample", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, "".join(capsys.readouterr())

    code, told = command("models", "info", "edm-cifar10-uncond-vp")
    assert code == 0
    assert "non-commercial" in told
    assert command("models", "fetch", "sde-vp-ddpmpp", "--checkpoint", tmp_path / "none.pth")[0] == 2
    for words in (("models", "fetch"), ("bench", "--out", tmp_path / "store", "--model")):
        code, told = command(*words, "sde-vp-ddpmpp")
        assert code == 2
        assert "only be fetched in a browser" in told


# What adapters compute, against the outputs of the original classes and the formulas of their families.

NETWORKS = Path(__file__).parents[1] / "data" / "networks"


def hashed(name, shape, scale=1.0):
    """The rule hash-v1 of the goldens: values that depend on the name alone."""
    h = np.arange(math.prod(shape), dtype=np.uint32) * np.uint32(0x9E3779B1) + np.uint32(zlib.crc32(name.encode()))
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        h = (h ^ (h >> np.uint32(shift))) * np.uint32(factor)
    return torch.from_numpy((scale * (2 * (h / 2**32) - 1)).astype(np.float32)).reshape(shape)


def hashed_weight(name, shape):
    last = name.rsplit(".", 1)[-1]
    if len(shape) >= 2:
        return hashed(name, shape, math.sqrt(3 / math.prod(shape[1:])))
    if not shape:
        return 0.5 + hashed(name, shape, 0.25)
    if last == "weight":
        return 1 + hashed(name, shape, 0.25)
    return hashed(name, shape, 1.0 if last in ("W", "freqs", "phases") else 0.1)


def original(name):
    """(golden, its network with the weights of its rule)."""
    told = json.loads(gzip.decompress((NETWORKS / f"arch_{name}.json.gz").read_bytes()))
    cls, config = told["class"], told["config"]
    if told["wrapper"]:
        cls, config = told["wrapper"]["class"], {**told["wrapper"]["config"], **config, "model_type": cls}
        config |= {key: float(config[key]) for key in ("sigma_min", "sigma_max") if key in config}
    network = build_network(cls, config).eval()
    state = network.state_dict()
    fixed = told["constructed"]
    network.load_state_dict({k: v if k in fixed else hashed_weight(k, tuple(v.shape)) for k, v in state.items()})
    return told, network


def adapted(name, network, labels=None, guidance=0.0, classes=0):
    """The denoiser of a network under the conventions of that card."""
    card = card_named(name)
    card = card.model_copy(update={"labels": card.labels.model_copy(update={"classes": classes})})
    model = PublicModel(card, PublicNetwork(card, network), path_of(card), "", "", classes)
    return model.denoiser(None, labels, guidance, None)


def assert_told(ours, told):
    flat, limit = ours.flatten(), 5e-4 * told["std"]
    assert list(ours.shape) == told["shape"]
    torch.testing.assert_close(flat[: len(told["first"])], torch.tensor(told["first"]), rtol=0, atol=limit)
    strided = flat[:: told["stride"]][: len(told["strided"])]
    torch.testing.assert_close(strided, torch.tensor(told["strided"]), rtol=0, atol=limit)


def each(predict, x, times, *labels):
    """The predictions of the samples of a batch, each at its own time of the path, and with its own label."""
    with torch.no_grad():
        return torch.cat(
            [predict(x[i : i + 1], float(times[i]), *(y[i : i + 1] for y in labels)) for i in range(len(x))]
        )


@pytest.mark.parametrize(
    ("name", "card"),
    [
        ("edm_precond_edm_ddpmpp", "edm-cifar10-cond-vp"),
        ("edm_precond_vp_ddpmpp", "edm-baseline-cifar10-vp"),
        ("edm_precond_ve_ncsnpp", "edm-baseline-cifar10-ve"),
        ("edm_precond_iddpm_adm", "edm-baseline-imagenet64"),
        ("edm2_a", "edm2-img64-s"),
    ],
)
def test_denoised_images_of_the_edm_families(name, card):
    told, network = original(name)
    classes = (told["wrapper"] or told)["config"].get("label_dim", told["config"].get("label_dim"))
    for case in (case for case in told["cases"] if not (case.get("class_zero") or case.get("augment"))):
        x = hashed(case["x"]["name"], case["x"]["shape"], case["x"]["scale"])
        labels = [torch.tensor(case["class_index"]).expand(len(x))] if "class_index" in case else []

        def x0(one, sigma, label=None):
            denoiser = adapted(card, network, label, classes=classes or 0)
            denoised, eps = denoiser.x0(one, sigma), denoiser.eps(one, sigma)
            torch.testing.assert_close(one - sigma * eps, denoised, rtol=1e-4, atol=1e-4 * (1 + sigma))
            return denoised

        assert_told(each(x0, x, case["sigma"], *labels), case["outputs"]["D"])


@pytest.mark.parametrize(
    ("name", "card"),
    [
        ("sde_ddpmpp_vp_cont", "sde-vp-ddpmpp"),
        ("sde_ddpm_vp_disc", "sde-vp-ddpm"),
        ("sde_ncsnpp_ve_cont", "sde-ve-ncsnpp"),
        ("sde_ncsnpp_ve_disc", "sde-ve-ncsnpp-disc"),
    ],
)
def test_scores_of_the_score_sde_families(name, card):
    """score = -eps / sigma, with the original's sigma."""
    told, network = original(name)
    denoiser = adapted(card, network)
    compared = 0
    for case in (case for case in told["cases"] if "score" in case["outputs"]):
        x = hashed(case["x"]["name"], case["x"]["shape"], case["x"]["scale"]) + case.get("shift", 0.0)
        t, labels = torch.tensor(case["t"], dtype=torch.float64), torch.tensor(case["labels_seen"])
        if card.endswith("disc"):
            times = sigma = network.sigmas[labels.long()]
        elif card == "sde-ve-ncsnpp":
            times = sigma = 0.01 * 5000**t
        elif card == "sde-vp-ddpm":
            kept = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
            times, sigma = (labels.double() + 1) / 1000, (1 - kept[labels.long()]).sqrt()
        else:
            times, sigma = t, torch.tensor([denoiser.path.sigma(float(one)) for one in t])
        score = -each(denoiser.eps, x, times) / sigma.float().reshape(-1, 1, 1, 1)
        assert_told(score, case["outputs"]["score"])
        compared += 1
    assert compared


def test_discrete_ve_networks_get_whole_noise_levels():
    _, network = original("sde_ncsnpp_ve_disc")
    x = hashed("x", (1, 3, 8, 8))
    between = float((network.sigmas[500].log() + 0.4 * (network.sigmas[501] / network.sigmas[500]).log()).exp())
    with torch.no_grad():
        eps = -network.sigmas[500].float() * network(x, torch.tensor([500]))
        torch.testing.assert_close(adapted("sde-ve-ncsnpp-disc", network).eps(x, between), eps, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "card", "key", "sign"),
    [
        ("rf_ddpmpp_cifar", "rf-cifar10-1", "time_cond", 1),
        ("rf_ncsnpp_256", "rf-celebahq256", "time_cond", 1),
        ("torchcfm_a", "torchcfm-cifar10-otcfm", "timesteps", 1),
        ("fastode_songunet", "fast-ode-cifar10", "t", -1),
        ("rfpp_edmprecondvel_ncsnpp", "rfpp-cifar10", "t", -1),
    ],
)
def test_velocities_point_from_noise_to_data(name, card, key, sign):
    """t = 0 is noise; codes with the other direction have 1 - t and the other sign."""
    told, network = original(name)
    denoiser = adapted(card, network)
    scale = card_named(card).time.scale
    for case in told["cases"]:
        x, seen = hashed(case["x"]["name"], case["x"]["shape"], case["x"]["scale"]), torch.tensor(case[key]).double()
        (output,) = case["outputs"].values()
        times = seen / scale if sign > 0 else 1 - seen
        assert_told(sign * each(denoiser.velocity, x, times), output)


@pytest.mark.parametrize(
    ("name", "card"),
    [("iddpm_cifar_a", "iddpm-cifar10"), ("adm_gd_cond_neworder", "adm-imagenet64"), ("ddim_a", "ddim-celeba64"),
     ("ldm_unet_uncond_headch", "ldm-celebahq256")],
)  # fmt: skip
def test_noise_of_discrete_models(name, card):
    """At t = (j + 1) / N the network gets index j of the table; its variances are dropped."""
    told, network = original(name)
    case, table = told["cases"][0], card_named(card).path
    x = hashed(case["x"]["name"], case["x"]["shape"], case["x"]["scale"])
    labels = torch.tensor(case["y"]) if "y" in case else None
    denoiser = adapted(card, network, labels, classes=told["config"].get("num_classes") or 0)
    index = torch.tensor(400)
    label = (index * (0.25 if table.steps == 4000 else 1.0)).expand(len(x)).float()
    with torch.no_grad():
        eps = network(x, label, *([] if labels is None else [labels]))[:, : x.shape[1]]
        t = (400 + 1) / table.steps
        torch.testing.assert_close(denoiser.eps(x, t), eps, rtol=1e-4, atol=1e-4)
        kept = (1 - torch.tensor(table.betas(), dtype=torch.float64)).cumprod(0)[400]
        x0 = (x - (1 - kept).sqrt() * eps) / kept.sqrt()
        torch.testing.assert_close(denoiser.x0(x, t), x0.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "card"), [("dit_a", "dit-xl2-256"), ("sit_a", "sit-xl2-256")])
def test_guidance_of_transformers_is_the_published_one(name, card):
    told, network = original(name)
    classes = told["config"]["num_classes"]
    y = torch.tensor([1, 2])
    x = hashed("latents", (2, told["config"]["in_channels"], *[told["config"]["input_size"]] * 2))
    denoiser = adapted(card, network, y, 0.5, classes)
    both, t = torch.cat([y, torch.full_like(y, classes)]), 0.4
    time = 1000 * t - 1 if card.startswith("dit") else t
    with torch.no_grad():
        expected = network.forward_with_cfg(torch.cat([x, x]), torch.full((4,), time), both, 1.5)[:2, :4]
        ours = denoiser.eps(x, t) if card.startswith("dit") else denoiser.velocity(x, t)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    assert (denoiser.nfe, denoiser.forwards) == (1, 2)


@pytest.mark.parametrize("name", ["adm-imagenet64", "adm-imagenet256-uncond"])
def test_classifiers_guide_as_published(name):
    """eps - s sigma grad log p(y | x, t), with the gradient of the original class, in inference mode as in bench."""
    _, network = original("adm_gd_cond_neworder" if name == "adm-imagenet64" else "adm_gd_uncond_a")
    told, classifier = original("adm_classifier_a")
    card, scale = card_named(name), 100.0
    both = PublicNetwork(card, network, classifier=classifier.requires_grad_(False))
    model = PublicModel(card, both, path_of(card), "", "", 10, scale)
    for case in told["cases"]:
        x, y = hashed(case["x"]["name"], case["x"]["shape"], case["x"]["scale"]), torch.tensor(case["y"])
        times, change = (torch.tensor(case["timesteps"], dtype=torch.float64) + 1) / 1000, []
        with torch.inference_mode():
            for i, t in enumerate(times.tolist()):
                one, label = x[i : i + 1].clone(), y[i : i + 1].clone()
                guided = model.denoiser(None, label, 0.0, None)
                plain = network(one, torch.tensor([1000 * t - 1]), *([label] if card.labels.classes else []))[:, :3]
                change.append((plain - guided.eps(one, t)) / (scale * model.path.sigma(t)))
                assert (guided.nfe, guided.forwards, guided.classifier_calls) == (1, 1, 1)
        assert_told(torch.cat(change), case["outputs"]["gradient"])


def test_one_guidance_excludes_the_other():
    card = card_named("dit-xl2-256")
    model = PublicModel(card, PublicNetwork(card, nn.Identity()), path_of(card), "", "", 1000, 1.0)
    with pytest.raises(CheckpointError, match="exclude each other"):
        model.denoiser(None, torch.tensor([0]), 1.0, None)


def test_the_raw_network_of_edm():
    """consistency_models keeps the preconditioning outside of the network: label 250 ln(sigma)."""

    class Network(nn.Module):
        def forward(self, x, label):
            return 0.1 * x + label.reshape(-1, 1, 1, 1)

    x, sigma = hashed("x", (2, 3, 4, 4)), 3.0
    total = sigma**2 + 0.25
    raw = 0.1 * x / math.sqrt(total) + 250 * math.log(sigma)
    expected = 0.25 / total * x + sigma * 0.5 / math.sqrt(total) * raw
    torch.testing.assert_close(adapted("cm-edm-bedroom", Network()).x0(x, sigma), expected)


def test_only_networks_trained_without_labels_are_guided():
    with pytest.raises(CheckpointError, match="not trained without labels"):
        adapted("edm-cifar10-cond-vp", nn.Identity(), torch.tensor([0]), 1.0, 10)


def test_samples_in_the_unit_interval_become_images():
    x = torch.tensor([[0.0, 0.5, 1.0]])
    decode = PublicNetwork(card_named("sde-ve-ncsnpp"), nn.Identity()).decode
    assert decode(x).tolist() == [[-1.0, 0.0, 1.0]]


def test_latents_are_unscaled_before_they_are_decoded():
    class FirstStage(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def decode(self, z):
            return self.weight * z

    mean, std = torch.tensor([5.81, 3.25, 0.12, -2.15]), torch.tensor([4.17, 4.62, 3.71, 3.28])
    raw = mean.reshape(4, 1, 1) + std.reshape(4, 1, 1) * hashed("x", (11, 4, 2, 2))
    seen = (raw - mean.reshape(4, 1, 1)) * 0.5 / std.reshape(4, 1, 1)
    for name, samples, scale in (("edm2-img512-s", seen, None), ("ldm-church", 0.2276 * raw, 0.2276)):
        decode = PublicNetwork(card_named(name), nn.Identity(), FirstStage(), scale).decode
        torch.testing.assert_close(decode(samples), raw)


@pytest.mark.parametrize("name", [name for name, card in cards().items() if card.path])
def test_every_card_has_a_path_that_can_be_integrated(name):
    path = path_of(card_named(name))
    assert path.lam(path.t_finite) >= -7
    assert path.lam(path.t_data) > 2
