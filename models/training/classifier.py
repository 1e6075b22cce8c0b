"""Training of the embedded classifiers: `cifar10-resnet` for offline metrics, `cifar10-conv` for training losses."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console
from torch import Tensor, nn

from fastsample.datasets.image_set import ImageDataset
from fastsample.models.checkpoints import ClassifierMetadata, save_checkpoint
from fastsample.models.networks.registry import build_network
from fastsample.models.precision import matmul
from fastsample.models.training.process import autocast_for
from fastsample.models.training.state import kept_rng

__all__ = ["CLASSIFIERS", "ClassifierRecipe", "accuracy", "train_classifier"]


class ClassifierRecipe(BaseModel):
    """One-cycle SGD with Nesterov momentum, label smoothing, flips, crops and cutout."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    dataset: str = "cifar10-jpeg"
    network: str = "CifarResNet"
    epochs: int = Field(default=20, ge=1)
    batch: int = Field(default=256, ge=1)
    lr: float = Field(default=0.4, gt=0, description="peak of the cycle")
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    cutout: int = Field(default=8, ge=0, description="side of the erased square in pixels")
    ema_halflife_images: float = Field(default=25_000, gt=0)
    seed: int = 0
    network_args: dict[str, Any] = {"num_classes": 10, "stem": 24, "widths": [48, 96, 192]}


CLASSIFIERS = {
    "cifar10-resnet": ClassifierRecipe(title="Residual CIFAR-10 classifier, feature extractor of the offline metrics"),
    # Not the network of the metrics: a loss and the distance that judges it must not share features.
    "cifar10-conv": ClassifierRecipe(
        title="Plain CIFAR-10 classifier, features of the offline LPIPS loss",
        network="ConvClassifier", network_args={"widths": [24, 48, 96]}, epochs=4, batch=128, lr=0.05, cutout=0,
        seed=22,
    ),
}  # fmt: skip
_NO_OPTIMISER_FIELDS = {"title", "dataset", "network", "network_args"}


@matmul("float32")
def train_classifier(
    name: str, recipe: ClassifierRecipe, train: ImageDataset, test: ImageDataset, out: str | Path, device: str = "cpu"
) -> ClassifierMetadata:
    """Train, measure on `test`, and write `out`/NAME.safetensors after every epoch.

    The test set is looked at for the record only: neither the stopping time nor a setting depends on it.
    """
    with kept_rng(device):
        return _trained(name, recipe, train, test, Path(out), device)


def _trained(
    name: str, recipe: ClassifierRecipe, train: ImageDataset, test: ImageDataset, out: Path, device: str
) -> ClassifierMetadata:
    console = Console()
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    network = build_network(recipe.network, recipe.network_args).to(device).to(memory_format=torch.channels_last)
    images, labels = train.images.to(device), train.labels.to(device)
    steps = len(train) // recipe.batch
    optimizer = torch.optim.SGD(
        network.parameters(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay, nesterov=True
    )
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.lr, total_steps=steps * recipe.epochs, pct_start=0.25, cycle_momentum=False
    )
    decay = 0.5 ** (recipe.batch / recipe.ema_halflife_images)
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(decay), use_buffers=True
    )
    autocast, precision = autocast_for(device)
    with (out / "log.csv").open("w", newline="", encoding="utf-8") as file:
        log = csv.writer(file)
        log.writerow(["epoch", "loss", "test_accuracy", "seconds"])
        start = time.monotonic()
        for epoch in range(recipe.epochs):
            network.train()
            losses = []
            for index in torch.randperm(len(train), device=device)[: steps * recipe.batch].split(recipe.batch):
                with autocast:
                    _, logits = network(_augmented(images[index], recipe.cutout))
                loss = F.cross_entropy(logits.float(), labels[index], label_smoothing=recipe.label_smoothing)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                cycle.step()
                average.update_parameters(network)
                losses.append(loss.detach())
            total = sum(torch.stack(losses).tolist())  # once: a look at a number waits for the device
            correct = accuracy(average.module, test)
            log.writerow([epoch + 1, total / steps, correct, round(time.monotonic() - start, 1)])
            file.flush()
            console.print(f"epoch {epoch + 1}/{recipe.epochs}  loss {total / steps:.4f}  test accuracy {correct:.4f}")
            metadata = ClassifierMetadata(
                id=name,
                title=recipe.title,
                network=recipe.network,
                network_args=recipe.network_args,
                image_shape=train.shape,
                num_classes=10,
                data=f"{train.name} {train.split}",
                data_sha256=train.sha256,
                images_seen=(epoch + 1) * steps * recipe.batch,
                ema_halflife_images=recipe.ema_halflife_images,
                optimizer={"name": "SGD, Nesterov, one cycle", **recipe.model_dump(exclude=_NO_OPTIMISER_FIELDS)},
                loss="cross-entropy",
                precision=precision,
                test_accuracy=correct,
                test_data=f"{test.name} {test.split}",
            )
            save_checkpoint(out / f"{name}.safetensors", average.module.state_dict(), metadata)
    return metadata


@torch.no_grad()
def accuracy(network: nn.Module, data: ImageDataset, batch: int = 500) -> float:
    """Share of `data` that the classifier `network` names correctly, in float32."""
    device = next(network.parameters()).device
    network.eval()
    correct = 0
    for images, labels in zip(data.images.split(batch), data.labels.split(batch), strict=True):
        correct += int((network(images.to(device))[1].argmax(1).cpu() == labels).sum())
    return correct / len(data)


def _augmented(images: Tensor, cutout: int, pad: int = 4) -> Tensor:
    """Random flips, crops after reflection by `pad` pixels, and one erased square per image; uint8 in and out."""
    n, _, height, width = images.shape
    device = images.device
    flip = torch.rand(n, device=device) < 0.5
    images = torch.where(flip[:, None, None, None], images.flip(3), images)
    padded = F.pad(images.float(), (pad,) * 4, mode="reflect").to(torch.uint8)
    top, left = (torch.randint(2 * pad + 1, (n,), device=device) for _ in range(2))
    rows = top[:, None] + torch.arange(height, device=device)
    columns = left[:, None] + torch.arange(width, device=device)
    every = torch.arange(n, device=device)[:, None, None]
    cropped = padded[every, :, rows[:, :, None], columns[:, None, :]]  # [n, height, width, 3]
    if cutout:
        y, x = (torch.randint(size, (n, 1), device=device) for size in (height, width))
        inside_y = (torch.arange(height, device=device) - y).abs() * 2 < cutout
        inside_x = (torch.arange(width, device=device) - x).abs() * 2 < cutout
        cropped.masked_fill_((inside_y[:, :, None] & inside_x[:, None, :])[..., None], 120)
    return cropped.permute(0, 3, 1, 2)
