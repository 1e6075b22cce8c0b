"""The protocol of the small trainings: runs of a minute whose effects are known, and what is measured on them.

A study is a data set with the couplings of one kind; its variants are changes of the recipes that ship. Every run is
trained by `fastsample train`'s own functions, saved, loaded as any checkpoint, and sampled with the registered
solvers from t = 0 to 1, all on one bank of noise. Runs and their measurements stay in a folder, so that an
interrupted study goes on. As a script it runs studies: python small_runs.py FOLDER STUDY...
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fastsample.bench.learning.pairs import make_pairs
from fastsample.bench.learning.training import training_data
from fastsample.bench.metrics.frechet import features_distance, symmetric_root
from fastsample.bench.metrics.trajectories import bending, outer_states
from fastsample.datasets.points import POINTS
from fastsample.models.catalogue import open_model
from fastsample.models.checkpoints import ClassifierMetadata, load_model, save_checkpoint
from fastsample.models.denoiser import Denoiser
from fastsample.models.networks.conv_classifier import ConvClassifier
from fastsample.models.path import path_named
from fastsample.models.recorder import Recorder
from fastsample.models.training.pairs import PairStore
from fastsample.models.training.recipe import Recipe, changed, read_recipe
from fastsample.models.training.start import starting_weights
from fastsample.models.training.trainer import train
from fastsample.solvers.solver import get

PATH = path_named("flow").between(0.0, 1.0)

COUPLINGS: dict[str, dict[str, Any]] = {"independent": {}, "beta=20": {}, "beta=5": {}, "beta=1": {}}
_U = {"times": {"kind": "u-shaped"}}
REFLOWS: dict[str, dict[str, Any]] = {
    "2rf_uniform_l2": {},
    "2rf_ushape_l2": _U,
    "2rf_uniform_huber": {"loss": "huber"},
    "2rf_ushape_huber": _U | {"loss": "huber"},
    "2rf_uniform_l2_scratch": {"start": ""},
    "2rf_ushape_perchuber": _U | {"loss": "lpips-huber"},
    "2rf_ushape_perchuber_divt": _U | {"loss": "lpips-huber-1/t"},
}
_PLANE = [name for name in REFLOWS if "perc" not in name]
_DIGITS = ["2rf_uniform_l2", "2rf_ushape_l2", "2rf_ushape_huber", "2rf_ushape_perchuber", "2rf_ushape_perchuber_divt"]

# study: (data set, variants, seeds)
STUDIES: dict[str, tuple[str, list[str], range]] = {
    "gauss8_coupling": ("gauss8", list(COUPLINGS), range(3)),
    "gauss8_reflow": ("gauss8", ["1rf", *_PLANE], range(3)),
    "checker_coupling": ("checker", list(COUPLINGS), range(3)),
    "checker_reflow": ("checker", ["1rf", *_PLANE], range(3)),
    "two_modes_coupling": ("two_modes", list(COUPLINGS), range(3)),
    "digits_coupling": ("digits", list(COUPLINGS), range(2)),
    "digits_reflow": ("digits", ["1rf", *_DIGITS], range(2)),
}


def measured(folder: Path, study: str) -> dict[str, dict[str, list[float]]]:
    """variant -> quantity -> value of each seed; trains and measures what the folder does not hold yet."""
    data, variants, seeds = STUDIES[study]
    found: dict[str, dict[str, list[float]]] = {}
    for seed in seeds:
        for variant in variants:
            file = folder / f"{data}-{variant}-{seed}.json"
            if not file.is_file():
                start = time.process_time()
                values = _measure(folder, data, variant, seed)
                values["cpu_seconds"] = time.process_time() - start
                file.write_text(json.dumps(values, indent=1))
            for quantity, value in json.loads(file.read_text()).items():
                found.setdefault(variant, {}).setdefault(quantity, []).append(value)
    return found


def trained(folder: Path, data: str, variant: str, seed: int) -> Denoiser:
    """The model of a run, from the folder or trained now."""
    name = "independent" if variant == "1rf" else variant
    out, recipe = folder / f"{data}-{name}-{seed}", recipe_of(folder, data, name, seed)
    file = out / f"{recipe.id}.safetensors"
    if name in COUPLINGS:
        train(recipe, training_data(data), out)
    else:
        if recipe.loss.startswith("lpips"):
            classifier(folder, "loss")
        pairs, *_ = pairs_of(folder, data, seed)
        train(recipe, pairs, out, start=starting_weights(recipe) if recipe.start else None)
    model = open_model(str(file))
    return model.make(model.network, None, 0.0, None).on(PATH)


def recipe_of(folder: Path, data: str, variant: str, seed: int) -> Recipe:
    """The recipe of a run: a shipped one with its changes."""
    family = "digits" if data == "digits" else "gauss8"
    if variant == "independent":
        return changed(read_recipe(f"{family}-flow"), {"seed": seed})
    if variant in COUPLINGS:
        recipe = read_recipe(f"{family}-curvature")
        coupling = recipe.coupling.model_dump() | {"beta": float(variant.removeprefix("beta="))}
        return changed(recipe, {"seed": seed, "coupling": coupling})
    recipe = read_recipe(f"{family}-reflow")
    teacher = str(folder / f"{data}-independent-{seed}" / f"{family}-flow.safetensors")
    coupling = recipe.coupling.model_dump() | {"teacher": teacher, "seed": 42 + seed}
    given = {"seed": 100 + seed, "start": teacher, "coupling": coupling, "perceptual": str(_file(folder, "loss"))}
    return changed(recipe, given | REFLOWS[variant])


def pairs_of(folder: Path, data: str, seed: int) -> tuple[PairStore, Tensor, Tensor]:
    """(the pairs that are trained on; x_0 and z of pairs that are not), from the folder or made now by the teacher."""
    trained(folder, data, "independent", seed)
    recipe = recipe_of(folder, data, "2rf_uniform_l2", seed)
    coupling = recipe.coupling.model_dump()
    held_out = torch.arange(2048 if data in POINTS else 1000) + -(-coupling["count"] // 1024) * 1024
    everything = changed(recipe, {"coupling": coupling | {"count": int(held_out[-1]) + 1}})
    store = make_pairs(everything, folder / f"{data}-pairs-{seed}", None, None, "cpu")
    return PairStore(store.folder, coupling["count"]), store.signal(held_out), store.noise(held_out)


def sampled(model: Denoiser, solver: str, nfe: int, noise: Tensor) -> Tensor:
    """Samples of noise [n, ...] from t = 0 to t = 1 in uniform steps."""
    with torch.inference_mode():
        return get(solver).plan(PATH, nfe, "uniform")(model, noise)


def trajectory(model: Denoiser, nfe: int, noise: Tensor, rows: int) -> tuple[Tensor, dict[str, float]]:
    """Euler's samples, and the curvature of the first `rows` of them, absolute and as a share of the transport."""
    plan, recorder = get("euler").plan(PATH, nfe, "uniform"), Recorder(model)
    with torch.inference_mode():
        x = plan(recorder, noise)
        times, z = outer_states(plan, noise, recorder, x)
        bent = {name: float(values.mean()) for name, values in bending(times, z[:, :rows]).items()}
    return x, {f"curv{nfe}": bent["curvature"], f"relcurv{nfe}": bent["curvature"] / bent["transport"]}


