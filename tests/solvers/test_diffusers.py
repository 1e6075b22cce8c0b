"""TableScheduler inside real pipelines of diffusers, with small random weights."""

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDPMPipeline,
    DiTPipeline,
    DiTTransformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
    UNet2DModel,
)

from fastsample.models.analytic import ring_mixture
from fastsample.models.convention import Convention
from fastsample.models.denoiser import NetworkDenoiser
from fastsample.models.path import DiscreteVP, Edm, LinearFlow, VPLinear
from fastsample.solvers.exports.diffusers import TableScheduler
from fastsample.solvers.learned.fit import fit
from fastsample.solvers.learned.pairs import Pairs
from fastsample.solvers.learned.parameters import coordinate_of, non_stationary
from fastsample.solvers.proofs.claims import start
from fastsample.solvers.solver import get
from fastsample.solvers.spec import Spec
from fastsample.solvers.table import play, trace
from fastsample.solvers.table_file import TableFile

DDPM, FLOW = DiscreteVP.ddpm(), LinearFlow()
SOLVERS = ["heun", "dpm-solver-3", "unipc:order=3", "scire:order=3", "flow-solver:order=3", "bns"]


def traced(text, path, nfe=6):
    spec = Spec.parse(text)
    table = trace(spec.plan(path, nfe), coordinate_of(path))
    return TableFile.of(table, path, solver=spec.name, title=spec.name, paper="")


@pytest.fixture(scope="module")
def trained():
    """BNS of four evaluations, trained on the plane's mixture, for either path."""

    def learn(path):
        denoiser, x = ring_mixture(path), start(64)
        y = get("rk4").plan(path, 200)(denoiser, x)
        pairs = Pairs(x, y, lambda index: denoiser, 4.0)
        first = trace(get("euler").plan(path, 4), coordinate_of(path))
        family = non_stationary(first)
        *_, state = fit(family, pairs, pairs, iterations=4)
        table = family.table(state.best)
        assert pairs.psnr(table).mean() > pairs.psnr(first).mean() + 5
        return TableFile.of(table, path, solver="bns", title="BNS", paper="2403.01329")

    return {path.name: learn(path) for path in (DDPM, FLOW)}


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=8, in_channels=3, out_channels=3, block_out_channels=(8, 16), norm_num_groups=4, layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    ).eval()  # fmt: skip


class Network(torch.nn.Module):
    """A pipeline's network as ours: float32 at the outside, called at float32 timesteps in its own precision."""

    def __init__(self, call, dtype=torch.float32):
        super().__init__()
        self.call, self.dtype = call, dtype

    def forward(self, x, times):
        return self.call(x.to(self.dtype), times).to(x.dtype)


def results(scheduler):
    """What `step` returns, recorded."""
    seen, step = [], scheduler.step

    def spy(*given, return_dict=True, **named):
        seen.append(step(*given, return_dict=False, **named)[0])
        return type("Output", (), {"prev_sample": seen[-1]}) if return_dict else (seen[-1],)

    scheduler.step = spy
    return seen


def ddpm(unet, scheduler, dtype=torch.float32):
    """(result of the pipeline, its starting noise, its images) for two images."""
    pipe = DDPMPipeline(unet.to(dtype), scheduler)
    pipe.set_progress_bar_config(disable=True)
    seen = results(pipe.scheduler)
    images = pipe(2, torch.Generator().manual_seed(1), len(scheduler.timesteps), "pt", return_dict=False)[0]
    noise = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=dtype)
    return seen[-1], noise, images


def agree(result, expected):
    assert torch.isfinite(expected).all()
    torch.testing.assert_close(result, expected, rtol=0, atol=2e-5 * max(1.0, float(expected.abs().max())))


@pytest.mark.parametrize("solver", SOLVERS)
@torch.no_grad()
def test_ddpm_pipeline_agrees_with_play(solver, unet, trained):
    file = trained["vp-discrete"] if solver == "bns" else traced(solver, DDPM)
    result, noise, images = ddpm(unet, TableScheduler(file))
    network = Network(lambda x, times: unet(x, times).sample)
    expected = play(file.table, NetworkDenoiser(network, Convention(DDPM, "eps", 1000, -1)), noise)
    agree(result, expected)
    torch.testing.assert_close(images, (result / 2 + 0.5).clamp(0, 1), rtol=0, atol=0)


