"""From a cell to samples: the network on its device, the noise of each sample, the plan."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import torch

from fastsample.bench.cells import Cell
from fastsample.bench.metrics.error import finite
from fastsample.bench.timing import TimedNetwork
from fastsample.models.denoiser import Denoiser
from fastsample.models.noise import label_list, labels, normal, step_noise

__all__ = ["Sampler", "check_precision", "choose_device"]

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str) -> torch.device:
    """The torch device of that name; `auto` is CUDA where there is one.

    Raises:
        ValueError: for a device that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except Exception as error:  # of many classes, by backend
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"device {name!r} is not available: {reason}") from None
    return device


def check_precision(precision: str, device: torch.device) -> None:
    """Raise ValueError for a precision that the device does not compute in."""
    dtype = _AUTOCAST.get(precision, torch.float64 if precision == "float64" else torch.float32)
    try:
        torch.zeros(1, dtype=dtype, device=device)
        with warnings.catch_warnings(action="error"), torch.autocast(device.type, dtype, precision in _AUTOCAST):
            pass  # where it does not cast, autocast warns and is left off
    except (RuntimeError, TypeError, UserWarning) as error:
        raise ValueError(f"{precision} is not available on {device}: {error}") from None


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
        """The cell's network on the device, in the cell's precision; None for analytic models."""
        if cell.model.network is None:
            return None
        key = (cell.model.id, cell.model.sha256, cell.model.conditions, cell.model.guide, cell.protocol.precision)
        if key not in self._networks:
            dtype = torch.float64 if cell.protocol.precision == "float64" else torch.float32
            with torch.inference_mode(False):  # autograd, for a classifier's gradient, needs ordinary weights
                self._networks[key] = TimedNetwork(cell.model.network.to(self.device, dtype))
        return self._networks[key]

    def denoiser(self, cell: Cell, indices: list[int]) -> Denoiser:
        """The cell's denoiser for these samples, with their labels."""
        asked, given = cell.protocol, self.labels(cell, indices)
        given = None if given is None else given.to(self.device)
        return cell.model.make(self.network(cell), given, asked.guidance, _AUTOCAST.get(asked.precision))

    def labels(self, cell: Cell, indices: list[int]) -> torch.Tensor | None:
        """The labels of these samples, int64 [n] on the host; None for models without classes."""
        classes = cell.model.num_classes
        return labels(cell.seed, indices, classes, label_list(cell.protocol.labels, classes)) if classes else None

    def start(self, cell: Cell, indices: list[int]) -> torch.Tensor:
        """x at t_noise: prior_std times the noise of these samples, in the cell's precision, on the device."""
        dtype = torch.float64 if cell.protocol.precision == "float64" else torch.float32
        path = cell.model.path
        return path.prior_std * normal(cell.seed, indices, cell.model.shape).to(self.device, dtype)

    def images(self, cell: Cell, x: torch.Tensor) -> torch.Tensor:
        """The images that samples decode to, in [-1, 1], not clipped; of latent models alone they are another tensor.

        Raises:
            FloatingPointError: for an image that is not finite.
        """
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

        def noise(step: int) -> torch.Tensor:
            return step_noise(cell.seed, indices, cell.model.shape, step).to(x)

        x = cell.plan(denoiser, x, noise)
        finite("the network or the solver returned", x)
        return x, denoiser.evaluations(len(indices)), denoiser.calls(len(indices))