def bank(data: str, count: int = 10_000) -> tuple[Tensor, Tensor]:
    """(noise, points) [count, 2], the noise drawn first."""
    generator = torch.Generator().manual_seed(777)
    _, draw, prior_std = POINTS[data]
    return torch.randn(count, 2, generator=generator) * torch.tensor(prior_std), draw(count, generator)


def sliced_wasserstein(a: Tensor, b: Tensor) -> float:
    """Sliced 2-Wasserstein distance of equally many points [n, 2], over 128 directions."""
    directions = F.normalize(torch.randn(128, 2, generator=torch.Generator().manual_seed(123)), dim=1).to(a)
    difference = (a @ directions.T).sort(dim=0).values - (b @ directions.T).sort(dim=0).values
    return float(difference.square().mean().sqrt())


def rmse(a: Tensor, b: Tensor) -> float:
    """Per dimension."""
    return float((a - b).square().mean().sqrt())


def _measure(folder: Path, data: str, variant: str, seed: int) -> dict[str, float]:
    model = trained(folder, data, variant, seed)
    values = plane_values(model, data) if data in POINTS else digits_values(model, folder)
    if variant.startswith("2rf"):
        _, x0, z = pairs_of(folder, data, seed)
        values |= {f"pair_rmse_nfe{n}": rmse(sampled(model, "euler", n, z), x0) for n in (1, 2, 4)}
    return values


def plane_values(model: Denoiser, data: str) -> dict[str, float]:
    """Curvature, SW2 to fresh points, and distances from the solution, which is Runge-Kutta's in 25 steps."""
    noise, points = bank(data)
    found = {n: sampled(model, "euler", n, noise) for n in (1, 2, 4, 8)}
    found[100], values = trajectory(model, 100, noise, 2048)
    values |= {f"sw2_nfe{n}": sliced_wasserstein(x, points) for n, x in found.items()}
    for n in (2, 4, 8):
        values[f"sw2_new_nfe{n}"] = sliced_wasserstein(sampled(model, "rfpp", n, noise), points)
    solution = sampled(model, "rk4", 100, noise[:2048])
    return values | {f"trunc_rmse_nfe{n}": rmse(found[n][:2048], solution) for n in (1, 2, 4)}


