"""Pipelines of diffusers, small and with random weights, as models: opened from disk, sampled, and sampled there."""

import json
import math

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

from fastsample.bench.cells import plan_cells
from fastsample.bench.learning import distillation
from fastsample.bench.protocol import open_under
from fastsample.bench.request import read_request
from fastsample.bench.sampling import Sampler
from fastsample.models.foreign.diffusers_network import packed
from fastsample.models.noise import labels
from fastsample.results.store import Store
from fastsample.solvers.exports.diffusers import TableScheduler
from fastsample.solvers.solver import solvers

from ..command import command
from ..pipelines import NAMES, SD_BETAS, saved

WORDS = ["a red apple", "two dogs", "a boat"]
# Those that run on every model: what needs a predictor of its features does not.
DETERMINISTIC = [name for name, solver in solvers().items() if not (solver.stochastic or solver.predicted)]
OPTIONS = {"dpm-solver-v3": "statistics=data"} | dict.fromkeys(
    ("dopri5", "dpm-adaptive", "dpm-adaptive-k"), "rtol=0.5,atol=0.5"
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """(pipeline, folder) by name, made at the first need."""
    made = {}

    def folder(name):
        if name not in made:
            made[name] = saved(name, tmp_path_factory.mktemp(name))
        return made[name]

    return folder


@pytest.fixture
def prompts(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join(WORDS) + "\n", "utf-8")
    return str(file)


@torch.inference_mode()
def sampled(folder, solver, nfe, **asked):
    """Two samples by `solver`, as `bench` makes them, their noise, and what the noise decodes to."""
    asked = read_request(None, model=(f"diffusers:{folder}",), solver=(solver,), nfe=nfe, samples=2, **asked)
    (cell,), _ = plan_cells(asked, ())
    sampler = Sampler(torch.device("cpu"))
    noise = sampler.start(cell, [0, 1])
    return sampler.sample(cell, [0, 1])[0], noise, sampler.images(cell, noise)


def times(tmp_path, values):
    file = tmp_path / "times.txt"
    file.write_text("\n".join(f"{value:.17g}" for value in values), "utf-8")
    return f"file:{file}"


def agree(ours, theirs, tolerance=1e-5):
    assert torch.isfinite(theirs).all()
    error = (ours - theirs).abs().max() / theirs.abs().max()
    assert error <= tolerance, f"{error:.1e}"


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_every_deterministic_solver_runs_on_every_pipeline(name, folders, prompts):
    """Six evaluations each; the adaptive one as many as it needs."""
    asked = {"prompts": prompts} if name not in ("ddpm", "dit") else {}
    asked |= {"cfg": 3.0} if name != "ddpm" else {}
    names = tuple(f"{name}:{OPTIONS[name]}" if name in OPTIONS else name for name in DETERMINISTIC)
    request = read_request(None, model=(f"diffusers:{folders(name)[1]}",), solver=names, nfe=6, samples=2, **asked)
    cells, skipped = plan_cells(request, ())
    assert not skipped
    assert {cell.plan.solver.name for cell in cells} == {*DETERMINISTIC}
    sampler = Sampler(torch.device("cpu"))
    for cell in cells:
        x, (nfe,), (calls,) = sampler.sample(cell, [0])
        images = sampler.images(cell, x)
        assert images.shape == (1, *cell.model.image_shape)
        assert calls == nfe * (2 if name != "ddpm" else 1)
        assert nfe <= 6 or cell.plan.solver.adaptive
        assert nfe >= 4, cell


def pipeline_latents(pipeline, noise, steps, **more):
    return pipeline(
        prompt=WORDS[:2], num_inference_steps=steps, latents=noise, output_type="latent", guidance_scale=3.0, height=16,
        width=16, **more,
    ).images  # fmt: skip


def flux_latents(pipeline, noise, steps, **more):
    return pipeline(
        prompt=WORDS[:2], true_cfg_scale=3.0, num_inference_steps=steps, height=16, width=16, latents=packed(noise),
        output_type="latent", **{"negative_prompt": ["", ""]} | more,
    ).images  # fmt: skip


@pytest.mark.parametrize("negative", ["", "grey fog"])
def test_ddim_agrees_with_the_scheduler_of_diffusers(negative, folders, prompts, tmp_path):
    """Table entries from the last to clean data; Stable Diffusion with guidance and a negative prompt."""
    pipeline, folder = folders("sd1")
    pipeline.scheduler = DDIMScheduler(**SD_BETAS | {"steps_offset": 0}, set_alpha_to_one=True)
    ours, noise, _ = sampled(folder, "ddim@integer-uniform", 5, prompts=prompts, cfg=3.0, negative=negative)
    agree(ours, pipeline_latents(pipeline, noise, 5, negative_prompt=[negative] * 2 if negative else None))
    pipeline.scheduler = DDIMScheduler(**SD_BETAS, set_alpha_to_one=True, timestep_spacing="trailing")
    grid = times(tmp_path, [1, 0.8, 0.6, 0.4, 0.2, 0])
    ours, noise, _ = sampled(folder, f"ddim@{grid}", 5, prompts=prompts, cfg=3.0, negative=negative, t_end=0.0)
    agree(ours, pipeline_latents(pipeline, noise, 5, negative_prompt=[negative] * 2 if negative else None))


def test_euler_of_betas_agrees(folders, prompts, tmp_path):
    """It is DDIM; with trailing times its first state is sigma times the noise, which is divided out here."""
    pipeline, folder = folders("sdxl")
    betas = {key: value for key, value in SD_BETAS.items() if key != "clip_sample"}
    pipeline.scheduler = EulerDiscreteScheduler(**betas, timestep_spacing="trailing")
    grid = times(tmp_path, [1, 0.8, 0.6, 0.4, 0.2, 0])
    ours, noise, _ = sampled(folder, f"ddim@{grid}", 5, prompts=prompts, cfg=3.0, t_end=0.0)
    sigma = (1 - pipeline.scheduler.alphas_cumprod[-1]) ** 0.5
    agree(ours, pipeline_latents(pipeline, noise / sigma, 5))


def test_dpm_solver_pp_2m_agrees(folders, prompts, tmp_path):
    pipeline, folder = folders("sd1")
    betas = {key: SD_BETAS[key] for key in ("beta_schedule", "beta_start", "beta_end")}
    pipeline.scheduler = DPMSolverMultistepScheduler(
        **betas, timestep_spacing="trailing", final_sigmas_type="sigma_min"
    )
    grid = times(tmp_path, [1, 0.8, 0.6, 0.4, 0.2, 0.001])
    ours, noise, _ = sampled(folder, f"dpmpp-2m@{grid}", 5, prompts=prompts, cfg=3.0)
    agree(ours, pipeline_latents(pipeline, noise, 5))


def test_flow_euler_agrees(folders, prompts, tmp_path):
    """SD3 on the times of its own scheduler, with its shift; and Flux, whose times are the shifted grid."""
    pipeline, folder = folders("sd3")
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    pipeline.scheduler.set_timesteps(5)
    grid = times(tmp_path, (1 - pipeline.scheduler.sigmas.double()).tolist())
    ours, noise, _ = sampled(folder, f"euler@{grid}", 5, prompts=prompts, cfg=3.0, t_end=1.0)
    agree(ours, pipeline_latents(pipeline, noise, 5))

    pipeline, folder = folders("flux")
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    shift = math.exp(calculate_shift(16))  # of 16 tokens
    ours, noise, _ = sampled(
        folder, f"euler@shift:s={shift!r}", 5, prompts=prompts, cfg=3.0, t_end=1.0, embedded_guidance=2.5,
        negative="fog",
    )  # fmt: skip
    agree(packed(ours), flux_latents(pipeline, noise, 5, guidance_scale=2.5, negative_prompt=["fog"] * 2))


def test_decoding_is_the_pipelines(folders, prompts):
    """Its scale and shift of latents, for every latent pipeline; in tiles only where that is asked for."""
    for name in ("dit", "sd1", "sdxl", "sd3", "flux"):
        pipeline, folder = folders(name)
        _, latents, images = sampled(folder, "ddim", 2, **({"prompts": prompts} if name != "dit" else {}))
        config = pipeline.vae.config
        with torch.no_grad():
            theirs = pipeline.vae.decode(latents / config.scaling_factor + (config.shift_factor or 0)).sample
        torch.testing.assert_close(images, theirs)
    _, _, tiled = sampled(folder, "ddim", 2, prompts=prompts, tiling=True, size="64")
    _, _, whole = sampled(folder, "ddim", 2, prompts=prompts, size="64")
    assert tiled.shape == whole.shape == (2, 3, 64, 64)
    assert not torch.equal(tiled, whole)


@pytest.mark.parametrize("name", NAMES)
def test_the_exported_table_samples_the_very_pipeline(name, folders, prompts, tmp_path, monkeypatch):
    """The scheduler that `export` writes, inside the pipeline; the flow pipelines do not scale the noise themselves."""
    pipeline, folder = folders(name)
    asked = {"prompts": prompts} if name not in ("ddpm", "dit") else {}
    asked |= {"cfg": 3.0} if name != "ddpm" else {}
    code, _, told = command(
        "export", "--solver", "unipc:order=3", "--nfe", 5, "--model", f"diffusers:{folder}", "--to", "diffusers", "-o",
        tmp_path / "scheduler",
    )  # fmt: skip
    assert code == 0, told
    pipeline.scheduler = TableScheduler.from_pretrained(tmp_path / "scheduler")
    ours, noise, _ = sampled(folder, "unipc:order=3", 5, **asked)
    first = noise * pipeline.scheduler.init_noise_sigma
    for module in ("ddpm.pipeline_ddpm", "dit.pipeline_dit"):  # the noise of these two is drawn inside
        monkeypatch.setattr(f"diffusers.pipelines.{module}.randn_tensor", lambda *_, **__: first)
    if name in ("ddpm", "dit"):
        results, step = [], pipeline.scheduler.step
        monkeypatch.setattr(
            pipeline.scheduler, "step", lambda *given, **more: results.append(step(*given)) or results[-1]
        )
        run = (
            {"class_labels": labels(0, [0, 1], 1000).tolist(), "guidance_scale": 3.0}
            if name == "dit"
            else {"batch_size": 2}
        )
        pipeline(**run, num_inference_steps=5, output_type="np")
        agree(ours, results[-1].prev_sample[:2])  # DiT's batch is there twice, with the class and without
    elif name == "flux":
        agree(packed(ours), flux_latents(pipeline, first, 5))
    else:
        agree(ours, pipeline_latents(pipeline, first if name == "sd3" else noise, 5))


def test_a_learned_table_is_found_for_its_pipeline_and_its_guidance_alone(
    folders, prompts, tmp_path, coarse, monkeypatch
):
    monkeypatch.setattr(distillation, "BATCH", 8)
    model, other = (f"diffusers:{folders(name)[1]}" for name in ("sd3", "flux"))
    guided = ["--prompts", prompts, "--negative", "fog", "--guidance", 1]
    code, _, told = command(
        "distill", "times", "--model", model, "--nfe", 3, "--train", 32, "--validation", 32, "--steps", 1, "--initial",
        "euler", *guided,
    )  # fmt: skip
    assert code == 0, told
    play = ["bench", "--solver", "times", "--nfe", 3, "--samples", 2, "--metrics", "truncation"]
    assert command(*play, "--model", model, *guided, "--out", tmp_path / "store").code == 0
    (row,) = Store(tmp_path / "store").rows()
    assert (row.negative, row.protocol["guide"]) == ("fog", "negative prompt 'fog'")
    for asked in ([model, "--cfg", 2], [model, *guided[:2]], [other, *guided]):
        assert command(*play, "--model", *asked, "--out", tmp_path / "other").code == 2


def test_facts_of_the_row(folders, prompts, tmp_path, coarse):
    """Hashes of files and of prompts; the same prompts in another file are the same cell."""
    _, folder = folders("sd1")
    words = [
        "bench",
        "--model",
        f"diffusers:{folder}",
        "--solver",
        "ddim",
        "--nfe",
        2,
        "--samples",
        4,
        "--metrics",
        "psnr",
    ]
    assert command(*words, "--prompts", prompts, "--out", tmp_path / "store").code == 0
    (tmp_path / "again.txt").write_text("\n".join(WORDS), "utf-8")
    assert command(*words, "--prompts", tmp_path / "again.txt", "--out", tmp_path / "store").code == 0
    (tmp_path / "other.txt").write_text("\n".join(WORDS[:2]), "utf-8")
    assert command(*words, "--prompts", tmp_path / "other.txt", "--out", tmp_path / "store").code == 0
    first, second = sorted(Store(tmp_path / "store").rows(), key=lambda row: row.protocol["prompts"])
    assert {first.protocol["prompts"][:9], second.protocol["prompts"][:9]} == {"2 prompts", "3 prompts"}
    assert first.labels == second.labels == "balanced"
    assert first.checkpoint_sha256 == second.checkpoint_sha256
    assert json.loads((folder / "model_index.json").read_text("utf-8"))["_class_name"] == "StableDiffusionPipeline"
    assert len(first.checkpoint_sha256) == 64


def test_models_are_opened_without_encoding(folders):
    model = open_under(f"diffusers:{folders('sd1')[1]}", read_request(None))
    assert len(model.prompts) == 64
    assert not model.network.texts.kept
    assert isinstance(folders("sd1")[0], DiffusionPipeline)
