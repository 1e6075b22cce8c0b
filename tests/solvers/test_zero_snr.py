"""A terminal SNR of zero (a last beta of 1, arXiv 2305.08891), or of nearly zero, is handled as on the linear path."""

import math
import warnings

import pytest
import torch
from diffusers import DDIMScheduler

from fastsample.models.analytic import ring_mixture
from fastsample.models.convention import Convention
from fastsample.models.denoiser import NetworkDenoiser
from fastsample.models.path import DiscreteVP, LinearFlow, VPCosine, VPLinear, zero_terminal_snr
from fastsample.models.public.card_tables import NoisePath
from fastsample.solvers.exports.diffusers import TableScheduler
from fastsample.solvers.exports.torch_file import to_python
from fastsample.solvers.k_diffusion import register_k_diffusion
from fastsample.solvers.proofs.claims import start
from fastsample.solvers.solver import _SOLVERS, get, solvers
from fastsample.solvers.table import trace
from fastsample.solvers.table_file import TableFile, read_table

ZERO = zero_terminal_snr(DiscreteVP.ddpm().betas)
PATHS = {
    "zero": DiscreteVP(betas=ZERO),
    "scaled-linear": DiscreteVP(betas=NoisePath(name="vp-discrete", schedule="scaled-linear", beta_first=0.00085,
                                                beta_last=0.012, zero_terminal_snr=True).betas()),
    "cosine": DiscreteVP(betas=NoisePath(name="vp-discrete", schedule="cosine", zero_terminal_snr=True).betas()),
    "few": DiscreteVP(betas=(*[0.1] * 39, 1.0)),
    "nearly": DiscreteVP(betas=(*ZERO[:-1], 1 - 1e-12)),
    "continuous": VPCosine(t_noise=1.0),
}  # fmt: skip


@pytest.mark.parametrize("name", PATHS)
def test_the_path_ends_as_the_linear_path_does(name):
    path = PATHS[name]
    if name not in ("nearly", "continuous"):
        assert (path.alpha(1.0), path.sigma(1.0), path.lam(1.0), path.nsr(1.0)) == (0, 1, -math.inf, math.inf)
        assert path.t_of_lam(-math.inf) == 1
    assert path.alpha(1.0) < 1e-9
    assert path.t_finite < 1
    assert path.lam(path.t_finite) == pytest.approx(LinearFlow().lam(1e-3), abs=1e-9)
    assert path.is_singular(1.0)
    assert not path.is_singular(path.t_finite)
    first, last = path.t_noise, 1 - 1 / (2 * len(getattr(path, "betas", range(1000))))
    for t in (last, 0.70005, 0.20005):  # the middle of the last segment, and between two others
        h = 1e-7
        assert path.d_alpha(t) == pytest.approx((path.alpha(t + h) - path.alpha(t - h)) / (2 * h), rel=1e-4)
        assert path.t_of_lam(path.lam(t)) == pytest.approx(t, rel=1e-9)
    assert path.d_alpha(first) < 0
    assert abs(path.d_sigma(first)) < 1e-9
    short = path.between(0.5, path.t_data)
    assert (short.t_finite, short.is_singular(0.5)) == (0.5, False)


def test_the_rescaled_table_is_that_of_diffusers():
    theirs = DDIMScheduler(rescale_betas_zero_snr=True).betas.double()
    assert torch.tensor(ZERO, dtype=torch.float64) == pytest.approx(theirs, abs=5e-6)
    assert ZERO[-1] == 1
    assert ZERO[0] == pytest.approx(1e-4, rel=1e-9)


@pytest.mark.parametrize("betas", [(0.1, 1.0, 0.1), (0.1, 1.1), (-0.1, 0.1), (0.1, math.nan)])
def test_other_betas_are_refused(betas):
    with pytest.raises(ValueError, match="only the last may be 1"):
        DiscreteVP(betas=betas)


def test_usual_paths_start_where_they_did():
    for path in (DiscreteVP.ddpm(), VPLinear(), VPCosine()):
        assert path.t_finite == path.t_noise
        assert not path.is_singular(path.t_noise)


@pytest.fixture(scope="module")
def truths():
    return {name: get("dpmpp-3m").plan(path, 1500, "logsnr")(ring_mixture(path), start())
            for name, path in PATHS.items()}  # fmt: skip


def fresh(step):
    return torch.randn(start().shape, generator=torch.Generator().manual_seed(step)).double()


