"""From a cell to samples: the network on its device, the noise of each sample, the plan."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from functools import cache
from typing import cast

import torch

from fastsample.bench.cells import Cell
from fastsample.bench.metrics.error import finite
from fastsample.bench.timing import TimedNetwork
from fastsample.bench.tree import Tree
from fastsample.models.catalogue import Model
from fastsample.models.denoiser import Denoiser
from fastsample.models.noise import label_list, labels, normal, step_noise
from fastsample.models.precision import half_dtype, halved, matmul, whole_dtype

__all__ = ["Sampler", "check_precision", "choose_device"]


def choose_device(name: str) -> torch.device:
    """The torch device of that name, made the current one of its kind; `auto` is CUDA where there is one.

    Raises:
        ValueError: for a device that is not there, or does not compute in float64.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except Exception as error:  # of many classes, by backend
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"device {name!r} is not available: {reason}") from None
    try:
        torch.zeros(1, dtype=torch.float64, device=device)
    except (RuntimeError, TypeError):
        raise ValueError(
            f"device {name!r} does not compute in float64, as errors and the steps of adaptive solvers are: give cpu "
            "or cuda"
        ) from None
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # events and streams are of the current one
    return device


def check_precision(precision: str, device: torch.device) -> None:
    """Raise ValueError for a precision that the device does not compute in."""
    if precision == "tf32" and (device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0)):
        raise ValueError(f"tf32 is not available on {device}: it is of NVIDIA GPUs from Ampere on")
    half = half_dtype(precision)
    dtype = half or whole_dtype(precision)
    try:
        torch.zeros(1, dtype=dtype, device=device)
        with warnings.catch_warnings(action="error"), torch.autocast(device.type, dtype, half is not None):
            pass  # where it does not cast, autocast warns and is left off
    except (RuntimeError, TypeError, UserWarning) as error:
        raise ValueError(f"{precision} is not available on {device}: {error}") from None


def _fused(network: torch.nn.Module) -> torch.nn.Module:
    """The network by torch.compile, with the channels of images last; it is compiled at its first call."""
    return cast(torch.nn.Module, torch.compile(network.to(memory_format=torch.channels_last)))


@dataclass
class Sampler:
    """Draws samples of cells on one device; keeps each network there between cells."""

    device: torch.device
    _networks: dict[tuple[str, ...], TimedNetwork] = field(default_factory=dict)

    @property
    def device_name(self) -> str:
        """The device in words, with the number of threads of a CPU."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"{self.device.type} x{torch.get_num_threads()}"

    def network(self, cell: Cell) -> TimedNetwork | None:
        """The cell's network on the device, in the cell's precision; None for exact models."""
        model, precision = cell.model, cell.protocol.precision
        if (network := model.network) is None:
            return None
        compiled = cell.protocol.compiled
        key = (model.id, model.sha256, model.conditions, model.guide, precision, str(compiled))
        with torch.inference_mode(False):  # autograd, for a classifier's gradient, needs ordinary weights
            network.to(self.device, whole_dtype(precision))  # also where it is there: another cell may have moved it
            if key not in self._networks:
                half = half_dtype(precision)
                network = halved(network, half) if half else network
                self._networks[key] = TimedNetwork(_fused(network) if compiled else network)
        return self._networks[key]

    def release(self, model: Model) -> None:
        """Let go of the networks of a model, whatever guides it; another cell of it opens them again."""
        self._networks = {key: one for key, one in self._networks.items() if key[:2] != (model.id, model.sha256)}
        model.release()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def denoiser(self, cell: Cell, indices: list[int]) -> Denoiser:
        """The cell's denoiser for these samples, with their labels."""
        asked, given = cell.protocol, self.labels(cell, indices)
        given = None if given is None else given.to(self.device)
        return cell.model.make(self.network(cell), given, asked.guidance, asked.precision)

    def labels(self, cell: Cell, indices: list[int]) -> torch.Tensor | None:
        """The labels of these samples, int64 [n] on the host; None for models without classes."""
        classes = cell.model.num_classes
        return labels(cell.seed, indices, classes, label_list(cell.protocol.labels, classes)) if classes else None

    def start(self, cell: Cell, indices: list[int]) -> torch.Tensor:
        """x at t_noise: prior_std times the noise of these samples, in the cell's precision, on the device."""
        noise = normal(cell.seed, indices, cell.model.shape).to(self.device, whole_dtype(cell.protocol.precision))
        return cell.model.path.prior_std * noise

    def images(self, cell: Cell, x: torch.Tensor) -> torch.Tensor:
        """The images that samples decode to, in [-1, 1], not clipped; of latent models alone they are another tensor.

        Raises:
            FloatingPointError: for an image that is not finite.
        """
        with matmul("float32"):
            images = cell.model.decode(x)
        finite("decoding returned", images)
        return images

    def sample(
        self, cell: Cell, indices: list[int], denoiser: Denoiser | None = None
    ) -> tuple[torch.Tensor, list[int], list[int]]:
        """(samples, evaluations of each, network calls of each) of one batch.

        Args:
            denoiser: that of these samples, if it is there already.

        Raises:
            FloatingPointError: for a sample that is not finite.
        """
        denoiser = denoiser or self.denoiser(cell, indices)
        x = self.start(cell, indices)
        noise = cache(lambda step: step_noise(cell.seed, indices, cell.model.shape, step).to(x))
        if cell.rows:
            ((_, found, _),) = Tree([cell.rows], x.dtype).walk(denoiser, x, noise, fatal=lambda _: True)
            assert isinstance(found, torch.Tensor)
            x = found
        else:
            x = cell.plan(denoiser, x, noise)
        finite("the network or the solver returned", x)
        return x, denoiser.evaluations(len(indices)), denoiser.calls(len(indices))
