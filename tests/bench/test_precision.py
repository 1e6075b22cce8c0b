"""Precisions are set and not observed; devices that cannot be used are refused in one line."""

from dataclasses import replace

import pytest
import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from fastsample.bench.cells import plan_cells
from fastsample.bench.metrics.extractors import EMBEDDED, moments_of
from fastsample.bench.metrics.features import open_extractor
from fastsample.bench.replay import Replay
from fastsample.bench.request import Request
from fastsample.bench.run import Runner
from fastsample.bench.sampling import Sampler, check_precision, choose_device
from fastsample.bench.worker import Worker
from fastsample.datasets.image_set import ImageDataset
from fastsample.models.precision import matmul
from fastsample.results.comparable import incomparable, what_decides
from fastsample.results.protocol import Protocol
from fastsample.results.row import frame_of
from fastsample.results.store import Store

from ..command import command
from ..measuring import Tools
from ..models.test_precision import Casts
from ..rows import row_of
from .test_public import autoencoder, dit, write_card

CPU = torch.device("cpu")
KINDS = torch.backends.cuda.matmul, torch.backends.cudnn


def planned(model, precision, **more):
    return plan_cells(Request(model=model, solver="dpmpp-2m", nfe=3, precision=precision, **more), ())[0][0]


@pytest.fixture
def seen():
    """The TF32 settings that networks are called under."""
    found = []
    hook = register_module_forward_pre_hook(lambda *_: found.append(tuple(kind.allow_tf32 for kind in KINDS)))
    yield found
    hook.remove()


@pytest.mark.parametrize("allowed", ["tf32", "float32"])
@pytest.mark.parametrize("precision", ["float64", "float32", "tf32", "bf16", "fp16"])
def test_tf32_is_set_by_the_precision_alone(precision, allowed, seen, checkpoint):
    cell = planned(checkpoint("own"), precision)
    with matmul(allowed):
        Sampler(CPU).sample(cell, [0, 1])
        assert [kind.allow_tf32 for kind in KINDS] == [allowed == "tf32"] * 2
    assert set(seen) == {(precision == "tf32",) * 2}


def test_features_are_never_in_tf32(seen):
    images = ImageDataset("toy", "train", torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.zeros(2))
    extractor = open_extractor(EMBEDDED, CPU)
    with matmul("tf32"):
        extractor(images.images)
        once = len(seen)
        moments_of(images, EMBEDDED, extractor.network, "")
    assert len(seen) > once > 0
    assert set(seen) == {(False, False)}


def test_latents_are_never_decoded_in_tf32(seen, tmp_path, server):
    cell = planned(f"{write_card(tmp_path, server, dit, autoencoder)}#dit", "float32")
    with torch.inference_mode(), matmul("tf32"):
        Sampler(CPU).images(cell, torch.zeros(1, *cell.model.shape))
    assert set(seen) == {(False, False)}


def test_a_precision_is_told_by_its_row(tmp_path, checkpoint):
    runner = Runner(Store(tmp_path), Worker(Tools(Sampler(CPU)), []))
    cells = {name: planned(checkpoint("own"), name) for name in ("float64", "float32", "tf32", "bf16", "fp16")}
    assert len({cell.identity({}) for cell in cells.values()}) == 5
    for allowed in ("tf32", "float32"):
        with matmul(allowed):
            told = {name: runner.facts(cell)["tf32"] for name, cell in cells.items()}
        assert told == {name: "on" if name == "tf32" else "off" for name in cells}


def test_older_rows_are_comparable_where_they_mean_the_same():
    """Their fact is what PyTorch allowed, by default TF32 in convolutions, which a CPU has none of."""
    observed = {"tf32": "matmul False, cudnn True"}
    now = row_of(protocol={"tf32": "off"}, device="cpu x2", cell="a" * 16)
    older = row_of(protocol=observed, device="cpu x2", cell="b" * 16, nfe_asked=20)
    on_gpu = row_of(protocol=observed, device="NVIDIA H100 80GB HBM3", cell="c" * 16, nfe_asked=20)
    assert incomparable(frame_of([now, older]), "psnr") == ""
    assert "float32 with TF32 for matmul False, cudnn True" in incomparable(frame_of([now, on_gpu]), "psnr")
    half = on_gpu.model_copy(update={"precision": "bf16"})
    (facts,) = frame_of([half]).to_dict("records")
    assert what_decides(facts, "psnr")["precision"] == "bf16"


