"""AMED: the predictor of a file, and its steps on a network, against a direct reading of the formulas."""

import gzip
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fastsample.models.analytic import ring_mixture
from fastsample.models.catalogue import open_model
from fastsample.models.features import bottleneck, narrowest
from fastsample.models.networks.adm_unet import ADMUNet
from fastsample.models.networks.dhariwal_unet import DhariwalUNet
from fastsample.models.path import Edm
from fastsample.solvers.found.predictor import Predictor
from fastsample.solvers.imported.files import read_published
from fastsample.solvers.imported.importing import import_published
from fastsample.solvers.imported.layouts import Said
from fastsample.solvers.spec import Spec

from . import published_files as files

DATA = Path(__file__).parents[1] / "data" / "published"


def test_the_network_of_a_file_predicts_what_its_program_does(tmp_path):
    (tmp_path / "a.pkl").write_bytes(gzip.decompress((DATA / "fmt_amed_tiny.pkl.gz").read_bytes()))
    told = json.loads(gzip.decompress((DATA / "fmt_learned_index.json.gz").read_bytes()))["files"]["fmt_amed_tiny.pkl"]
    file, known = read_published(tmp_path / "a.pkl"), told["forward"]
    predictor = Predictor(file.numbers, told["scale_dir"], told["scale_time"])
    features = torch.tensor(known["bottleneck_mean"]).flatten(1)
    found = predictor(0, known["t_cur"], known["t_next"], features, 2)
    for ours, theirs in zip(found, (known["r"], known["scale_dir"], known["scale_time"]), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=known["atol"])
    with pytest.raises(ValueError, match="reads 64 pixels of a narrowest layer, and the network has 16"):
        predictor(0, 2.0, 1.0, features[:, :16], 2)


@pytest.fixture
def model(tmp_path):
    return open_model(str(files.edm_checkpoint(tmp_path / "edm.safetensors")))


def silu(z):
    return z / (1 + np.exp(-z))


def predicted(layers, features, s, t, scale_dir=0.01, scale_time=0.2):
    def linear(name, z):
        return z @ np.float32(layers[name]["weight"]).astype(float).T + np.float32(layers[name]["bias"]).astype(float)

    def waves(level):
        angles = [level * 10000 ** (-k / 3) for k in range(4)]
        return silu(linear("map_layer0", np.array([*map(math.sin, angles), *map(math.cos, angles)])))

    inner = linear("enc_layer1", silu(linear("enc_layer0", features)))
    z = np.concatenate([inner, *(np.tile(waves(level), (len(features), 1)) for level in (s, t))], 1)
    r, c, a = (1 / (1 + np.exp(-linear(name, z)[:, 0])) for name in ("fc_r", "fc_scale_dir", "fc_scale_time"))
    return r, 1 + scale_dir * (2 * c - 1), 1 + scale_time * (2 * a - 1)


def slopes(network, x, levels):
    """(x - D(x; level)) / level in float32 for the network, each sample at its level; and the bottleneck's mean."""
    kept = []
    hook = network.model.enc["8x8_block0"].register_forward_hook(lambda _, __, out: kept.append(out.mean(1).flatten(1)))
    levels = torch.as_tensor(levels, dtype=torch.float64).expand(len(x))
    with torch.inference_mode():
        data = network(x.float(), levels.float()).double()
    hook.remove()
    return (x - data) / levels[:, None, None, None], kept[0].double().numpy()


