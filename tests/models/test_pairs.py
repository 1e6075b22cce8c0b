"""Pairs of a teacher: made once, found again, resumable between any two shards, and never mixed."""

import dataclasses
from contextlib import suppress
from functools import partial

import numpy as np
import pytest
import torch

from fastsample.bench.learning.pairs import generate, invert
from fastsample.datasets.image_set import ImageDataset
from fastsample.models import noise
from fastsample.models.analytic import image_mixture
from fastsample.models.catalogue import Model, open_model
from fastsample.models.path import Edm, LinearFlow
from fastsample.models.training import pairs
from fastsample.models.training.pairs import PairCoupling, PairError, PairStore, noise_quality
from fastsample.solvers.solver import get

SHAPE = (1, 8, 8)


def teacher(path, classes=0):
    """An exact mixture."""
    mixture = image_mixture(path, SHAPE, components=4)
    return Model("mixture", "a mixture", "0" * 64, path, SHAPE, SHAPE, "analytic", classes, None, lambda *_: mixture)


MODEL, SEED = teacher(LinearFlow()), 77
made = partial(generate, MODEL, get("heun").plan(LinearFlow(), 5), count=20, seed=SEED, solver="heun", batch=3)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(pairs, "SHARD", 8)


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_what_is_stored_is_what_the_teacher_makes_of_that_noise(tmp_path):
    counted = []
    made(folder=tmp_path, progress=counted.append)
    assert sum(counted) == 24  # whole shards
    store, index = PairStore(tmp_path, 20), torch.tensor([0, 7, 8, 19, 3])
    assert (len(store), store.shape, store.name, store.split) == (20, SHAPE, "pairs of mixture", "heun NFE 5")
    assert torch.equal(store.noise(index), noise.normal(SEED, index.tolist(), SHAPE))
    plan = get("heun").plan(LinearFlow(), 5)
    x = plan(image_mixture(LinearFlow(), SHAPE, components=4), noise.normal(SEED, index.tolist(), SHAPE))
    assert (store.signal(index) - x.clamp(-1, 1)).abs().max() <= 1.01 / 127.5
    levels = (127.5 * x.double() + 128).clamp(0, 255).floor()  # EDM's rule, not the nearest level
    stored = np.load(tmp_path / "pairs-00000.npy")[[0, 7]]
    np.testing.assert_array_equal(stored, levels[:2].numpy())
    np.testing.assert_array_equal(store.signal(torch.tensor([0, 7])).numpy(), (stored / np.float32(127.5) - 1))
    assert (tmp_path / "pairs-00000.npy").stat().st_size < 8 * 64 + 300
    assert store.labels.tolist() == [0] * 20
    x0, z = PairCoupling().draw(store, index, flip=False)
    assert torch.equal(x0, store.signal(index))
    assert torch.equal(z, store.noise(index))


def test_processes_share_the_work(tmp_path):
    made(folder=tmp_path / "one")
    for rank in range(2):
        made(folder=tmp_path / "two", process=(rank, 2))
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_classes_are_those_of_the_noise(tmp_path):
    generate(teacher(LinearFlow(), classes=5), get("heun").plan(LinearFlow(), 5), tmp_path, 8, SEED, solver="heun")
    assert torch.equal(PairStore(tmp_path, 8).labels, noise.labels(SEED, range(8), 5))


def test_points_are_stored_as_they_are(tmp_path):
    model = open_model("gmm2d-flow")
    generate(model, get("heun").plan(model.path, 5), tmp_path, 8, SEED, solver="heun")
    x = get("heun").plan(model.path, 5)(model.make(None, None, 0.0, None), noise.normal(SEED, range(8), (2,)))
    assert torch.equal(PairStore(tmp_path, 8).signal(torch.arange(8)), x)


def test_an_interrupted_generation_goes_on_and_ends_with_the_same_bytes(tmp_path):
    made(folder=tmp_path / "whole")

    def until(count):
        told = []

        def progress(n):
            told.append(n)
            if sum(told) > count:
                raise KeyboardInterrupt

        return progress

    for shards in (0, 1):
        with pytest.raises(KeyboardInterrupt):
            made(folder=tmp_path / "pieces", progress=until(8 * shards))
        assert len(list((tmp_path / "pieces").glob("*.npy"))) == shards
        assert not list((tmp_path / "pieces").glob(".*"))
    with pytest.raises(PairError, match="lacks 2 of the shards of 20 pairs"):
        PairStore(tmp_path / "pieces", 20)
    kept = (tmp_path / "pieces" / "pairs-00000.npy").stat().st_mtime_ns
    made(folder=tmp_path / "pieces")
    assert (tmp_path / "pieces" / "pairs-00000.npy").stat().st_mtime_ns == kept
    assert contents(tmp_path / "pieces") == contents(tmp_path / "whole")
    assert PairStore(tmp_path / "pieces", 20).sha256 == PairStore(tmp_path / "whole", 20).sha256
    made(folder=tmp_path / "pieces", count=25)
    assert PairStore(tmp_path / "pieces", 25).sha256 != PairStore(tmp_path / "whole", 20).sha256


