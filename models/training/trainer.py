"""The training loop: resumable at any step, bit for bit.

All randomness of step k (which images, flips, times, noise, dropout) is a function of (seed, k) alone, so a
run is determined by its recipe, and a state file needs only the weights, their average, the optimiser and k.
"""

from __future__ import annotations

import csv
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torchvision.utils import save_image

from fastsample.datasets.images import ImageDataset
from fastsample.models.checkpoints import CheckpointError, DenoiserMetadata, build_network, save_checkpoint
from fastsample.models.denoiser import NetworkDenoiser
from fastsample.models.training.arithmetic import autocast_for
from fastsample.models.training.config import Recipe
from fastsample.models.training.losses import Loss, regression_loss

__all__ = ["TrainingRun", "preview", "train"]

_LOG = ("step", "images", "loss", "lr", "grad_norm", "seconds")


@dataclass(frozen=True)
class TrainingRun:
    """What `train` leaves behind.

    Attributes:
        checkpoint: safetensors file with the averaged weights.
        images_seen: length of the run so far.
        finished: whether the recipe's length was reached.
    """

    checkpoint: Path
    images_seen: int
    finished: bool


def train(
    recipe: Recipe,
    data: ImageDataset,
    out: str | Path,
    *,
    device: str = "cpu",
    loss: Loss = regression_loss,
    max_minutes: float | None = None,
    save_minutes: float = 5.0,
    compile_network: bool = False,
) -> TrainingRun:
    """Train, or go on with the run found in `out`.

    Writes `<id>.safetensors` (averaged weights), `state.pt`, `log.csv` (one row a step) and `samples.png` to
    `out`, every `save_minutes`, at the end, after `max_minutes`, and on SIGINT or SIGTERM, which stop the run.

    Args:
        recipe: what to train; a run that is resumed may differ from its state in `images` only.
        data: training images; their values are mapped to [-1, 1].
        compile_network: fuse the network with torch.compile; rounds differently, so a run must be resumed alike.

    Raises:
        CheckpointError: when `out` holds the state of another run.
        ValueError: when the data set is smaller than one batch.
        FloatingPointError: when the loss is not finite; the last saved state stays.
    """
    if len(data) < recipe.batch:
        raise ValueError(f"{data.name} {data.split} has {len(data)} images, fewer than one batch of {recipe.batch}")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    autocast, precision = autocast_for(device)
    metadata = _described(recipe, data, loss, precision)
    run = _State(recipe, metadata, out, device)
    if compile_network:
        run.network.compile()
    images = data.images.to(device)
    start = last_save = time.monotonic()
    with run.log_file() as log, _stop_requests() as stopped, _kept_rng(device), _progress() as progress:
        task = progress.add_task(recipe.id, total=recipe.images, completed=run.seen, told="")
        run.network.train()
        while run.seen < recipe.images:
            torch.manual_seed(_seed(recipe.seed, run.step))
            x0 = images[_batch_indices(recipe, len(data), run.step).to(device)]
            if recipe.flip:
                flip = (torch.rand(len(x0)) < 0.5).to(device)
                x0 = torch.where(flip[:, None, None, None], x0.flip(3), x0)
            with autocast:
                value = loss(run.network, x0.float() / 127.5 - 1, recipe).mean()
            told = value.item()
            if not np.isfinite(told):
                raise FloatingPointError(f"{recipe.id}: the loss is {told} at step {run.step}")
            norm, lr = run.update(value)
            now = time.monotonic()
            log.writerow([run.step, run.seen, repr(told), lr, f"{norm:.4g}", f"{now - start:.2f}"])
            speed = f"loss {told:.4f}  {recipe.batch / max(now - run.clock, 1e-9):.0f} images/s"
            run.clock = now
            progress.update(task, completed=run.seen, told=speed)
            over = max_minutes is not None and now - start >= 60 * max_minutes
            if over or stopped.is_set():
                break
            if now - last_save >= 60 * save_minutes:
                run.save()
                last_save = time.monotonic()
        run.save()
    return TrainingRun(run.checkpoint, run.seen, run.seen >= recipe.images)


@torch.no_grad()
def preview(network: nn.Module, recipe: Recipe, shape: tuple[int, ...], steps: int = 20, device: str = "cpu") -> Tensor:
    """Samples in [-1, 1] of that shape by DDIM (arXiv 2010.02502) in uniform steps; the noise has seed 0."""
    path = recipe.noise_path
    denoiser = NetworkDenoiser(network, path, recipe.prediction, time_scale=recipe.time_scale)
    x = path.prior_std * torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    times = np.linspace(path.t_noise, path.t_data, steps + 1).tolist()
    for s, t in pairwise(times):
        x0 = denoiser.x0(x, s)
        x = path.alpha(t) * x0 + path.sigma(t) / path.sigma(s) * (x - path.alpha(s) * x0)
    return x.clamp(-1, 1)


_OPTIMISER_FIELDS = {"batch", "lr", "betas", "weight_decay", "warmup_images", "decay", "grad_clip", "images", "seed"}