@pytest.mark.parametrize(
    ("student", "afs", "facts"),
    [
        ("amed", True, {}),
        ("amed", False, {"schedule_type": "polynomial", "schedule_rho": 7.0}),
        ("euler", False, {}),
        ("dpm", True, {}),
        ("ipndm", True, {"max_order": 4}),
        ("dpmpp", False, {"max_order": 2, "predict_x0": True}),
    ],
)
def test_the_steps_of_each_sample_are_its_own(student, afs, facts, model, tmp_path):
    layers, n = files.amed_layers(np.random.default_rng(2)), 3
    file = files.amed(tmp_path / "a.pkl", layers, sampler_stu=student, afs=afs, **facts)
    kept = import_published(read_published(file), model, Said())
    assert (kept.solver, kept.nfe) == ("amed", 2 * n - afs)
    spec = Spec.parse("amed").decided(model, kept.nfe)
    plan, table = spec.plan_for(model, kept.nfe)
    assert table is None
    assert plan.trained_on == "squared error"
    assert "imported, unverified model: a.pkl" in plan.found_with
    x = 80 * torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    denoiser = model.make(model.network, None, 0.0, None)
    with torch.inference_mode():
        made = plan(denoiser, x)
        alone = plan(model.make(model.network, None, 0.0, None), x[1:2])
    assert denoiser.evaluations(3) == [kept.nfe] * 3
    torch.testing.assert_close(alone, made[1:2], rtol=0, atol=1e-4)

    times = np.array(plan.times)
    expected, past = x, []
    known = {1: [1], 2: [1.5, -0.5], 3: [23 / 12, -16 / 12, 5 / 12], 4: [55 / 24, -59 / 24, 37 / 24, -9 / 24]}

    def each(values):
        return torch.as_tensor(values, dtype=torch.float64).expand(3)[:, None, None, None]

    def half(x, s, t, value, c, number):
        past.insert(0, (each(s), value))
        if student == "dpmpp":
            q = min(2, number, 2 * n + 1 - number)
            (s, new), t = past[0], each(t)
            h = (s / t).log()
            d = (new - past[1][1]) / ((past[1][0] / s).log() / h) if q == 2 else 0
            return t / s * x - each(c) * torch.expm1(-h) * (new + d / 2)
        q = min(len(past), 4) if student == "ipndm" else 1
        return x + each(c) * (each(t) - each(s)) * sum(w * v for w, (_, v) in zip(known[q], past, strict=False))

    for i, (s, t) in enumerate(zip(times[:-1], times[1:], strict=True)):
        if afs and i == 0:
            d, features = expected / math.sqrt(1 + s**2), np.zeros((3, 64))
        else:
            d, features = slopes(model.network, expected, s)
        r, c, a = predicted(layers, features, s, t)
        assert r.std() > 0 or (afs and i == 0)
        m = t**r * s ** (1 - r)
        whole, plus = student in ("amed", "dpm"), student == "dpmpp"
        first = expected - s * d if plus else d
        middle = expected + each(m - s) * d if whole else half(expected, s, m, first, 1.0, 2 * i + 1)
        answer = middle - each(a * m) * slopes(model.network, middle, a * m)[0]
        slope = (middle - answer) / each(m)
        if student == "amed":
            expected = expected + each(c * (t - s)) * slope
        elif student == "dpm":
            expected = expected + each(c * (t - s)) * (slope / each(2 * r) + (1 - 1 / each(2 * r)) * d)
        else:
            expected = half(middle, m, t, answer if plus else slope, c, 2 * i + 2)
    torch.testing.assert_close(made, expected, rtol=0, atol=2e-3 * made.abs().max().item())
    assert (made - expected).abs().mean() < 1e-5 * made.abs().mean()


def test_where_the_features_are():
    adm = ADMUNet(
        in_channels=3,
        model_channels=32,
        out_channels=3,
        num_res_blocks=1,
        attention_resolutions=(),
        channel_mult=(1, 1),
    )
    dhariwal = DhariwalUNet(16, 3, 3, model_channels=32, channel_mult=(1, 1), num_blocks=2, attn_resolutions=())
    assert narrowest(adm) == "middle_block.2"
    assert narrowest(dhariwal) == "enc.8x8_block1"
    assert narrowest(nn.Sequential(nn.Identity(), dhariwal)) == "1.enc.8x8_block1"
    assert narrowest(nn.Linear(2, 2)) == ""
    with bottleneck(ring_mixture(Edm())) as heard:  # no network, and nothing to hear
        assert heard() is None


def test_options_that_contradict_the_file_are_refused(model, tmp_path):
    file = files.amed(tmp_path / "a.pkl", files.amed_layers(np.random.default_rng(0)), sampler_stu="ipndm")
    nfe = import_published(read_published(file), model, Said()).nfe
    assert str(Spec.parse("amed").decided(model, nfe)) == "amed:plugin=ipndm,afs=true,order=3"
    assert Spec.parse("amed:order=3").decided(model, nfe) == Spec.parse("amed").decided(model, nfe)
    with pytest.raises(ValueError, match="was learned with plugin=ipndm, not dpm2"):
        Spec.parse("amed:plugin=dpm2").decided(model, nfe)
    with pytest.raises(ValueError, match="the times of amed are its own: leave @karras out"):
        Spec.parse("amed@karras")
    with pytest.raises(ValueError, match="there are some for NFE 5: `fastsample import FILE --model"):
        Spec.parse("amed").decided(model, 6)
    with pytest.raises(ValueError, match="has none of these"):
        import_published(read_published(file), replace(open_model("gmm2d"), path=Edm()), Said())


def test_a_head_that_is_missing_predicts_one(model, tmp_path):
    file = files.amed(tmp_path / "a.pkl", files.amed_layers(np.random.default_rng(0), heads=("fc_r",)))
    plan, _ = Spec.parse("amed").plan_for(model, import_published(read_published(file), model, Said()).nfe)
    r, c, a = plan.arguments["found"](0, 3.0, 2.0, None, 2)
    assert (set(c), set(a)) == ({1.0}, {1.0})
    assert 0 < r[0] == r[1] < 1
