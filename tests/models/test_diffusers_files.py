"""Folders and repositories of pipelines that are refused, each in a sentence; schedules; the hub."""

import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
    LCMScheduler,
    ScoreSdeVePipeline,
    ScoreSdeVeScheduler,
)

from fastsample.bench.protocol import open_under
from fastsample.bench.request import read_request
from fastsample.models.catalogue import open_model
from fastsample.solvers.spec import Spec

from ..command import command
from ..pipelines import saved, unet


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept")
    return {name: saved(name, folder / name)[1] for name in ("ddpm", "sd1")}


def copied(folder, tmp_path):
    target = tmp_path / folder.name
    for file in folder.rglob("*"):
        if file.is_file():
            (target / file.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
            (target / file.relative_to(folder)).write_bytes(file.read_bytes())
    return target


def changed(file, **facts):
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | facts), "utf-8")


def pickled(folder):
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.rename(file.with_suffix(".bin"))


def without(part):
    return lambda folder: (folder / part).unlink()


def index(**facts):
    return lambda folder: changed(folder / "model_index.json", **facts)


def scheduler(**facts):
    return lambda folder: changed(folder / "scheduler" / "scheduler_config.json", **facts)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (pickled, "has the weights of its unet as a pickle, which may run code; save them as safetensors"),
        (without("unet/diffusion_pytorch_model.safetensors"), "has the weights of its unet not as safetensors"),
        (without("model_index.json"), "is no pipeline: it has no model_index.json"),
        (without("scheduler/scheduler_config.json"), "scheduler_config.json cannot be read: No such file"),
        (index(_class_name="MyPipeline"), "is a MyPipeline, which is not known here; known: DDPMPipeline,"),
        (index(_class_name=["mine", "MyPipeline"]), "is a ['mine', 'MyPipeline'], which is not known here"),
        (index(unet=["my_unet", "MyUNet"]), "its unet is ['my_unet', 'MyUNet'], and no class of diffusers"),
        (index(unet=["diffusers", "UNet1DModel"]), "its unet is a UNet1DModel; known: UNet2DModel"),
        (index(scheduler=["diffusers", "LCMScheduler"]), "its scheduler is a LCMScheduler, and what its network"),
        (scheduler(prediction_type="noise"), "unknown prediction_type 'noise'; known: epsilon, sample, v_prediction,"),
        (lambda folder: (folder / "model_index.json").write_text("[1", "utf-8"), "model_index.json is no JSON"),
    ],
)  # fmt: skip
def test_what_is_not_known_or_not_harmless_is_refused(change, told, kept, tmp_path):
    folder = copied(kept["ddpm"], tmp_path)
    change(folder)
    ended = command("bench", "--model", f"diffusers:{folder}", "--solver", "ddim", "--out", tmp_path / "store")
    assert ended.code == 2
    assert told in " ".join(ended.err.split())


@pytest.mark.parametrize(
    ("name", "words", "told"),
    [
        ("ddpm", ["--prompts", "FILE"], "takes no text: leave --prompts and --negative out"),
        ("ddpm", ["--cfg", "2"], "has no classes, which classifier-free guidance needs"),
        ("ddpm", ["--tiling"], "is a model of pixels and decodes nothing: leave --tiling out"),
        ("ddpm", ["--size", "16"], "images of DDPM are 8x8: leave --size out"),
        ("sd1", ["--negative", "fog"], "a negative prompt does nothing without guidance: give --cfg S too"),
        ("sd1", ["--embedded-guidance", "2"], "has no embedded guidance: leave --embedded-guidance out"),
        ("sd1", ["--size", "15"], "--size 15: sides of images of SD1 are multiples of 2"),
        ("sd1", ["--size", "big"], "--size is SIDE or WIDTHxHEIGHT in pixels, as 512 or 768x512, not 'big'"),
        ("sd1", ["--prompts", "EMPTY"], "has no prompt; it has one a line"),
        ("sd1", ["--prompts", "WIDE"], "it is UTF-16 text; save it as UTF-8"),
        ("sd1", ["--prompts", "no-such-file"], "--prompts: no-such-file cannot be read: No such file"),
        ("sd1", ["--labels", "64"], "its classes are 0 to 63, and 64 is none of them"),
        (None, ["--prompts", "FILE"], "cifar10-tiny-vp is no diffusers pipeline: leave --prompts, --negative,"),
    ],
)  # fmt: skip
def test_what_a_pipeline_has_no_use_for_is_refused(name, words, told, kept, tmp_path):
    files = {"FILE": b"a boat", "EMPTY": b" \n\n", "WIDE": "a boat".encode("utf-16")}
    for one, content in files.items():
        (tmp_path / one).write_bytes(content)
    model = f"diffusers:{kept[name]}" if name else "cifar10-tiny-vp"
    words = [str(tmp_path / word) if word in files else word for word in words]
    ended = command("bench", "--model", model, "--solver", "ddim", "--out", tmp_path / "store", *words)
    assert ended.code == 2
    said = " ".join(ended.err.split())
    for one, folder in kept.items():
        told = told.replace(f"of {one.upper()} are", f"of diffusers:{folder} are")
    assert told in said