def test_tf32_is_refused_where_there_is_none(tmp_path, monkeypatch):
    words = ["--samples", 2, "--nfe", 1, "--device", "cpu", "--out", tmp_path / "store"]
    ended = command("bench", "--precision", "tf32", *words)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "tf32 is not available on cpu: it is of NVIDIA GPUs from Ampere on" in ended.err
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    with pytest.raises(ValueError, match="tf32 is not available on cuda:1"):
        check_precision("tf32", torch.device("cuda:1"))


def test_a_row_in_tf32_is_not_repeated_where_there_is_none(tmp_path, coarse, monkeypatch):
    words = ["--model", "gmm2d", "--samples", 2, "--nfe", 2, "--metrics", "psnr", "--out", tmp_path]
    assert command("bench", *words).code == 0
    replay = Replay(Store(tmp_path), "cpu")
    (row,) = replay.store.rows()
    monkeypatch.setattr(replay.store, "row", lambda _: row.model_copy(update={"precision": "tf32"}))
    with pytest.raises(ValueError, match="tf32 is not available on cpu"):
        replay.cell(row.cell)


def test_tf32_is_refused_for_a_model_without_a_network(tmp_path):
    with pytest.raises(ValueError, match="gmm2d is exact and has no network to run in tf32"):
        planned("gmm2d", "tf32")


def zeros_on_a_fake(monkeypatch, without=()):
    """Every device is there, but does not have these dtypes."""
    zeros = torch.zeros

    def fake(*size, dtype=None, device=None):
        if dtype in without:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return zeros(*size, dtype=dtype)

    monkeypatch.setattr(torch, "zeros", fake)


@pytest.mark.parametrize(("name", "made_current"), [("cuda:1", [1]), ("cuda", []), ("cpu", [])])
def test_the_device_is_the_current_one(name, made_current, monkeypatch):
    found = []
    zeros_on_a_fake(monkeypatch)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: found.append(device.index))
    assert choose_device(name) == torch.device(name)
    assert found == made_current


def test_a_device_without_float64_is_refused_in_one_line(monkeypatch, tmp_path):
    zeros_on_a_fake(monkeypatch, without=[torch.float64])
    ended = command("bench", "--device", "mps", "--out", tmp_path / "store")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "device 'mps' does not compute in float64" in ended.err


@pytest.mark.parametrize("model", ["cifar10-tiny-vp", "cifar10-tiny-flow"])
def test_half_precision_of_the_embedded_networks(model):
    """The numbers of autocast, none of its casts of weights; the network in float32 is beside it."""
    cell, whole = planned(model, "bf16"), planned(model, "float32")
    sampler = Sampler(CPU)
    with torch.inference_mode():
        x = sampler.start(whole, [0, 1])
        expected = [sampler.denoiser(whole, [0, 1]).x0(x, 0.7123)]
        assert sampler.start(cell, [0, 1]).dtype == torch.float32
        denoiser = sampler.denoiser(cell, [0, 1])
        with Casts(denoiser.network) as casts:
            half = denoiser.x0(x, 0.7123)
        plain = sampler.denoiser(whole, [0, 1])
        plain.precision = "bf16"
        assert torch.equal(half, plain.x0(x, 0.7123))
        expected.append(sampler.denoiser(whole, [0, 1]).x0(x, 0.7123))
    assert casts.found == []
    assert half.dtype == torch.float32
    assert torch.equal(*expected)
    assert 1e-5 < float((half - expected[0]).square().mean()) ** 0.5 < 3e-2


def test_one_model_in_several_precisions_by_turns(checkpoint):
    model = checkpoint("own")
    cells = {name: planned(model, name) for name in ("float32", "float64", "bf16")}
    alone = {name: Sampler(CPU).sample(planned(model, name), [0, 1])[0] for name in cells}
    assert alone["float64"].dtype == torch.float64
    sampler = Sampler(CPU)
    for _ in range(2):
        for name, cell in cells.items():
            x, _, _ = sampler.sample(replace(cell, model=cells["float32"].model), [0, 1])
            assert torch.equal(x, alone[name])


def test_the_precisions_of_the_command_are_those_of_a_protocol():
    names = Protocol.model_fields["precision"].annotation.__args__
    assert all(name in command("bench", "--help").out for name in names)
