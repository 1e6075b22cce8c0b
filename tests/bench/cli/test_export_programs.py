"""`export` to k-diffusion (the real package), ComfyUI and A1111 (stubs of what a file calls), and diffusers' own."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import diffusers
import pytest
import torch

from fastsample.models.analytic import ring_mixture
from fastsample.models.betas import model_of_betas, path_of_betas
from fastsample.models.catalogue import open_model
from fastsample.models.path import DiscreteVP
from fastsample.solvers.exports.sigmas import sigma_table
from fastsample.solvers.spec import table_of
from fastsample.solvers.table import play

from ...command import command

SD = "scaled-linear:0.00085,0.012,1000"


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def sampling():
    """`k_diffusion.sampling`, without the package's own imports: its training and metrics need a dozen packages."""
    found = importlib.util.find_spec("k_diffusion")
    if found is None:
        pytest.skip("k-diffusion is not installed: pip install --no-deps k-diffusion==0.1.1.post1")
    package = ModuleType("k_diffusion")
    package.__path__ = list(found.submodule_search_locations)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "k_diffusion", package)
        yield importlib.import_module("k_diffusion.sampling")


def loaded(file):
    """A module from a file of any name."""
    spec = importlib.util.spec_from_file_location("exported", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def noise(n=32):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def model_at(path, flow=False):
    """model(x, sigma) of these programs: the data prediction of the exact mixture."""
    exact = ring_mixture(path)

    def model(x, sigma, **extra):
        sigma = float(sigma.reshape(-1)[0])
        if flow:
            return exact.x0(x, 1 - sigma)
        t = path.t_of_nsr(sigma)
        return exact.x0(x * path.alpha(t), t)

    return model


CASES = [
    ("ddim", "sample_euler"), ("edm-euler:denoise=true", "sample_euler"), ("euler@uniform", "sample_euler"),
    ("ddim@integer-uniform", "sample_euler"),
    ("edm-heun", "sample_heun"), ("edm-heun:denoise=true@logsnr", "sample_heun"),
    ("dpmpp-2m:lower_order_final=never", "sample_dpmpp_2m"),
    ("dpmpp-2m:lower_order_final=never,denoise=true@karras", "sample_dpmpp_2m"),
    ("edm-dpm2:denoise=true", "sample_dpm_2"), ("edm-dpm2@logsnr", "sample_dpm_2"), ("lms", "sample_lms"),
]  # fmt: skip
GIVEN = [(*case, ["--betas", SD]) for case in CASES] + [(*case, ["--model", "gmm2d"]) for case in CASES[4:7]]


@pytest.mark.parametrize(("solver", "function", "given"), GIVEN)
def test_a_list_of_sigmas_is_the_solver_in_k_diffusion(solver, function, given, sampling):
    ended = command("export", "--solver", solver, "--nfe", 9, "--to", "sigmas", "-o", "s.txt", *given)
    assert ended.code == 0
    assert f"k-diffusion's {function}," in ended.out
    sigmas = torch.tensor([float(word) for word in Path("s.txt").read_text().split(",")], dtype=torch.float64)
    assert (sigmas[-1] == 0) == ("denoise" in solver or "integer" in solver)
    model = model_of_betas(SD) if given[0] == "--betas" else open_model("gmm2d")
    file, path = table_of(solver, model, 9), model.path
    expected = play(file.table, ring_mixture(path), noise()) / path.alpha(file.end)
    x = noise() * torch.sqrt(1 + sigmas[0] ** 2)
    made = getattr(sampling, function)(model_at(path), x, sigmas, extra_args={}, disable=True)
    assert (made - expected).abs().max() < 1e-6


def test_on_edm_and_flow_paths_it_is_the_solver_too(sampling):
    path = open_model("gmm2d-flow").path
    for solver, function in (("euler", "sample_euler"), ("heun", "sample_heun"), ("heun:denoise=true", "sample_heun")):
        file = table_of(solver, open_model("gmm2d-flow"), 8)
        seen = sigma_table(file)
        assert seen.sigmas[0] == 1
        assert seen.sampler.function == function
        made = getattr(sampling, function)(
            model_at(path, flow=True), noise(), torch.tensor(seen.sigmas, dtype=torch.float64), disable=True
        )
        torch.testing.assert_close(made, play(file.table, ring_mixture(path), noise()), rtol=0, atol=1e-6)


def test_what_no_sampler_is_says_so():
    ended = command("export", "--solver", "dpmpp-2m", "--nfe", 8, "--to", "sigmas", "--model", "gmm2d")
    assert ended.code == 0
    assert "no sampler of k-diffusion makes these steps (they have a lower order at the end" in ended.out
    assert Path("dpmpp-2m-vp-linear-8.txt").is_file()
    ended = command("export", "--solver", "unipc", "--nfe", 8, "--to", "a1111", "--model", "gmm2d")
    assert ended.code == 2
    assert "no sampler of that program makes these steps" in ended.err
    ended = command("export", "--solver", "ddim", "--nfe", 8, "--to", "sigmas", "--betas", f"{SD},zero-snr")
    assert ended.code == 2
    assert "begins with noise alone" in ended.err
    ended = command("export", "--solver", "ddim", "--to", "comfyui", "--prediction", "eps")
    assert ended.code == 2
    assert "comfyui has no --prediction" in ended.err


@pytest.mark.parametrize(
    ("solver", "model"),
    [
        ("unipc", "gmm2d"),
        ("ddim:afs=true", "gmm2d"),
        ("rk4", "gmm2d"),
        ("dpmpp-2m", "gmm2d-flow"),
        ("heun", "gmm2d-flow"),
    ],
)
def test_a_k_diffusion_module_plays_any_table(solver, model):
    out = "made.py"
    assert (
        command("export", "--solver", solver, "--nfe", 8, "--to", "k-diffusion", "--model", model, "-o", out).code == 0
    )
    module, opened = loaded(out), open_model(model)
    flow, file = model.endswith("flow"), table_of(solver, opened, 8)
    path, steps = opened.path, []
    expected = play(file.table, ring_mixture(path), noise())
    x = noise() if flow else noise() / path.alpha(path.t_noise)
    made = module.sample(model_at(path, flow), x, callback=steps.append)
    torch.testing.assert_close(made if flow else made * path.alpha(file.end), expected, rtol=0, atol=1e-9)
    assert len(steps) == file.nfe
    assert steps[-1]["i"] < len(module.SIGMAS) - 1
    single = module.sample(model_at(path, flow), x.float(), module.SIGMAS)
    assert single.dtype == torch.float32
    with pytest.raises(ValueError, match="its own sigmas"):
        module.sample(model_at(path, flow), x, torch.tensor(module.SIGMAS[1:]))


def test_a_stochastic_table_takes_noise():
    assert (
        command("export", "--solver", "ddpm", "--nfe", 5, "--to", "k-diffusion", "--betas", SD, "-o", "d.py").code == 0
    )
    module, model = loaded("d.py"), model_of_betas(SD)
    file, drawn = table_of("ddpm", model, 5), [torch.randn_like(noise()) for _ in range(5)]
    expected = play(file.table, ring_mixture(model.path), noise(), drawn.__getitem__)
    asked = []

    def draw(sigma, lower):
        asked.append((sigma, lower))
        return drawn[len(asked) - 1]

    made = module.sample(model_at(model.path), noise() / model.path.alpha(1.0), noise_sampler=draw)
    torch.testing.assert_close(made * model.path.alpha(file.end), expected, rtol=0, atol=1e-9)
    assert all(sigma > lower for sigma, lower in asked)


class KSAMPLER:
    """As comfy.samplers has it: scales the noise, gives masks along with the model's arguments, counts steps."""

    def __init__(self, sampler_function, extra_options=None, inpaint_options=None):
        self.function, self.options = sampler_function, extra_options or {}

    def sample(self, model, sigmas, noise, callback):
        def wrapped(x, sigma, denoise_mask, model_options, seed):
            assert sigma.shape == (len(x),)
            return model(x, sigma)

        total = len(sigmas) - 1
        extra = {"denoise_mask": None, "model_options": {}, "seed": 3}
        return self.function(
            wrapped, noise * torch.sqrt(1 + sigmas[0] ** 2), sigmas, extra_args=extra, disable=True, **self.options,
            callback=lambda told: callback(told["i"], told["denoised"], told["x"], total),
        )  # fmt: skip


@pytest.mark.parametrize("solver", ["unipc", "dpmpp-2m:denoise=true@karras", "edm-heun"])
def test_a_comfyui_node_samples_as_the_solver_does(solver, monkeypatch):
    comfy, samplers = ModuleType("comfy"), ModuleType("comfy.samplers")
    comfy.samplers, samplers.KSAMPLER = samplers, KSAMPLER
    monkeypatch.setitem(sys.modules, "comfy", comfy)
    monkeypatch.setitem(sys.modules, "comfy.samplers", samplers)
    ended = command("export", "--solver", solver, "--nfe", 8, "--to", "comfyui", "--betas", SD, "-o", "node.py")
    assert ended.code == 0
    module = loaded("node.py")
    ((name, node),) = module.NODE_CLASS_MAPPINGS.items()
    assert module.NODE_DISPLAY_NAME_MAPPINGS[name].endswith("evaluations (fastsample)")
    assert node.INPUT_TYPES() == {"required": {}}
    assert node.RETURN_TYPES == ("SAMPLER", "SIGMAS")
    sampler, sigmas = getattr(node(), node.FUNCTION)()
    model, seen = model_of_betas(SD), []
    file = table_of(solver, model, 8)
    made = sampler.sample(model_at(model.path), sigmas, noise().float(), lambda *told: seen.append(told))
    expected = play(file.table, ring_mixture(model.path), noise()) / model.path.alpha(file.end)
    torch.testing.assert_close(made.double(), expected, rtol=0, atol=2e-4)  # float32, and x up to 15 large
    assert len(seen) == file.nfe
    assert all(step < total for step, _, _, total in seen)


def test_an_a1111_script_adds_its_schedule_once(monkeypatch):
    modules, schedulers = ModuleType("modules"), ModuleType("modules.sd_schedulers")
    schedulers.Scheduler = lambda name, label, function: SimpleNamespace(name=name, label=label, function=function)
    schedulers.schedulers, schedulers.schedulers_map = [schedulers.Scheduler("karras", "Karras", None)], {}
    modules.sd_schedulers = schedulers
    monkeypatch.setitem(sys.modules, "modules", modules)
    monkeypatch.setitem(sys.modules, "modules.sd_schedulers", schedulers)
    words = ["--solver", "dpmpp-2m:lower_order_final=never,denoise=true@karras", "--nfe", 8, "--betas", SD]
    assert command("export", *words, "--to", "a1111", "-o", "a.py").code == 0
    loaded("a.py")
    loaded("a.py")
    assert len(schedulers.schedulers) == 2
    added = schedulers.schedulers[-1]
    assert schedulers.schedulers_map[added.label] is added
    made = added.function(n=8, sigma_min=0.03, sigma_max=14.6, device="cpu")
    assert made.shape == (9,)
    assert (made[0].item(), made[-1].item()) == (pytest.approx(14.6146, abs=1e-3), 0)
    assert f'schedule type "{added.label}"' in Path("a.py").read_text()
    with pytest.raises(ValueError, match="for 8 sampling steps, not 20"):
        added.function(20, 0.03, 14.6, "cpu")


@pytest.mark.parametrize(
    ("solver", "given", "name", "off"),
    [
        ("ddim@integer-uniform", ["--betas", SD], "DDIMScheduler", 1e-6),
        ("dpmpp-2m:denoise=true,lower_order_final=never@karras", ["--betas", SD], "DPMSolverMultistepScheduler", 1e-3),
        ("unipc:order=2,denoise=true,lower_order_final=never@karras", ["--betas", SD], "UniPCMultistepScheduler", 1e-3),
        ("ddim:denoise=true@uniform", ["--betas", SD], "EulerDiscreteScheduler", 1e-3),
        ("edm-heun:denoise=true", ["--betas", SD], "HeunDiscreteScheduler", 1e-3),
        ("euler:denoise=true", ["--model", "gmm2d-flow"], "FlowMatchEulerDiscreteScheduler", 1e-6),
    ],
)
def test_a_scheduler_of_diffusers_that_is_the_solver(solver, given, name, off):
    words = ["export", "--solver", solver, "--nfe", 8, "--to", "diffusers-config", "-o", "folder", *given]
    ended = command(*words)
    assert ended.code == 0
    model = model_of_betas(SD) if given[0] == "--betas" else open_model(given[1])
    file, exact, flow = table_of(solver, model, 8), ring_mixture(model.path), given[0] == "--model"
    config = json.loads(Path("folder/scheduler_config.json").read_text())
    assert config["_class_name"] == name
    assert "trained_betas" not in config or config["trained_betas"] is None
    scheduler = getattr(diffusers, name).from_pretrained("folder")
    steps = int(ended.out.split("num_inference_steps=")[1].split(";")[0])
    scheduler.set_timesteps(steps)
    x = noise() * (1.0 if flow else float(scheduler.init_noise_sigma))
    for t in scheduler.timesteps:
        point = x if flow else scheduler.scale_model_input(x, t)
        if flow:
            answer = -exact.velocity(point.double(), 1 - float(t) / 1000)
        else:
            answer = exact.eps(point.double(), (float(t) + 1) / 1000)
        x = scheduler.step(answer, t, x).prev_sample
    assert (x - play(file.table, exact, noise())).square().mean().sqrt() < off


def test_a_solver_that_no_scheduler_is_says_why():
    words = ["export", "--nfe", 8, "--to", "diffusers-config", "-o", "folder"]
    for solver, given, told in [
        ("dpmpp-2m:denoise=true@karras", ["--betas", SD], "lower_order_final=never"),
        ("ddim", ["--betas", SD], "denoise=true"),
        ("ddim", ["--model", "gmm2d"], "not the vp-linear path"),
        ("ddpm", ["--betas", SD], "draws noise"),
    ]:
        ended = command(*words, "--solver", solver, *given)
        assert ended.code == 2
        assert told in " ".join(ended.err.split())
        assert not Path("folder").exists()


def test_betas_are_schedules_or_files(tmp_path):
    assert path_of_betas(SD).betas[-1] == pytest.approx(0.012)
    assert path_of_betas("linear:0.0001,0.02,1000").betas == DiscreteVP.ddpm().betas
    assert path_of_betas("cosine:50").t_data == 1 / 50
    assert path_of_betas(f"{SD},zero-snr").alpha(1.0) == 0
    for text in ("\n".join(map(repr, path_of_betas(SD).betas)), json.dumps(path_of_betas(SD).betas)):
        Path("betas.txt").write_text(text)
        assert path_of_betas("betas.txt") == path_of_betas(SD)
    command("export", "--solver", "ddim", "--to", "sigmas", "--betas", "betas.txt", "-o", "s.txt")
    assert float(Path("s.txt").read_text().split(",")[0]) == pytest.approx(14.6146412)
    Path("bad.txt").write_text("0.1 2")
    for text, told in [
        ("scaled-linear:0.00085,0.012", "--betas takes linear:FIRST,LAST,STEPS"),
        ("scaled-linear:0.00085,x,1000", "--betas takes"),
        ("linear:0,0.02,1000", "beta_first"),
        ("linear:nan,0.02,1000", "beta_first"),
        ("missing.txt", "no file 'missing.txt'"),
        ("bad.txt", "betas are numbers from 0 to 1"),
    ]:
        ended = command("explain", "ddim", "--betas", text)
        assert ended.code == 2, text
        assert told in " ".join(ended.err.split())
    ended = command("export", "--solver", "ddim", "--to", "json", "--betas", SD, "--model", "gmm2d")
    assert ended.code == 2
    assert "give one of the two" in " ".join(ended.err.split())
    ended = command("export", "--solver", "bns", "--to", "json", "--betas", SD)
    assert ended.code == 2