@pytest.mark.parametrize("path", ["zero", "nearly"])
@pytest.mark.parametrize("name", solvers())
def test_every_solver_runs_and_finds_the_solution(name, path, truths):
    solver = get(name)
    # k-diffusion's tolerance is of x in units of the noise, and here the noise is all that there is at first.
    finer = {"rtol": 1e-3, "atol": 1e-3} if name == "dpm-adaptive-k" else {}
    plan = solver.plan(PATHS[path], 60, **finer)
    denoiser = ring_mixture(PATHS[path])
    found = plan(denoiser, start(), fresh if solver.stochastic else None)
    assert found.isfinite().all()
    if not solver.stochastic and name != "rfpp":  # rfpp's constants are of its own networks
        assert float((found - truths[path]).square().mean().sqrt()) < 0.03
    if name != "stork-noise":  # which starts one step late, as published
        assert plan.times[0] in (pytest.approx(plan.own.t_noise, abs=1e-9), pytest.approx(plan.own.t_finite))
    if not solver.singular_start:
        assert plan.own.lam(plan.times[0]) > -7


@pytest.mark.parametrize("name", ["ddim", "euler", "dpmpp-2m", "unipc"])
@pytest.mark.parametrize("path", PATHS)
def test_solvers_that_can_start_at_the_noise_do(name, path):
    plan = get(name).plan(PATHS[path], 10, "uniform")
    assert plan.times[0] == plan.own.t_noise
    assert plan.own.lam(plan.times[0]) < -20


@pytest.mark.parametrize("path", PATHS)
def test_other_schedules(path, truths):
    for name in ("ddim", "unipc", "edm-heun", "scire", "heun"):
        found = get(name).plan(PATHS[path], 60)(ring_mixture(PATHS[path]), start())
        assert float((found - truths[path]).square().mean().sqrt()) < 0.03, name


def test_a_sampler_of_k_diffusion(truths):
    def sample_euler(model, x, sigmas, extra_args=None, callback=None, disable=None):
        for i in range(len(sigmas) - 1):
            x = x + (x - model(x, sigmas[i] * x.new_ones([len(x)]))) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
        return x

    register_k_diffusion("k-euler", sample_euler, title="k", paper="2206.00364", order=1)
    try:
        plan = get("k-euler").plan(PATHS["zero"], 60)
        assert plan.times[0] == pytest.approx(999)
        found = plan(ring_mixture(PATHS["zero"]), start())
    finally:
        _SOLVERS.pop("k-euler")
    assert float((found - truths["zero"]).square().mean().sqrt()) < 0.03


class Network(torch.nn.Module):
    """A small network of v that looks at its timestep."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.SiLU(), torch.nn.ConvTranspose2d(8, 3, 3))

    def forward(self, x, t):
        return self.layers(x) * torch.cos(t / 300).reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("steps", [4, 10, 25])
@torch.no_grad()
def test_ddim_and_its_export_are_the_scheduler_of_diffusers(steps, tmp_path):
    """Zero terminal SNR, trailing steps and v-prediction, from the noise to clean data."""
    theirs = DDIMScheduler(
        rescale_betas_zero_snr=True, timestep_spacing="trailing", prediction_type="v_prediction", clip_sample=False
    )
    path = DiscreteVP(betas=tuple(theirs.betas.double().tolist())).between(1.0, 0.0)
    plan = get("ddim").plan(path, steps, "uniform")
    network, noise = Network(), torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    file = TableFile.of(trace(plan, "x0"), path, solver="ddim", title="DDIM", paper="2010.02502")
    (tmp_path / "ddim.json").write_text(file.to_json())
    ours = TableScheduler(read_table(tmp_path / "ddim.json"), "v_prediction")
    played = []
    for scheduler in (theirs, ours):
        scheduler.set_timesteps(steps)
        x = noise * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            x = scheduler.step(network(x, t.expand(2)), t, x).prev_sample
        played.append(x)
    assert ours.timesteps.tolist() == theirs.timesteps.tolist()
    direct = plan(NetworkDenoiser(network, Convention(path, "v", 1000.0, -1.0)), noise)
    for result in (played[1], direct):
        torch.testing.assert_close(result, played[0], rtol=0, atol=2e-5)
    module = {}
    exec(to_python(file, "v"), module)
    written = module["sample"](lambda x, t: network(x, torch.full((2,), 1000 * t - 1.0)), noise)
    torch.testing.assert_close(written, played[0], rtol=0, atol=2e-5)


@pytest.mark.parametrize("to", [lambda file: TableScheduler(file, "epsilon"), lambda file: to_python(file, "eps")])
def test_an_export_for_eps_is_refused(to):
    path = PATHS["zero"]
    file = TableFile.of(trace(get("ddim").plan(path, 4, "uniform"), "x0"), path, solver="ddim", title="", paper="")
    with pytest.raises(ValueError, match="the eps prediction says nothing more than x at t = 1"):
        to(file)


def test_integer_grids_are_what_they_were():
    for grid in ("integer-uniform", "integer-quad"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            plan = get("ddim").plan(PATHS["zero"], 10, grid)
        assert plan.times[0] < 1
        assert plan(ring_mixture(PATHS["zero"]), start()).isfinite().all()
