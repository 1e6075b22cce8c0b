"""The arithmetic of a solver for each network call, beside the schedulers of diffusers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import diffusers
import torch
from printer import Line, seconds

from fastsample.models.convention import Convention
from fastsample.models.denoiser import NetworkDenoiser
from fastsample.models.path import DiscreteVP
from fastsample.solvers.solver import get

__all__ = ["lines"]

_SHAPE, _STEPS = (64, 3, 32, 32), 20
_PAIRS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("ddim", "DDIMScheduler", {"clip_sample": False}),
    ("edm-euler", "EulerDiscreteScheduler", {}),
    ("dpmpp-2m", "DPMSolverMultistepScheduler", {}),
    ("unipc", "UniPCMultistepScheduler", {}),
    ("edm-heun", "HeunDiscreteScheduler", {}),
)


class _Given(torch.nn.Module):
    """A network that costs nothing."""

    def __init__(self, output: torch.Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return self.output


@torch.inference_mode()
def lines() -> Iterator[Line]:
    """Five solvers on a network of noise that costs nothing, [64, 3, 32, 32] in float32; seconds for each call."""
    x, output = torch.randn(_SHAPE), torch.randn(_SHAPE)
    path = DiscreteVP.ddpm()
    denoiser = NetworkDenoiser(_Given(output), Convention(path, "eps", 999.0))
    for name, theirs, options in _PAIRS:
        plan = get(name).plan(path, _STEPS)
        scheduler = getattr(diffusers, theirs)(**options)

        def play(scheduler: Any = scheduler) -> None:
            scheduler.set_timesteps(_STEPS)
            state = x * scheduler.init_noise_sigma
            for t in scheduler.timesteps:
                scheduler.scale_model_input(state, t)
                state = scheduler.step(output, t, state).prev_sample

        ours = seconds(lambda plan=plan: plan(denoiser, x)) / plan.nfe  # type: ignore[misc]
        yield Line(f"{name}, a call", ours, f"diffusers' {theirs}", seconds(play) / len(scheduler.timesteps))
