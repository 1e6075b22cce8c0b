"""Networks of diffusers pipelines as `NetworkDenoiser` calls them, and the way from their latents to images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fastsample.models.foreign.diffusers_schedule import Schedule
from fastsample.models.foreign.text import Texts
from fastsample.models.networks.edm_precond import edm_coefficients

__all__ = ["PipelineNetwork", "packed"]

_DECODED_AT_ONCE = 8  # images of 512x512 take gigabytes each in the decoder


class PipelineNetwork(nn.Module):
    """The network of a pipeline, called as (x, t, labels); it returns what its `Schedule.convention` says.

    Args:
        pipeline: name of its class.
        network: of the pipeline.
        first_stage: its autoencoder; None for a model of pixels.
        schedule: of the pipeline.
        texts: whose embeddings labels stand for; None where labels are classes, or nothing.
        size: height and width of its images, in pixels.
        embedded: guidance that a distilled network takes as an input; None where it has none.
        tiled: decode in overlapping tiles.
        sha256: of the pipeline's files.
    """

    first_stage: Any

    def __init__(
        self,
        pipeline: str,
        network: nn.Module,
        first_stage: nn.Module | None,
        schedule: Schedule,
        *,
        texts: Texts | None = None,
        size: tuple[int, int] = (0, 0),
        embedded: float | None = None,
        tiled: bool = False,
        sha256: str = "",
    ) -> None:
        super().__init__()
        self.network, self.first_stage, self.schedule = network, first_stage, schedule
        self.texts, self.size, self.embedded, self.tiled, self._sha256 = texts, size, embedded, tiled, sha256
        self._ask = _ASK.get(pipeline, _of_class)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """The prediction at t [batch], of labels int64 [batch], in the shape of x [batch, channels, height, width]."""
        given = self.texts.of(labels, x) if self.texts and labels is not None else labels
        schedule, sigma = self.schedule, t.reshape(-1, *[1] * (x.ndim - 1))
        if schedule.sigma_data:
            c_skip, c_out, c_in, c_noise = edm_coefficients(sigma, schedule.sigma_data)
            return c_skip * x + schedule.sign * c_out * self._ask(self, c_in * x, c_noise.flatten(), given)
        out = schedule.sign * self._ask(self, x, t, given)
        return sigma * out if schedule.score else out

    @property
    def units(self) -> tuple[Any, ...]:
        """What numbers in its samples mean: two networks whose units are equal can be asked at one x."""
        image_range = "[0,1]" if self.schedule.score else "[-1,1]"
        return image_range, (1.0,), (0.0,), self._sha256 if self.first_stage else ""  # as of a `PublicNetwork`

    def decode(self, x: Tensor) -> Tensor:
        """Images [batch, 3, height, width], about in [-1, 1] and not clipped, of samples."""
        if self.first_stage is None:
            return 2 * x - 1 if self.schedule.score else x
        config, stage = self.first_stage.config, self.first_stage
        stage.use_tiling = self.tiled
        x = x.to(next(stage.parameters()).dtype) / config.scaling_factor
        mean, deviation = (config.get(name) for name in ("latents_mean", "latents_std"))
        if mean is not None and deviation is not None:
            mean, deviation = (torch.tensor(part).to(x).reshape(-1, 1, 1) for part in (mean, deviation))
            x = x * deviation + mean
        x = x + (config.get("shift_factor") or 0.0)
        return torch.cat([stage.decode(part, return_dict=False)[0] for part in x.split(_DECODED_AT_ONCE)])


def packed(x: Tensor) -> Tensor:
    """Flux's tokens [batch, h/2 w/2, 4 channels] of latents [batch, channels, h, w]: patches of 2x2."""
    n, channels, height, width = x.shape
    x = x.reshape(n, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return x.reshape(n, height // 2 * (width // 2), 4 * channels)


def _unpacked(tokens: Tensor, like: Tensor) -> Tensor:
    n, channels, height, width = like.shape
    tokens = tokens.reshape(n, height // 2, width // 2, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return tokens.reshape(like.shape)


def _of_class(own: PipelineNetwork, x: Tensor, t: Tensor, labels: Any) -> Tensor:
    """UNet2DModel and DiT; learned variances follow the prediction."""
    return own.network(x, t, class_labels=labels, return_dict=False)[0][:, : x.shape[1]]


def _sd(own: PipelineNetwork, x: Tensor, t: Tensor, text: Any) -> Tensor:
    return own.network(x, t, encoder_hidden_states=text[0], return_dict=False)[0]


def _sdxl(own: PipelineNetwork, x: Tensor, t: Tensor, text: Any) -> Tensor:
    size = x.new_tensor([*own.size, 0, 0, *own.size]).expand(len(x), -1)  # original size, no crop, target size
    return own.network(
        x, t, encoder_hidden_states=text[0], added_cond_kwargs={"text_embeds": text[1], "time_ids": size},
        return_dict=False,
    )[0]  # fmt: skip


def _sd3(own: PipelineNetwork, x: Tensor, t: Tensor, text: Any) -> Tensor:
    return own.network(
        hidden_states=x, timestep=t, encoder_hidden_states=text[0], pooled_projections=text[1], return_dict=False
    )[0]  # fmt: skip


def _flux(own: PipelineNetwork, x: Tensor, t: Tensor, text: Any) -> Tensor:
    height, width = x.shape[2] // 2, x.shape[3] // 2
    places = x.new_zeros(height, width, 3)
    places[..., 1] += torch.arange(height).to(x)[:, None]
    places[..., 2] += torch.arange(width).to(x)
    tokens = own.network(
        hidden_states=packed(x), timestep=t / 1000, encoder_hidden_states=text[0], pooled_projections=text[1],
        guidance=None if own.embedded is None else x.new_full((len(x),), own.embedded),
        img_ids=places.reshape(-1, 3), txt_ids=x.new_zeros(text[0].shape[1], 3), return_dict=False,
    )[0]  # fmt: skip
    return _unpacked(tokens, x)


_ASK: dict[str, Callable[[PipelineNetwork, Tensor, Tensor, Any], Tensor]] = {
    "StableDiffusionPipeline": _sd,
    "StableDiffusionXLPipeline": _sdxl,
    "StableDiffusion3Pipeline": _sd3,
    "FluxPipeline": _flux,
}
