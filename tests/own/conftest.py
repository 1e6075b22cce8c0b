import pytest

MINE = '''
import torch
from itertools import pairwise
from fastsample.datasets.image_set import ImageDataset
from fastsample.models.checkpoints import load_model
from fastsample.models.foreign.own import OwnModel
from fastsample.results.statistics import root_of_mean


def flow():
    network, facts, _ = load_model("cifar10-tiny-flow")
    return OwnModel(network, facts.image_shape, time_scale=facts.time_scale, data=facts.data)


def vp():
    network, facts, _ = load_model("cifar10-tiny-vp")
    return OwnModel(network, facts.image_shape, "vp-linear", "v", time_scale=facts.time_scale, data=facts.data)


class Gaussian(torch.nn.Module):
    """Exact velocity of N(0, variance) on the linear path."""

    def __init__(self, variance):
        super().__init__()
        self.variance = torch.nn.Parameter(torch.tensor(variance))

    def forward(self, x, t):
        t = t.reshape(-1, *[1] * (x.ndim - 1))
        return (t * self.variance - (1 - t)) / (t**2 * self.variance + (1 - t) ** 2) * x


def wave():
    return OwnModel(Gaussian(0.25), (2, 64), title="a waveform")


def tiny():
    return OwnModel(Gaussian(0.25), (3, 8, 8))


def brighter():
    return OwnModel(Gaussian(0.5), (3, 8, 8))


def ab2(denoiser, x, times, *, damp: float = 1.0):
    f = []
    for s, t in pairwise(times):
        f = [denoiser.velocity(x, s), *f[:1]]
        x = x + sum(((t - s) * w * damp) * v for w, v in zip([(1,), (3 / 2, -1 / 2)][len(f) - 1], f))
    return x


def heun(denoiser, x, times):
    for s, t in pairwise(times):
        k = denoiser.velocity(x, s)
        x = x + (t - s) / 2 * (k + denoiser.velocity(x + (t - s) * k, t))
    return x


def clamped(denoiser, x, times):
    return x.clamp(-1, 1)


def roughness(images):
    return images.diff(dim=-1).abs().flatten(1).mean(1)


roughness.higher, roughness.unit, roughness.digits = True, "dB", 4


def far(states, references):
    return (states - references).square().flatten(1).mean(1)


far.estimate = root_of_mean


def pooled(images):
    return images.mean()


def unknown(picture):
    return 0


def broken(images):
    return images.nothing


def colours():
    return lambda images: images.float().flatten(2).mean(2)


def boards(split, path):
    squares = torch.randint(0, 2, (64, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    images = (255 * squares).repeat_interleave(2, 2).repeat_interleave(2, 3).expand(-1, 3, -1, -1)
    return ImageDataset("boards", split, images.to(torch.uint8), torch.zeros(64, dtype=torch.int64))
'''


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A file of a user's own, in the folder that commands run in."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE, "utf-8")
    return tmp_path / "mine.py"
