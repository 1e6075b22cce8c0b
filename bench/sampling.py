"""From a cell to samples: the network on its device, the noise of each sample, the plan."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from fastsample.bench.cells import Cell
from fastsample.bench.timing import TimedNetwork
from fastsample.models.denoiser import Denoiser
from fastsample.models.noise import labels, normal, step_noise

__all__ = ["Sampler", "choose_device"]

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
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r} is not available: {str(error).splitlines()[0]}") from None
    return device


@dataclass
class Sampler:
    """Draws samples of cells on one device; keeps each network there between cells."""

    device: torch.device
    _networks: dict[tuple[str, str, str], TimedNetwork] = field(default_factory=dict)

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
        key = (cell.model.id, cell.model.sha256, cell.precision)
        if key not in self._networks:
            dtype = torch.float64 if cell.precision == "float64" else torch.float32
            with torch.inference_mode(False):  # autograd, for a classifier's gradient, needs ordinary weights
                self._networks[key] = TimedNetwork(cell.model.network.to(self.device, dtype))
        return self._networks[key]

    def denoiser(self, cell: Cell, indices: list[int]) -> Denoiser:
        """The cell's denoiser for these samples, with their labels."""
        classes = cell.model.num_classes
        given = labels(cell.seed, indices, classes, cell.labels == "balanced").to(self.device) if classes else None
        return cell.model.make(self.network(cell), given, cell.guidance, _AUTOCAST.get(cell.precision))

    def start(self, cell: Cell, indices: list[int]) -> torch.Tensor:
        """x at t_noise: prior_std times the noise of these samples, in the cell's precision, on the device."""
        dtype = torch.float64 if cell.precision == "float64" else torch.float32
        path = cell.model.path
        return path.prior_std * normal(cell.seed, indices, cell.model.shape).to(self.device, dtype)

    def sample(self, cell: Cell, indices: list[int]) -> tuple[torch.Tensor, list[int], int]:
        """(samples, evaluations of each, network calls of one evaluation) of one batch."""
        denoiser = self.denoiser(cell, indices)
        x = self.start(cell, indices)

        def noise(step: int) -> torch.Tensor:
            return step_noise(cell.seed, indices, cell.model.shape, step).to(x)

        x = cell.plan(denoiser, x, noise)
        return x, denoiser.evaluations(len(indices)), denoiser.forwards