def digits_values(model: Denoiser, folder: Path) -> dict[str, float]:
    """Curvature, and Frechet distances of 4,000 samples to all digits, in features of a classifier and in pixels."""
    network, images = classifier(folder, "metric"), digits()
    noise = torch.randn(4000, 1, 8, 8, generator=torch.Generator().manual_seed(777))
    real = features(network, images)
    reference, pixels = _moments(real), _moments(images.flatten(1).double().numpy())
    found = {f"nfe{n}": sampled(model, "euler", n, noise) for n in (1, 2, 4, 8)}
    found["nfe50"], values = trajectory(model, 50, noise, 1000)
    found |= {f"new_nfe{n}": sampled(model, "rfpp", n, noise) for n in (2, 4, 8)}
    solution = sampled(model, "rk4", 48, noise[:1000])
    for name, x in found.items():
        made = features(network, x.clamp(-1, 1))
        values[f"fd_{name}"] = features_distance(made, reference)
        values[f"pixfd_{name}"] = features_distance(x.clamp(-1, 1).flatten(1).double().numpy(), pixels)
        values[f"prec_{name}"], values[f"rec_{name}"] = precision_recall(real[:1500], made[:1500])
        values[f"rmse_{name}"] = rmse(x[:1000], solution)
        values[f"variance_{name}"] = float(x.var(dim=0).mean())
    return values


def _moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return features.mean(0), symmetric_root(np.cov(features, rowvar=False))


def digits() -> Tensor:
    """All digits, float32 [1797, 1, 8, 8] in [-1, 1]."""
    data = training_data("digits")
    return data.signal(torch.arange(len(data)))


def precision_recall(real: np.ndarray, made: np.ndarray, k: int = 3) -> tuple[float, float]:
    """Shares of each [n, d] inside the other's k-nearest-neighbour balls (arXiv 1904.06991)."""

    def inside(points: Tensor, others: Tensor) -> float:
        radii = torch.cdist(others, others).kthvalue(k + 1, dim=1).values
        return float((torch.cdist(points, others) <= radii).any(dim=1).float().mean())

    a, b = torch.from_numpy(real), torch.from_numpy(made)
    return inside(b, a), inside(a, b)


# Two classifiers, so that a loss and the distance that judges it share no features: (widths, seed).
_CLASSIFIERS = {"metric": ([24, 48, 96], 11), "loss": ([16, 32, 64], 22)}


def _file(folder: Path, use: str) -> Path:
    return folder / f"digits-conv-{use}.safetensors"


def classifier(folder: Path, use: str, steps: int = 1500) -> ConvClassifier:
    """A classifier of digits, from the folder or trained now on 80 % of them."""
    widths, seed = _CLASSIFIERS[use]
    if not _file(folder, use).is_file():
        torch.manual_seed(seed)
        args = {"img_resolution": 8, "in_channels": 1, "widths": widths}
        network, data, images = ConvClassifier(**args), training_data("digits"), digits()
        order = torch.randperm(len(images))
        kept, rest = order[: int(0.8 * len(images))], order[int(0.8 * len(images)) :]
        optimizer = torch.optim.Adam(network.parameters(), 1e-3)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            index = kept[torch.randint(len(kept), (128,))]
            x = images[index] + 0.1 * torch.randn(128, 1, 8, 8)
            optimizer.zero_grad()
            F.cross_entropy(_logits(network, x), data.labels[index]).backward()
            optimizer.step()
            cosine.step()
        with torch.no_grad():
            right = _logits(network, images[rest]).argmax(1) == data.labels[rest]
        metadata = ClassifierMetadata(
            id=_file(folder, use).stem, title="Plain classifier of digits", network="ConvClassifier",
            network_args=args, image_shape=(1, 8, 8), num_classes=10, data="digits train, 80 %",
            data_sha256=data.sha256, images_seen=128 * steps, ema_halflife_images=0,
            optimizer={"name": "Adam", "lr": 1e-3, "input_noise": 0.1, "seed": seed}, loss="cross-entropy",
            precision="float32", test_accuracy=float(right.float().mean()), test_data="digits, the other 20 %",
        )  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        save_checkpoint(_file(folder, use), network.state_dict(), metadata)
    found, _, _ = load_model(_file(folder, use))
    assert isinstance(found, ConvClassifier)
    return found


def _features(network: ConvClassifier, x: Tensor) -> Tensor:
    return F.relu(network.feature(network.maps(x)[-1].flatten(1)))


def _logits(network: ConvClassifier, x: Tensor) -> Tensor:
    return network.head(_features(network, x))


def features(network: ConvClassifier, images: Tensor) -> np.ndarray:
    """[n, 64], float64, of images in [-1, 1], which are not rounded."""
    with torch.inference_mode():
        return torch.cat([_features(network, part) for part in images.split(1000)]).double().numpy()


if __name__ == "__main__":
    for study in sys.argv[2:]:
        for variant, values in measured(Path(sys.argv[1]), study).items():
            print(study, variant, {name: round(float(np.mean(v)), 4) for name, v in values.items()}, flush=True)