def test_a_folder_has_no_revision_and_other_words_are_no_repository(kept):
    with pytest.raises(ValueError, match=r"is a folder and has no revision: leave @main out"):
        open_model(f"diffusers:{kept['ddpm']}@main")
    with pytest.raises(ValueError, match=r"'/no/such/folder' is neither a folder nor a repository of the hub"):
        open_model("diffusers:/no/such/folder")


def test_without_the_extra_a_sentence_says_what_to_install(kept, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ValueError, match=r"this model needs diffusers: pip install diffusers transformers"):
        open_model(f"diffusers:{kept['ddpm']}")


def test_the_hash_is_of_the_files_that_are_used(kept, tmp_path):
    folder = copied(kept["ddpm"], tmp_path)
    one = open_model(f"diffusers:{kept['ddpm']}").sha256
    (folder / "README.md").write_text("words", "utf-8")
    assert open_model(f"diffusers:{folder}").sha256 == one
    changed(folder / "scheduler" / "scheduler_config.json", beta_end=0.03)
    assert open_model(f"diffusers:{folder}").sha256 != one


def opened(scheduler, tmp_path, kind=DDPMPipeline, **more):
    torch.manual_seed(0)
    kind(unet(**more), scheduler).save_pretrained(tmp_path)
    return open_model(f"diffusers:{tmp_path}")


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("more", [{}, {"out_channels": 6}])
@torch.no_grad()
def test_predictions_of_betas(prediction, more, tmp_path):
    """x0 is what the scheduler itself makes of the output, also of a network with a learned variance."""
    scheduler = DDIMScheduler(clip_sample=False, prediction_type=prediction)
    model = opened(scheduler, tmp_path, **more)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    out = model.network.network(x, 500).sample[:, :3]
    scheduler.set_timesteps(10)
    theirs = scheduler.step(out, 500, x).pred_original_sample
    torch.testing.assert_close(model.make(model.network, None, 0.0, None).x0(x, 0.501), theirs, rtol=1e-4, atol=1e-4)


def test_a_terminal_snr_of_zero(tmp_path):
    betas = dict(clip_sample=False, rescale_betas_zero_snr=True)
    path = opened(DDIMScheduler(prediction_type="v_prediction", **betas), tmp_path / "v").path
    assert (path.t_noise, path.alpha(1.0)) == (1.0, 0.0)
    path = opened(DDIMScheduler(**betas), tmp_path / "eps").path
    assert 0.9 < path.t_noise < 1.0, "eps says nothing at alpha = 0"


def test_fewer_noise_levels_and_the_cosine_schedule(tmp_path):
    model = opened(DDPMScheduler(100, clip_sample=False), tmp_path / "few")
    assert (model.path.t_data, model.convention.label(0.01), model.convention.label(1.0)) == (0.01, 0.0, 99.0)
    cosine = opened(DDPMScheduler(beta_schedule="squaredcos_cap_v2", clip_sample=False), tmp_path / "cosine").path
    assert cosine.lam(cosine.t_noise) == pytest.approx(-5.1)


@torch.no_grad()
def test_a_flow_of_pixels(tmp_path):
    model = opened(FlowMatchEulerDiscreteScheduler(shift=2.0), tmp_path)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    out = model.network.network(x, 300).sample
    torch.testing.assert_close(model.make(model.network, None, 0.0, None).velocity(x, 0.7), -out, rtol=1e-4, atol=1e-5)
    assert "--grid shift:s=2" in model.title


