"""The training loop: one for every coupling, path, time distribution and loss, resumable at any step, bit for bit.

All randomness of step k (which samples, flips, times, noise, dropout) is a function of (seed, k) alone, so a run is
determined by its recipe, and a state file needs only the weights, their averages, the optimiser and k. Under torchrun
every process draws the whole batch and computes its own part of it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fastsample.models.precision import matmul
from fastsample.models.training.couplings import TrainingData
from fastsample.models.training.losses import Batch
from fastsample.models.training.process import agreed, autocast_for, process_group, progress_bar, stop_requests
from fastsample.models.training.recipe import Recipe
from fastsample.models.training.state import State, describe, kept_rng, seed_of

__all__ = ["TrainingRun", "train"]


@dataclass(frozen=True)
class TrainingRun:
    """What `train` leaves behind.

    Attributes:
        checkpoint: safetensors file with the averaged weights of the first half-life.
        images_seen: length of the run so far.
        finished: whether the recipe's length was reached.
    """

    checkpoint: Path
    images_seen: int
    finished: bool


@matmul("float32")
def train(
    recipe: Recipe,
    data: TrainingData,
    out: str | Path,
    *,
    device: str = "cpu",
    start: Mapping[str, Tensor] | None = None,
    max_minutes: float | None = None,
    save_minutes: float = 5.0,
    compile_network: bool = False,
) -> TrainingRun:
    """Train, or go on with the run found in `out`.

    Writes `<id>.safetensors` (averaged weights; `<id>-ema2.safetensors` and so on for further half-lives), `state.pt`,
    `log.csv` (one row a step) and, for images, `samples.png` to `out`, every `save_minutes`, at the end, after
    `max_minutes`, and on SIGINT or SIGTERM, which stop the run. The loss in the log is without the penalty of a
    learned coupling, which has its own column.

    Args:
        recipe: what to train; a run that is resumed may differ from its state in `images` only.
        data: what to train on; a `PairStore` for the coupling pairs.
        start: weights of the network to begin with, such as the teacher's; None for random ones.
        compile_network: fuse the network with torch.compile; rounds differently, so a run must be resumed alike.

    Raises:
        CheckpointError: when `out` holds the state of another run, or `start` does not fit the network.
        ValueError: when the data set is smaller than one batch or has more classes than the recipe, or a batch cannot
            be split among the processes.
        FloatingPointError: when the loss is not finite; the last saved state stays.
    """
    if len(data) < recipe.batch:
        raise ValueError(f"{data.name} {data.split} has {len(data)} samples, fewer than one batch of {recipe.batch}")
    if recipe.classes and (highest := int(data.labels.max())) >= recipe.classes:
        raise ValueError(f"{data.name} {data.split} has a class {highest}; {recipe.id} has 0 to {recipe.classes - 1}")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    autocast, precision = autocast_for(device, recipe.precision)
    with process_group(device) as (rank, world), kept_rng(device):
        if recipe.batch % (world * recipe.accumulate):
            raise ValueError(
                f"a batch of {recipe.batch} cannot be split into {world} x {recipe.accumulate} equal parts"
            )
        run = State(recipe, data, describe(recipe, data, precision), out, device, start)
        if compile_network:
            for module in (run.objective.network, getattr(run.objective.coupling, "encoder", None)):
                if module is not None:
                    module.compile()
        objective: nn.Module = run.objective.train()
        if world > 1:
            # EDM's networks have weights of an augmentation that is not used here.
            objective = DistributedDataParallel(objective, find_unused_parameters=True)
        begin = last_save = clock = time.monotonic()
        with run.log_file(rank) as log, stop_requests() as stopped, progress_bar(rank == 0) as progress:
            task = progress.add_task(recipe.id, total=recipe.images, completed=run.seen, told="")
            while run.seen < recipe.images:
                batch = draw(run, data, rank, world)
                told = torch.zeros(2, device=device)
                micro = len(batch) // recipe.accumulate
                for part in range(recipe.accumulate):
                    last = part == recipe.accumulate - 1
                    together = nullcontext() if world == 1 or last else objective.no_sync()  # type: ignore[operator]
                    with together:
                        with autocast:
                            loss, penalty = objective(batch.part(slice(part * micro, (part + 1) * micro)))
                        parts = torch.stack([loss.mean(), penalty.mean()])
                        run.scaler.scale(parts.sum() / recipe.accumulate).backward()
                    told += parts.detach() / recipe.accumulate
                now = time.monotonic()
                over = max_minutes is not None and now - begin >= 60 * max_minutes
                (value, penalty_value), stop = agreed(told, over or stopped.is_set())
                if not np.isfinite(value + penalty_value):
                    raise FloatingPointError(f"{recipe.id}: the loss is {value + penalty_value} at step {run.step}")
                norm, lr = run.update()
                log.writerow(
                    [run.step, run.seen, repr(value), repr(penalty_value), lr, f"{norm:.4g}", f"{now - begin:.2f}"]
                )
                speed = f"loss {value:.4f}  {recipe.batch / max(now - clock, 1e-9):.0f} images/s"
                progress.update(task, completed=run.seen, told=speed)
                clock = now
                if stop:
                    break
                if now - last_save >= 60 * save_minutes and rank == 0:
                    run.save()
                    last_save = now
            if rank == 0:
                run.save()
    return TrainingRun(run.checkpoint, run.seen, run.seen >= recipe.images)


def draw(run: State, data: TrainingData, rank: int = 0, world: int = 1) -> Batch:
    """This process's part of the batch of the run's present step, on its device; seeds PyTorch's generators."""
    recipe = run.recipe
    torch.manual_seed(seed_of(recipe.seed, run.step))
    index = _batch_indices(recipe, len(data), run.step)
    x0, noise = run.objective.coupling.draw(data, index, recipe.flip)
    times = recipe.draw_times(len(index))
    rows = slice(rank * len(index) // world, (rank + 1) * len(index) // world)
    labels = None
    if recipe.classes:
        labels = nn.functional.one_hot(data.labels[index[rows]], recipe.classes).float().to(run.device)
    if rank:
        torch.manual_seed(seed_of(recipe.seed, run.step, rank))  # of dropout
    return Batch(x0[rows].to(run.device), noise[rows].to(run.device), tuple(times[rows]), labels)


def _batch_indices(recipe: Recipe, count: int, step: int) -> Tensor:
    """Samples of one step: each epoch is a new permutation, its incomplete last batch left out."""
    epoch, place = divmod(step, count // recipe.batch)
    order = _order(recipe.seed, epoch, count)
    return torch.from_numpy(order[place * recipe.batch : (place + 1) * recipe.batch])


@lru_cache(maxsize=1)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch, 1]).permutation(count)