@pytest.mark.parametrize(("theirs", "ours"), [("v_prediction", "v"), ("sample", "x0")])
@torch.no_grad()
def test_other_predictions(theirs, ours, unet):
    file = traced("dpmpp-2m", DDPM)
    result, noise, _ = ddpm(unet, TableScheduler(file, theirs))
    network = Network(lambda x, times: unet(x, times).sample)
    agree(result, play(file.table, NetworkDenoiser(network, Convention(DDPM, ours, 1000, -1)), noise))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_half_precision_keeps_its_state_in_float32(dtype, unet):
    file = traced("unipc:order=3", DDPM)
    scheduler = TableScheduler(file)
    result, noise, _ = ddpm(unet, scheduler, dtype)
    network = Network(lambda x, times: unet(x, times).sample, dtype)
    denoiser = NetworkDenoiser(network, Convention(DDPM, "eps", 1000, -1))
    expected = play(file.table, denoiser, noise.float())
    assert result.dtype == dtype
    torch.testing.assert_close(result, expected.to(dtype), rtol=2 * torch.finfo(dtype).eps, atol=1e-4)
    unet.float()


@torch.no_grad()
def test_latent_pipeline_with_guidance():
    """DiT: class labels, classifier-free guidance over twice the batch, a decoder."""
    torch.manual_seed(0)
    transformer = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=1, sample_size=4,
        patch_size=2, num_embeds_ada_norm=1000,
    ).eval()  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, norm_num_groups=4,
    ).eval()  # fmt: skip
    file = traced("dpm-solver-3", DDPM)
    pipe = DiTPipeline(transformer, vae, TableScheduler(file))
    pipe.set_progress_bar_config(disable=True)
    made = pipe([3, 7], 2.5, torch.Generator().manual_seed(1), num_inference_steps=6, output_type="np").images
    noise = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(1))

    def guided(x, times):
        with_class = transformer(x, timestep=times, class_labels=torch.tensor([3, 7])).sample[:, :4]
        without = transformer(x, timestep=times, class_labels=torch.tensor([1000, 1000])).sample[:, :4]
        return without + 2.5 * (with_class - without)

    denoiser = NetworkDenoiser(Network(guided), Convention(DDPM, "eps", 1000, -1))
    latents = play(file.table, denoiser, noise) / vae.config.scaling_factor
    images = (vae.decode(latents).sample / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    np.testing.assert_allclose(made, images.numpy(), atol=1e-4)


@pytest.fixture(scope="module")
def flux():
    torch.manual_seed(0)
    return FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, pooled_projection_dim=16, axes_dims_rope=(4, 4, 8),
    ).eval()  # fmt: skip


@pytest.mark.parametrize("solver", SOLVERS)
@torch.no_grad()
def test_flow_matching_pipeline_agrees_with_play(solver, flux, trained):
    file = trained["flow"] if solver == "bns" else traced(solver, FLOW)
    scheduler = TableScheduler(file)
    pipe = FluxPipeline(scheduler, None, None, None, None, None, flux)
    pipe.set_progress_bar_config(disable=True)
    draw = torch.Generator().manual_seed(2)
    noise = torch.randn(2, 4, 16, generator=draw)  # 2 x 2 packed patches
    text, pooled = torch.randn(2, 3, 16, generator=draw), torch.randn(2, 16, generator=draw)
    made = pipe(
        prompt_embeds=text, pooled_prompt_embeds=pooled, height=32, width=32, num_inference_steps=file.nfe,
        latents=scheduler.init_noise_sigma * noise, output_type="latent",
    ).images  # fmt: skip
    _, places = pipe.prepare_latents(2, 4, 32, 32, torch.float32, "cpu", draw)

    def network(x, times):
        return -flux(
            x, text, pooled, times / 1000, img_ids=places, txt_ids=torch.zeros(3, 3), return_dict=False
        )[0]  # fmt: skip

    denoiser = NetworkDenoiser(Network(network), Convention(FLOW, "velocity", -1000, 1000))
    agree(made, play(file.table, denoiser, noise))