@torch.no_grad()
def test_a_score_of_the_ve_path(tmp_path):
    """The network takes sigma and returns the score; images are in [0, 1]."""
    scheduler = ScoreSdeVeScheduler(sigma_min=0.02, sigma_max=50.0)
    model = opened(scheduler, tmp_path, ScoreSdeVePipeline, time_embedding_type="fourier")
    assert (model.path.name, model.path.t_noise, model.path.t_data, model.path.prior_std) == ("edm", 50.0, 0.02, 50.0)
    x = 3 * torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    score = model.network.network(x, torch.full((2,), 3.0)).sample
    torch.testing.assert_close(
        model.make(model.network, None, 0.0, None).x0(x, 3.0), x + 9 * score, rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(model.decode(torch.tensor([0.0, 0.5, 1.0])), torch.tensor([-1.0, 0.0, 1.0]))
    ended = command("export", "--solver", "ddim", "--nfe", 3, "--model", f"diffusers:{tmp_path}", "--to", "diffusers")
    assert ended.code == 2
    assert "no scheduler plays tables in it" in " ".join(ended.err.split())


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@torch.no_grad()
def test_preconditioning_of_edm(prediction, tmp_path):
    """Euler on the scheduler's own sigmas is its own loop."""
    scheduler = EDMEulerScheduler(
        sigma_min=0.01, sigma_max=20.0, prediction_type=prediction, final_sigmas_type="sigma_min"
    )
    model = opened(scheduler, tmp_path / "model")
    scheduler.set_timesteps(5)
    noise = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    x = 20.0 * noise
    for t in scheduler.timesteps[:4]:
        x = scheduler.step(model.network.network(scheduler.scale_model_input(x, t), t).sample, t, x).prev_sample
    (tmp_path / "times.txt").write_text("\n".join(map(str, scheduler.sigmas[:5].tolist())), "utf-8")
    under = open_under(f"diffusers:{tmp_path / 'model'}", read_request(None, sigma_min=0.01))
    plan = Spec.parse(f"ddim@file:{tmp_path / 'times.txt'}").plan(under.path, 4)
    ours = plan(under.make(under.network, None, 0.0, None), 20.0 * noise)
    assert (ours - x).abs().max() <= 1e-5 * x.abs().max()


def test_no_consistency_model(tmp_path):
    DDPMPipeline(unet(), LCMScheduler()).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="its scheduler is a LCMScheduler"):
        open_model(f"diffusers:{tmp_path}")


class Hub(http.server.BaseHTTPRequestHandler):
    """The part of the Hugging Face hub that a snapshot asks for, with one repository me/tiny of one commit."""

    def do_GET(self):
        path = self.path.partition("?")[0]
        self.server.asked.append(path)
        files = {file.relative_to(self.server.folder).as_posix(): file for file in self.server.folder.rglob("*.*")}
        if path.startswith("/api/models/me/tiny"):
            facts = {"id": "me/tiny", "sha": self.server.commit, "private": False, "tags": [],
                     "siblings": [{"rfilename": name} for name in files]}  # fmt: skip
            tree = [
                {"type": "file", "path": name, "size": file.stat().st_size, "oid": name} for name, file in files.items()
            ]
            return self.answer(json.dumps(tree if "/tree/" in path else facts).encode())
        name = path.partition(f"/me/tiny/resolve/{self.server.commit}/")[2]
        if name in files:
            return self.answer(files[name].read_bytes())
        return self.send_error(404)

    def do_HEAD(self):
        self.do_GET()

    def answer(self, content):
        self.send_response(200)
        for key, value in {
            "Content-Length": len(content), "ETag": f'"{hash(content) & 0xFFFFFFFF:08x}"',
            "X-Repo-Commit": self.server.commit, "Content-Type": "application/json",
        }.items():  # fmt: skip
            self.send_header(key, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_):
        pass


def test_a_repository_of_the_hub(kept, tmp_path):
    """Its revision is the commit in the name; files that are not used, pickles among them, are not fetched."""
    folder = copied(kept["ddpm"], tmp_path)
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"pickle")
    (folder / "pipeline.py").write_text("raise SystemExit", "utf-8")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.folder, server.commit, server.asked = folder, "0123456789abcdef0123456789abcdef01234567", []
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        code = (
            "from fastsample.models.foreign.diffusers_files import open_folder\n"
            "found = open_folder('diffusers:me/tiny'); print(found.id, found.sha256)"
        )
        environment = os.environ | {
            "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path / "hub"),
            "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1",
        }  # fmt: skip
        run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
        server.shutdown()
    assert run.returncode == 0, run.stderr
    name, sha256 = run.stdout.split()[-2:]
    assert name == f"diffusers:me/tiny@{server.commit}"
    assert sha256 == open_model(f"diffusers:{kept['ddpm']}").sha256
    assert not [path for path in server.asked if path.endswith((".bin", ".py"))]
    assert Path(tmp_path / "hub").is_dir()