def test_pairs_that_were_made_in_another_way_are_refused(tmp_path):
    made(folder=tmp_path)
    with pytest.raises(PairError, match=r"made in another way: solver, grid, times, nfe differ"):
        generate(MODEL, get("euler").plan(LinearFlow(), 7, "logsnr"), tmp_path, 20, SEED, solver="euler")
    with pytest.raises(PairError, match="made in another way: seed differ"):
        made(folder=tmp_path, seed=SEED + 1)
    other = dataclasses.replace(MODEL, sha256="1" * 64)
    with pytest.raises(PairError, match="teacher_sha256 differ"):
        generate(other, get("heun").plan(LinearFlow(), 5), tmp_path, 20, SEED, solver="heun")


def test_a_damaged_shard_is_named(tmp_path):
    made(folder=tmp_path)
    shard = tmp_path / "pairs-00001.npy"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:300])
    with pytest.raises(PairError, match=r"pairs-00001.npy is damaged: .*; remove it"):
        PairStore(tmp_path, 20).signal(torch.tensor([9]))
    shard.unlink()
    made(folder=tmp_path)
    assert shard.read_bytes() == whole
    (tmp_path / "pairs.json").write_text("{")
    with pytest.raises(PairError, match=r"pairs.json cannot be read"):
        made(folder=tmp_path)


def test_a_teacher_that_diverges_is_told(tmp_path):
    class Broken(type(image_mixture(LinearFlow(), SHAPE))):
        def _combine(self, x, t, p, r):
            return x * torch.nan

    mixture = image_mixture(LinearFlow(), SHAPE)
    broken = Broken(mixture.path, mixture.means.reshape(-1, *SHAPE), torch.ones(8, dtype=torch.float64))
    model = dataclasses.replace(MODEL, make=lambda *_: broken)
    with pytest.raises(FloatingPointError, match=r"mixture with heun made NaN or infinity of the noise 0\.\."):
        generate(model, get("heun").plan(LinearFlow(), 5), tmp_path, 8, SEED, solver="heun")


def real_images(count=40):
    samples = image_mixture(LinearFlow(), SHAPE, components=4).sample(count, torch.Generator().manual_seed(2))
    pixels = (samples.float() * 127.5 + 128).clamp(0, 255).to(torch.uint8)
    return ImageDataset("real", "train", pixels, torch.zeros(count, dtype=torch.int64))


@pytest.mark.parametrize("path", [LinearFlow(), Edm()], ids=lambda path: path.name)
def test_real_images_are_carried_to_gaussian_noise_that_gives_them_back(path, tmp_path):
    data, model, counted = real_images(), teacher(path), []
    made(folder=tmp_path)
    before = PairStore(tmp_path, 20).sha256
    invert(model, 40, data, tmp_path, 40, batch=7, progress=counted.append)
    variance, correlation = noise_quality(tmp_path)
    assert sum(counted) == 40
    assert PairStore(tmp_path, 20).sha256 != before
    assert variance == pytest.approx(1, abs=0.05)
    assert abs(correlation) < 0.05
    kept = contents(tmp_path)
    invert(model, 40, data, tmp_path, 40)
    assert contents(tmp_path) == kept
    with pytest.raises(PairError, match="made in another way: steps, count differ"):
        invert(model, 20, data, tmp_path, 20)
    torch.manual_seed(0)
    x0, z = PairStore(tmp_path, 20).real(30)
    assert all(any(torch.equal(image, row) for row in data.signal(torch.arange(40))) for image in x0)
    again = get("heun").plan(path, 79, "karras")(model.make(None, None, 0.0, None), path.prior_std * z)
    assert (again - x0).square().mean().sqrt() < 0.02


def test_real_pairs_take_the_place_of_their_share(tmp_path):
    data = real_images()
    made(folder=tmp_path)
    with pytest.raises(PairError, match="has no pairs of real images"):
        PairCoupling(real=0.5).draw(PairStore(tmp_path, 20), torch.arange(20), flip=False)
    invert(MODEL, 5, data, tmp_path, 40)
    store, index = PairStore(tmp_path, 20), torch.arange(20).repeat(50)
    torch.manual_seed(0)
    x0, z = PairCoupling(real=0.3).draw(store, index, flip=False)
    replaced = (z != store.noise(index)).flatten(1).any(1)
    assert 0.25 < replaced.double().mean() < 0.35
    assert torch.equal(x0[~replaced], store.signal(index[~replaced]))
    assert not torch.equal(x0[replaced], store.signal(index[replaced]))


def test_damaged_shards_are_named_and_made_anew(flips, tmp_path, capsys):
    made(folder=tmp_path)
    shard, whole = tmp_path / "pairs-00001.npy", (tmp_path / "pairs-00001.npy").read_bytes()
    sha256 = PairStore(tmp_path, 20).sha256
    for _ in flips(shard, 397):
        with suppress(PairError):
            assert PairStore(tmp_path, 20).sha256 == sha256
    shard.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    made(folder=tmp_path)
    assert capsys.readouterr().err.count(f"{shard} is damaged") == 1
    assert shard.read_bytes() == whole
    manifest = tmp_path / "pairs.json"
    manifest.write_text(manifest.read_text().replace('"nfe": 5', '"nfe": 6'))
    with pytest.raises(PairError, match=r"pairs\.json cannot be read: its checksum"):
        made(folder=tmp_path)
