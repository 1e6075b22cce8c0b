"""The training loop: one for every coupling, path, time distribution and loss, resumable at any step, bit for bit.

All randomness of step k (which samples, flips, times, noise, dropout) is a function of (seed, k) alone, so a run is
determined by its recipe, and a state file needs only the weights, their averages, the optimiser and k. Under torchrun
every process reads and computes its own part of each batch.

On a CUDA device the data lie there if they fit, batches are drawn ahead in a thread while it computes, and the loss is
looked at after some steps only: a look waits for all that was asked for before.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fastsample.models.precision import matmul
from fastsample.models.training.couplings import TrainingData
from fastsample.models.training.losses import Batch, numbers_of
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
    tell: Callable[[str], None] = lambda _: None,
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
        tell: called with the images seen and the loss at each look at it, where no bar shows them.

    Raises:
        CheckpointError: when `out` holds the state of another run, or `start` does not fit the network.
        ValueError: when the data set is smaller than one batch or has more classes than the recipe, or a batch cannot
            be split among the processes.
        FloatingPointError: when the loss is not finite, at the next look at it; the last saved state stays.
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
        looks, ahead = _pace(device)
        pending: list[tuple[int, int, float, str]] = []  # rows of the log without what the device knows of them:
        measured: list[Tensor] = []  # loss, penalty, norm of the gradient
        with (
            run.log_file(rank) as log,
            stop_requests() as stopped,
            progress_bar(rank == 0) as progress,
            closing(_batches(run, _placed(data, device), rank, world, ahead)) as batches,
        ):
            task = progress.add_task(recipe.id, total=recipe.images, completed=run.seen, told="")
            while run.seen < recipe.images:
                batch = next(batches)
                _seed_dropout(run, batch, rank)
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
                norm, lr = run.update()
                now = time.monotonic()
                measured.append(torch.cat([told, norm.reshape(1).to(told)]))
                pending.append((run.step, run.seen, lr, f"{now - begin:.2f}"))
                wanted = stopped.is_set() or (max_minutes is not None and now - begin >= 60 * max_minutes)
                due = now - last_save >= 60 * save_minutes
                last = run.seen >= recipe.images
                # Several processes look at the same steps; one alone looks when it has a reason.
                if not (last or run.step % looks == 0 or (world == 1 and (wanted or due))):
                    continue
                values, stop = agreed(torch.cat(measured), wanted)
                found = np.array(values).reshape(-1, 3)
                for (step, seen, rate, seconds), (value, penalty_value, size) in zip(
                    pending, found.tolist(), strict=True
                ):
                    if not np.isfinite(value + penalty_value):
                        raise FloatingPointError(f"{recipe.id}: the loss is {value + penalty_value} at step {step - 1}")
                    log.writerow([step, seen, repr(value), repr(penalty_value), rate, f"{size:.4g}", seconds])
                speed = f"loss {value:.4f}  {recipe.batch * len(pending) / max(now - clock, 1e-9):.0f} images/s"
                progress.update(task, completed=run.seen, told=speed)
                tell(f"training {recipe.id}: {run.seen:,} of {recipe.images:,} images, {speed}")
                clock = now
                pending.clear()
                measured.clear()
                if stop:
                    break
                if due and rank == 0:
                    run.save()
                    last_save = now
            if rank == 0:
                run.save()
    return TrainingRun(run.checkpoint, run.seen, run.seen >= recipe.images)


def _pace(device: str) -> tuple[int, int]:
    """(steps from one look at the loss to the next, batches drawn ahead): a CPU has nothing to wait for."""
    return (50, 2) if torch.device(device).type == "cuda" else (1, 0)


def _placed(data: TrainingData, device: str) -> TrainingData:
    """The data on the device, if they are held in memory and take at most a quarter of what is free there."""
    held = next((getattr(data, name) for name in ("images", "values") if hasattr(data, name)), None)
    if held is None or torch.device(device).type != "cuda" or 4 * held.nbytes > torch.cuda.mem_get_info(device)[0]:
        return data
    return data.on(device)  # type: ignore[attr-defined]


def _batches(run: State, data: TrainingData, rank: int, world: int, ahead: int) -> Generator[Batch, None, None]:
    """Those of the coming steps; up to `ahead` of them are drawn in a thread before they are asked for."""
    if not ahead:
        while True:
            yield draw(run, data, rank, world)
    coming: deque[Future[Batch]] = deque()
    pool, step = ThreadPoolExecutor(1), run.step
    try:
        while True:
            while len(coming) <= ahead:
                coming.append(pool.submit(draw, run, data, rank, world, step))
                step += 1
            yield coming.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def draw(run: State, data: TrainingData, rank: int = 0, world: int = 1, step: int | None = None) -> Batch:
    """This process's part of the batch of a step, by default the run's present one, on its device."""
    recipe, step = run.recipe, run.step if step is None else step
    generator = torch.Generator().manual_seed(seed_of(recipe.seed, step))
    index = _batch_indices(recipe, len(data), step)
    rows = slice(rank * len(index) // world, (rank + 1) * len(index) // world)
    x0, noise = run.objective.coupling.draw(data, index, recipe.flip, rows, generator)
    times = tuple(recipe.draw_times(len(index), generator)[rows])
    labels = None
    if recipe.classes:
        labels = _moved(nn.functional.one_hot(data.labels[index[rows]], recipe.classes).float(), run.device)
    x0, noise, numbers = (_moved(one, run.device) for one in (x0, noise, numbers_of(recipe, times)))
    return Batch(x0, noise, times, labels, numbers, generator.get_state())


def _moved(tensor: Tensor, device: str) -> Tensor:
    """On the device; to a CUDA device from locked memory, so that nobody waits for it."""
    if torch.device(device).type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _seed_dropout(run: State, batch: Batch, rank: int) -> None:
    """Set PyTorch's generators for a step; the host's goes on after what was drawn, but in other processes than 0."""
    torch.manual_seed(seed_of(run.recipe.seed, run.step, rank))
    if not rank and batch.state is not None:
        torch.set_rng_state(batch.state)


def _batch_indices(recipe: Recipe, count: int, step: int) -> Tensor:
    """Samples of one step: each epoch is a new permutation, its incomplete last batch left out."""
    epoch, place = divmod(step, count // recipe.batch)
    order = _order(recipe.seed, epoch, count)
    return torch.from_numpy(order[place * recipe.batch : (place + 1) * recipe.batch])


@lru_cache(maxsize=1)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch, 1]).permutation(count)