def _described(recipe: Recipe, data: ImageDataset, loss: Loss, precision: str) -> DenoiserMetadata:
    """The description of a run that has not begun."""
    return DenoiserMetadata(
        id=recipe.id,
        title=recipe.title,
        network=recipe.network,
        network_args=recipe.network_args,
        image_shape=(3, *data.images.shape[2:]),
        num_classes=0,
        data=f"{data.name} {data.split}",
        data_sha256=data.sha256,
        images_seen=0,
        ema_halflife_images=recipe.ema_halflife_images,
        optimizer={"name": "AdamW", **recipe.model_dump(include=_OPTIMISER_FIELDS)},
        loss=loss.__name__,
        precision=precision,
        path=recipe.path,
        prediction=recipe.prediction,
        time_scale=recipe.time_scale,
        times=recipe.times,
    )


class _State:
    """The network, its average, the optimiser and the step count, with their file."""

    def __init__(self, recipe: Recipe, metadata: DenoiserMetadata, out: Path, device: str) -> None:
        self.recipe, self.metadata, self.out, self.device = recipe, metadata, out, device
        self.file, self.checkpoint = out / "state.pt", out / f"{recipe.id}.safetensors"
        self.clock = time.monotonic()
        with _kept_rng(device):
            torch.manual_seed(_seed(recipe.seed, -1))
            self.network = build_network(metadata).to(device).to(memory_format=torch.channels_last)
        self.ema = {name: p.detach().clone() for name, p in self.network.named_parameters()}
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), recipe.lr, recipe.betas, weight_decay=recipe.weight_decay
        )
        self.step = 0
        if self.file.is_file():
            self._load()

    @property
    def seen(self) -> int:
        return self.step * self.recipe.batch

    def update(self, value: Tensor) -> tuple[float, float]:
        """One step down the gradient of `value`; (norm of the gradient before clipping, learning rate)."""
        lr = self.recipe.lr_at(self.seen)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad()
        value.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.grad_clip)
        self.optimizer.step()
        with torch.no_grad():
            weight = 1 - self.recipe.ema_decay_at(self.seen)
            torch._foreach_lerp_(list(self.ema.values()), list(self.network.parameters()), weight)
        self.step += 1
        return float(norm), lr

    def save(self) -> None:
        """State, averaged weights and a sheet of samples, each written whole or not at all."""
        state = {
            "run": self._identity(),
            "step": self.step,
            "network": self.network.state_dict(),
            "ema": self.ema,
            "optimizer": self.optimizer.state_dict(),
        }
        temporary = self.file.with_name(f".{self.file.name}.{os.getpid()}")
        torch.save(state, temporary)
        temporary.replace(self.file)
        averaged = {**self.network.state_dict(), **self.ema}
        save_checkpoint(self.checkpoint, averaged, self.metadata.model_copy(update={"images_seen": self.seen}))
        network = build_network(self.metadata).to(self.device)
        network.load_state_dict(averaged)
        samples = preview(network.eval(), self.recipe, (64, *self.metadata.image_shape), device=self.device)
        save_image(samples, self.out / "samples.png", nrow=8, normalize=True, value_range=(-1, 1))

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a state to be resumed."""
        facts = {"loss": self.metadata.loss, "data_sha256": self.metadata.data_sha256}
        return {**self.recipe.model_dump(mode="json"), **facts}

    def _load(self) -> None:
        state: dict[str, Any] = torch.load(self.file, map_location=self.device, weights_only=True)
        own, known = self._identity(), state["run"]
        differ = [key for key in own if key != "images" and own[key] != known.get(key)]
        if differ:
            raise CheckpointError(f"{self.file} is the state of another run: it differs in {', '.join(differ)}")
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        self.ema = state["ema"]
        self.optimizer.load_state_dict(state["optimizer"])

    @contextmanager
    def log_file(self) -> Iterator[Any]:
        """A CSV writer on log.csv that goes on after the row of the present step."""
        path = self.out / "log.csv"
        rows: list[tuple[str, ...]] = [_LOG]
        if self.step and path.is_file():
            with path.open(newline="") as file:
                rows = [tuple(row) for row in csv.reader(file)][: self.step + 1]
        with path.open("w", newline="", buffering=1) as file:
            writer = csv.writer(file)
            writer.writerows(rows)
            yield writer


def _seed(seed: int, step: int) -> int:
    """A 64-bit seed for one step; step -1 is the initialisation."""
    return int(np.random.SeedSequence([seed, step + 1]).generate_state(1, np.uint64)[0])


def _batch_indices(recipe: Recipe, count: int, step: int) -> Tensor:
    """Images of one step: each epoch is a new permutation, its incomplete last batch left out."""
    epoch, place = divmod(step, count // recipe.batch)
    order = np.random.default_rng([recipe.seed, epoch, 1]).permutation(count)
    return torch.from_numpy(order[place * recipe.batch : (place + 1) * recipe.batch])


def _kept_rng(device: str) -> AbstractContextManager[None]:
    """Seeds set inside do not reach the caller's generators."""
    return torch.random.fork_rng([device] if torch.device(device).type == "cuda" else [])


@contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, so that a run stops between two steps."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    kept = {number: signal.signal(number, lambda *_: event.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def _progress() -> Progress:
    told = TextColumn("{task.percentage:>3.0f}%  {task.fields[told]}")
    return Progress(TextColumn("{task.description}"), BarColumn(), told, TimeRemainingColumn())
