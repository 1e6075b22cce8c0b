"""What a run consists of at a step, and its files."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.utils import save_image

from fastsample.datasets.files import open_sealed, warn, write_atomically, write_sealed
from fastsample.models.checkpoints import CheckpointError, DenoiserMetadata, build_network, check_fit, save_checkpoint
from fastsample.models.denoiser import NetworkDenoiser
from fastsample.models.networks import registry
from fastsample.models.public.inert import StoredTensor
from fastsample.models.public.torch_files import load_torch
from fastsample.models.training.couplings import Coupling, LearnedCoupling, MatchedCoupling, TrainingData
from fastsample.models.training.losses import Objective
from fastsample.models.training.pairs import PairCoupling
from fastsample.models.training.perceptual import perceptual_named
from fastsample.models.training.recipe import Learned, MinibatchOT, Pairs, Recipe, RecipeError

__all__ = ["State", "coupling_of", "describe", "kept_rng", "preview", "read_state", "seed_of"]

LOG = ("step", "images", "loss", "penalty", "lr", "grad_norm", "seconds")
_OPTIMISER_FIELDS = {
    "batch", "lr", "betas", "weight_decay", "warmup_images", "schedule", "decay", "grad_clip", "images", "seed",
}  # fmt: skip


def describe(recipe: Recipe, data: TrainingData, precision: str) -> DenoiserMetadata:
    """The description of a run that has not begun."""
    facts = getattr(data, "facts", {})
    return DenoiserMetadata(
        id=recipe.id, title=recipe.title, network=recipe.network, network_args=recipe.network_args,
        image_shape=data.shape, num_classes=recipe.classes, data=f"{data.name} {data.split}", data_sha256=data.sha256,
        images_seen=0, ema_halflife_images=recipe.ema_halflife_images[0],
        optimizer={"name": "AdamW", **recipe.model_dump(include=_OPTIMISER_FIELDS)},
        loss=recipe.loss + (f", features of {recipe.perceptual}" if recipe.loss.startswith("lpips") else ""),
        precision=precision, path=recipe.path, prediction=recipe.prediction, time_scale=recipe.time_scale,
        time_shift=recipe.time_shift, times=recipe.times.kind, coupling=recipe.coupling.kind,
        teacher_sha256=facts.get("teacher_sha256", ""), recipe=recipe.published(),
    )  # fmt: skip


def coupling_of(recipe: Recipe, data: TrainingData) -> Coupling:
    """The coupling of a recipe, with a freshly initialised encoder if it has one."""
    prior_std = getattr(data, "prior_std", (1.0,))
    match recipe.coupling:
        case Learned(beta=beta, network=network, network_args=args):
            return LearnedCoupling(_encoder(network, args), beta, prior_std)
        case MinibatchOT():
            return MatchedCoupling(prior_std)
        case Pairs(real=real):
            return PairCoupling(real)
        case _:
            return Coupling(prior_std)


@torch.no_grad()
def preview(network: nn.Module, recipe: Recipe, shape: tuple[int, ...], steps: int = 20, device: str = "cpu") -> Tensor:
    """Samples in [-1, 1] of that shape by DDIM (arXiv 2010.02502) in uniform steps; the noise has seed 0."""
    path, classes = recipe.convention.path, recipe.classes
    labels = nn.functional.one_hot(torch.arange(shape[0]) % classes, classes).float().to(device) if classes else None
    denoiser = NetworkDenoiser(network, recipe.convention, labels=labels)
    x = path.prior_std * torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    times = np.linspace(path.t_noise, path.t_data, steps + 1).tolist()
    for s, t in pairwise(times):
        x0 = denoiser.x0(x, s)
        x = path.alpha(t) * x0 + path.sigma(t) / path.sigma(s) * (x - path.alpha(s) * x0)
    return x.clamp(-1, 1)


class State:
    """Network and coupling, their averages, the optimiser and the step count, with their files.

    Args:
        start: weights of the network to begin with; None for random ones.

    Raises:
        CheckpointError: when the folder holds the state of another run, or `start` does not fit the network.
        RecipeError: when the network has another number of parameters than the recipe says.
    """

    def __init__(
        self, recipe: Recipe, data: TrainingData, metadata: DenoiserMetadata, out: Path, device: str,
        start: Mapping[str, Tensor] | None,
    ) -> None:  # fmt: skip
        self.recipe, self.metadata, self.out, self.device = recipe, metadata, out, device
        self.file, self.checkpoint = out / "state.pt", out / f"{recipe.id}.safetensors"
        with kept_rng(device):
            torch.manual_seed(seed_of(recipe.seed, -1))
            network, coupling = build_network(metadata), coupling_of(recipe, data)
        count = sum(p.numel() for p in network.parameters())
        if recipe.parameters and count != recipe.parameters:
            raise RecipeError(f"{recipe.id}: its network has {count:,} parameters, and it says {recipe.parameters:,}")
        inner = recipe.network_args.get("network_args", recipe.network_args)
        if "img_resolution" in inner:
            expected = (inner.get("in_channels", data.shape[0]), inner["img_resolution"], inner["img_resolution"])
            if data.shape != expected:
                told = f"{data.name} has samples {data.shape}, and the network of {recipe.id} takes {expected}"
                raise RecipeError(told)
        if start is not None:
            check_fit(network, start, "the teacher's file")
            network.load_state_dict(start)
        perceptual = perceptual_named(recipe.perceptual, device) if recipe.loss.startswith("lpips") else None
        objective = Objective(recipe, network, coupling, perceptual).to(device)
        # Weights of images are fastest with their channels last.
        self.objective = objective.to(memory_format=torch.channels_last) if len(data.shape) == 3 else objective  # type: ignore[call-overload]
        self.emas = [{name: p.detach().clone() for name, p in self._named()} for _ in recipe.ema_halflife_images]
        self.optimizer = torch.optim.AdamW(
            objective.parameters(), recipe.lr, recipe.betas, weight_decay=recipe.weight_decay
        )
        self.scaler = torch.amp.GradScaler(
            torch.device(device).type, 2.0**15, growth_interval=10_000, enabled=recipe.precision == "fp16"
        )
        self.step = 0
        if state := read_state(out, device):
            self._resume(state)

    def _named(self) -> list[tuple[str, nn.Parameter]]:
        return list(self.objective.named_parameters())

    @property
    def seen(self) -> int:
        return self.step * self.recipe.batch

    def update(self) -> tuple[Tensor, float]:
        """One step down the gradient that is there; (norm of the gradient before clipping, learning rate)."""
        lr = self.recipe.lr_at(self.seen)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.objective.parameters(), self.recipe.grad_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        with torch.no_grad():
            current: list[Tensor] = [p for _, p in self._named()]
            for halflife, ema in zip(self.recipe.ema_halflife_images, self.emas, strict=True):
                weight = 1 - self.recipe.ema_decay_at(self.seen, halflife)
                torch._foreach_lerp_(list(ema.values()), current, weight)
        self.step += 1
        return norm, lr

    def save(self) -> None:
        """State, averaged weights and a sheet of samples, each written whole or not at all."""
        state = {
            "run": self._identity(), "step": self.step, "objective": self.objective.state_dict(), "emas": self.emas,
            "optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict(),
        }  # fmt: skip
        write_sealed(self.file, lambda stream: torch.save(state, stream))
        for number, (halflife, ema) in enumerate(zip(self.recipe.ema_halflife_images, self.emas, strict=True), 1):
            file = self.out / f"{self.recipe.id}{f'-ema{number}' if number > 1 else ''}.safetensors"
            facts = {"images_seen": self.seen, "ema_halflife_images": halflife}
            save_checkpoint(file, self._averaged("network.", ema), self.metadata.model_copy(update=facts))
        if len(self.metadata.image_shape) == 3:
            network = build_network(self.metadata).to(self.device)
            network.load_state_dict(self._averaged("network.", self.emas[0]))
            samples = preview(network.eval(), self.recipe, (64, *self.metadata.image_shape), device=self.device)
            save_image(samples, self.out / "samples.png", nrow=8, normalize=True, value_range=(-1, 1))

    def _averaged(self, prefix: str, ema: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors under a prefix: averages of the parameters, buffers as they are."""
        everything = {**self.objective.state_dict(), **ema}
        return {name.removeprefix(prefix): t for name, t in everything.items() if name.startswith(prefix)}

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a state to be resumed."""
        return {**self.recipe.model_dump(mode="json"), "data_sha256": self.metadata.data_sha256}

    def _resume(self, state: Mapping[str, Any]) -> None:
        own, known = self._identity(), state["run"]
        differ = [key for key in own if key != "images" and own[key] != known.get(key)]
        if differ:
            raise CheckpointError(f"{self.file} is the state of another run: it differs in {', '.join(differ)}")
        self.step = state["step"]
        self.objective.load_state_dict(state["objective"])
        self.emas = state["emas"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])

    @contextmanager
    def log_file(self, rank: int) -> Iterator[Any]:
        """A CSV writer on log.csv that goes on after the row of the present step; all but process 0 write nothing."""
        path = self.out / "log.csv" if rank == 0 else Path(os.devnull)
        if rank == 0:
            rows: Sequence[Sequence[str]] = [LOG]
            if self.step and path.is_file():
                with path.open(newline="", encoding="utf-8") as file:
                    rows = list(csv.reader(file))[: self.step + 1]
            text = io.StringIO(newline="")
            csv.writer(text).writerows(rows)
            write_atomically(path, lambda stream: stream.write(text.getvalue().encode()))
        with path.open("a", newline="", buffering=1, encoding="utf-8") as file:
            yield csv.writer(file)


def read_state(out: Path, device: str = "cpu") -> dict[str, Any] | None:
    """The state that a run left in a folder; None where there is none. A damaged one is named and set aside."""
    file = out / "state.pt"
    try:
        with open_sealed(file):  # its checksum
            state = _tensors(load_torch(file), device, [2 * file.stat().st_size])
        if missing := {"run", "step", "objective", "emas", "optimizer", "scaler"} - state.keys():
            raise ValueError(f"it has no {', '.join(sorted(missing))}")
        return state
    except FileNotFoundError:
        return None
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # torch and pickle raise anything for a damaged file without a checksum
        aside = out / "state.damaged.pt"
        warn(f"{file} is damaged ({str(error).partition(chr(10))[0]}): it is moved to {aside}, and the run begins anew")
        with suppress(FileNotFoundError):  # another process was faster
            file.replace(aside)
        return None


def _tensors(value: Any, device: str, left: list[int]) -> Any:
    """What `load_torch` reads, with its tensors in memory of their own, of at most `left[0]` bytes together."""
    if isinstance(value, StoredTensor):
        tensor = value.read("a tensor")
        left[0] -= tensor.nbytes
        if left[0] < 0:
            raise CheckpointError("its tensors claim more than twice its bytes")
        return tensor.to(device, copy=True)
    if isinstance(value, dict):
        return {key: _tensors(item, device, left) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_tensors(item, device, left) for item in value)
    return value


def seed_of(seed: int, step: int, rank: int = 0) -> int:
    """A 64-bit seed for one step; step -1 is the initialisation."""
    entropy = [seed, step + 1, *([rank] if rank else [])]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])


def kept_rng(device: str) -> AbstractContextManager[None]:
    """Seeds set inside do not reach the caller's generators."""
    return torch.random.fork_rng([device] if torch.device(device).type == "cuda" else [])


def _encoder(name: str, args: Mapping[str, Any]) -> nn.Module:
    try:
        return registry.build_network(name, args)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"the encoder {name} refuses its arguments: {error}") from error