@torch.no_grad()
def test_a_stochastic_table_draws_from_the_generator(unet):
    file = traced("ddpm", DDPM)
    result, noise, _ = ddpm(unet, TableScheduler(file))
    draw = torch.Generator().manual_seed(1)
    torch.randn(2, 3, 8, 8, generator=draw)
    drawn = [torch.randn(2, 3, 8, 8, generator=draw) for _ in file.w[0]]
    network = Network(lambda x, times: unet(x, times).sample)
    denoiser = NetworkDenoiser(network, Convention(DDPM, "eps", 1000, -1))
    agree(result, play(file.table, denoiser, noise, drawn.__getitem__))


def test_saving_keeps_every_bit(unet, trained, tmp_path):
    scheduler = TableScheduler(trained["vp-discrete"])
    scheduler.save_pretrained(tmp_path / "scheduler")
    loaded = TableScheduler.from_pretrained(tmp_path / "scheduler")
    assert TableFile.model_validate(loaded.config.table) == trained["vp-discrete"]
    assert loaded.config == scheduler.config
    DDPMPipeline(unet, scheduler).save_pretrained(tmp_path / "pipeline")
    pipe = DDPMPipeline.from_pretrained(tmp_path / "pipeline")
    assert isinstance(pipe.scheduler, TableScheduler)
    torch.testing.assert_close(ddpm(pipe.unet, pipe.scheduler)[0], ddpm(unet, scheduler)[0], rtol=0, atol=0)


def test_one_entry_for_each_evaluation():
    scheduler = TableScheduler(traced("heun", DDPM, 8))
    assert len(scheduler.timesteps) == 8
    assert len(scheduler.timesteps.unique()) < 8, "Heun asks twice at the inner times"
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / 8, 8), mu=0.5, device="cpu")
    assert scheduler.num_inference_steps == len(scheduler.timesteps) == 8
    for steps in (7, 50):
        with pytest.raises(ValueError, match=f"num_inference_steps must be 8, not {steps}"):
            scheduler.set_timesteps(steps)
    with pytest.raises(ValueError, match="must be 8, not 3"):
        scheduler.set_timesteps(sigmas=[1.0, 0.5, 0.2])
    x = torch.zeros(1, 2)
    for t in scheduler.timesteps:
        x = scheduler.step(x, t, x).prev_sample
    with pytest.raises(ValueError, match="all 8 steps are made"):
        scheduler.step(x, 0, x)


def test_noise_is_added_as_the_path_says():
    x, z = torch.ones(2, 3), torch.full((2, 3), 2.0)
    scheduler = TableScheduler(traced("ddim", DDPM))
    mixed = scheduler.add_noise(x, z, torch.tensor([0, 999]))
    expected = [DDPM.alpha(t) + 2 * DDPM.sigma(t) for t in (0.001, 1.0)]
    torch.testing.assert_close(mixed[:, 0], torch.tensor(expected))
    flow = TableScheduler(traced("euler", FLOW))
    torch.testing.assert_close(flow.scale_noise(x, torch.tensor([250.0, 1000.0]), z)[:, 0], torch.tensor([1.25, 2.0]))
    assert scheduler.init_noise_sigma == flow.init_noise_sigma == 1
    assert TableScheduler(traced("dpmpp-2s", FLOW)).init_noise_sigma == pytest.approx(0.999)


def test_refusals():
    with pytest.raises(ValueError, match="unknown prediction_type 'noise'"):
        TableScheduler(traced("ddim", DDPM), "noise")
    with pytest.raises(ValueError, match="flow_prediction is noise - data on the linear path"):
        TableScheduler(traced("ddim", VPLinear()), "flow_prediction")
    with pytest.raises(ValueError, match="no usual timestep: give time_scale"):
        TableScheduler(traced("edm-euler", Edm()))
    assert TableScheduler(traced("edm-euler", Edm()), time_scale=1, time_shift=0).timesteps[0] == 80
    with pytest.raises(ValueError, match="cannot begin at step 3"):
        TableScheduler(traced("ddim", DDPM)).set_begin_index(3)
