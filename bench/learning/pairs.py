"""Sampling with a teacher: the pairs of a reflow, from its recipe (arXiv 2209.03003, section 2.2).

What a folder of pairs holds is told in `fastsample.models.training.pairs`, which reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import TaskID
from torch.distributed import barrier

from fastsample.datasets.files import read_arrays, warn, write_arrays, write_sealed
from fastsample.datasets.home import data_home
from fastsample.datasets.image_set import ImageDataset
from fastsample.datasets.images import dataset_named
from fastsample.models.catalogue import Model, open_model
from fastsample.models.noise import labels, normal
from fastsample.models.precision import matmul
from fastsample.models.training import pairs as files
from fastsample.models.training.pairs import PairStore, noise_quality
from fastsample.models.training.process import progress_bar
from fastsample.models.training.recipe import Pairs, Recipe, RecipeError
from fastsample.solvers.grids import GRIDS, Grid
from fastsample.solvers.numerics import NUMERICS
from fastsample.solvers.solver import Plan, get
from fastsample.solvers.spec import Spec

__all__ = ["generate", "invert", "make_pairs"]


def make_pairs(
    recipe: Recipe, folder: Path, dataset: str | None = None, data: Path | None = None, device: str = "cpu",
    process: tuple[int, int] = (0, 1), console: Console | None = None, tell: Callable[[str], None] = lambda _: None,
) -> PairStore:  # fmt: skip
    """The pairs of a reflow recipe in that folder; those that are not there yet are made by the teacher.

    Args:
        dataset, data: of the real images, if the recipe wants some inverted; by default the recipe's.
        process: (rank, number of processes); each makes a part of them.
        console: where the progress of a download is shown.
        tell: called with the pairs that are made, where no bar shows them.
    """
    coupling = recipe.coupling
    assert isinstance(coupling, Pairs)
    model = open_model(coupling.teacher, home=data_home(), console=console)
    plan = _plan(coupling, model)
    rank, world = process
    with progress_bar(rank == 0) as progress:
        told = f"{coupling.solver} NFE {plan.nfe}"

        def advance(task: TaskID, n: int) -> None:
            progress.advance(task, n)
            now = progress.tasks[task]
            tell(f"{now.description}: {now.completed:,.0f} of {now.total:,.0f}")

        task = progress.add_task(f"pairs of {model.id}", total=coupling.count / world, told=told)
        generate(
            model, plan, folder, coupling.count, coupling.seed, solver=coupling.solver, device=device,
            process=process, progress=lambda n: advance(task, n),
        )  # fmt: skip
        if coupling.real_count:
            images = dataset_named(dataset or recipe.dataset, "train", data).loaded()
            task = progress.add_task("real images to noise", total=coupling.real_count / world, told="heun")
            invert(
                model, plan.nfe // 2 + 1, images, folder, coupling.real_count, device=device, process=process,
                progress=lambda n: advance(task, n),
            )  # fmt: skip
        if world > 1:
            barrier()
        if coupling.real_count:
            said = "inverted noise: variance {:.3f}, neighbours' correlation {:.3f}".format(*noise_quality(folder))
            progress.console.print(said)
    return PairStore(folder, coupling.count)


def _plan(coupling: Pairs, model: Model) -> Plan:
    spec = Spec.parse(coupling.solver).on(Grid.parse(coupling.grid) if coupling.grid else None)
    plan, _ = spec.plan_for(model, coupling.nfe)
    if plan.solver.stochastic:
        raise RecipeError(f"pairs are ends of an ODE's trajectories, and solver {spec.name} draws noise on the way")
    return plan


@torch.inference_mode()
@matmul("float32")
def generate(
    model: Model,
    plan: Plan,
    folder: Path,
    count: int,
    seed: int,
    *,
    solver: str,
    device: str = "cpu",
    batch: int = 64,
    process: tuple[int, int] = (0, 1),
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Make pairs, or those that a folder still lacks: shards that are there are kept.

    Args:
        model: the teacher; `plan` is how it samples, and `solver` says that in words.
        count, seed: pair i has the noise (seed, i).
        process: (rank, number of processes) that share the work; this one makes every number-th shard.
        progress: called with the number of pairs made or found.

    Raises:
        PairError: when the folder holds pairs that were made in another way.
        FloatingPointError: when the teacher returns NaN or infinity; the shards before stay.
    """
    facts = {
        "format": 1, "teacher": model.id, "teacher_sha256": model.sha256, "solver": solver, "grid": str(plan.grid),
        "times": list(plan.times), "nfe": plan.nfe, "seed": seed, "shape": list(model.image_shape),
        "classes": model.num_classes, "numerics": NUMERICS,
    }  # fmt: skip
    files.agree(folder / files.MANIFEST, facts)
    network = model.network.to(device) if model.network is not None else None
    whole = -(-count // files.SHARD) * files.SHARD  # of the last shard too
    for file, rows in _missing(whole, process, lambda index: files.shard_file(folder, index), _is_sound, progress):
        parts = []
        for low in range(rows.start, rows.stop, batch):
            indices = range(low, min(low + batch, rows.stop))
            given = labels(seed, indices, model.num_classes).to(device) if model.num_classes else None
            start = model.path.prior_std * normal(seed, indices, model.shape).to(device)
            x = model.decode(plan(model.make(network, given, 0.0, None), start)).float()
            if not bool(x.isfinite().all()):
                raise FloatingPointError(f"{model.id} with {solver} made NaN or infinity of the noise {low}..")
            parts.append(files.encoded(x.cpu()))
            progress(len(indices))
        made = np.concatenate(parts)
        write_sealed(file, lambda stream, made=made: np.save(stream, made, allow_pickle=False))  # type: ignore[misc]


def _missing(
    count: int, process: tuple[int, int], named: Callable[[int], Path], there: Callable[[Path], object],
    progress: Callable[[int], None],
) -> Iterator[tuple[Path, range]]:  # fmt: skip
    """This process's shards of `count` rows that are not there yet: their files and rows."""
    for index in range(process[0], -(-count // files.SHARD), process[1]):
        rows = range(index * files.SHARD, min((index + 1) * files.SHARD, count))
        if there(named(index)):
            progress(len(rows))
        else:
            yield named(index), rows


def _is_sound(file: Path) -> bool:
    """Whether a shard is there and as it was written; a damaged one is named."""
    try:
        return file.is_file() and len(files.opened(file)) == files.SHARD
    except files.PairError as error:
        warn(str(error))
        return False


@torch.inference_mode()
@matmul("float32")
def invert(
    model: Model,
    steps: int,
    data: ImageDataset,
    folder: Path,
    count: int,
    *,
    device: str = "cpu",
    batch: int = 64,
    process: tuple[int, int] = (0, 1),
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Carry the first `count` images of `data` to noise by Heun's method on the model's ODE, run backwards.

    Args:
        steps: from the data end of the model's path to its noise end, of EDM's grid (arXiv 2206.00364, eq. 5) on its
            path, and equal ones on others. The images are first given the noise of the data end.
        process: as in `generate`.

    Raises:
        PairError: when the folder holds real images that were inverted in another way.
        FloatingPointError: when the teacher returns NaN or infinity; the shards before stay.
    """
    facts = {"format": 1, "teacher_sha256": model.sha256, "data_sha256": data.sha256, "steps": steps, "count": count}
    files.agree(folder / files.REAL_MANIFEST, facts)
    path, network = model.path, model.network.to(device) if model.network is not None else None
    times = GRIDS["karras" if path.name == "edm" else "uniform"](path, steps, path.t_data, path.t_noise)
    for file, some in _missing(count, process, lambda index: folder / f"real-{index:05d}.npz", read_arrays, progress):
        rows, found = torch.arange(some.start, some.stop), []
        for part in rows.split(batch):
            given = data.labels[part].to(device) if model.num_classes else None
            denoiser = model.make(network, given, 0.0, None)
            x = path.alpha(times[0]) * data.signal(part).to(device)
            x = x + path.sigma(times[0]) * normal(0, part.tolist(), model.shape).to(device)
            x = get("heun").solve(denoiser, x, times)
            if not bool(x.isfinite().all()):
                raise FloatingPointError(f"{model.id} made NaN or infinity of the images {int(part[0])}..")
            found.append((x / path.prior_std).cpu().numpy().astype(np.float16))
            progress(len(part))
        write_arrays(file, {"images": data.images[rows].numpy(), "noise": np.concatenate(found)})
