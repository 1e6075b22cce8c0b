"""Training recipes: everything that decides the numbers of a run, and nothing else."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fastsample.models.denoiser import Prediction
from fastsample.models.path import Path, path_named

__all__ = ["RECIPES", "Recipe", "recipe_named"]


class Recipe(BaseModel):
    """A regression run for one network on one path.

    Sizes are counted in images, not steps, so that a recipe says the same at every batch size.
    The learning rate rises over `warmup_images`, stays, and falls linearly to zero over the last
    `decay` share of the run; so a run may be prolonged or shortened while it is in its flat part.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    title: str
    dataset: str
    network: Literal["SongUNet"] = "SongUNet"
    network_args: dict[str, Any]
    path: str
    prediction: Prediction
    times: Literal["uniform", "logit-normal"] = "uniform"
    time_scale: float = Field(default=1000.0, gt=0, description="the network is called with time_scale * t")
    images: int = Field(gt=0, description="length of the run")
    batch: int = Field(default=64, gt=0)
    lr: float = Field(default=2e-3, gt=0)
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = Field(default=0.0, ge=0)
    warmup_images: int = Field(default=20_000, gt=0)
    decay: float = Field(default=0.3, gt=0, le=1)
    grad_clip: float = Field(default=1.0, gt=0, description="largest norm of the gradient")
    ema_halflife_images: float = Field(default=30_000, gt=0)
    flip: bool = True
    seed: int = 0

    @property
    def noise_path(self) -> Path:
        """The path the network is trained on; times are drawn between its two ends."""
        return path_named(self.path)

    def lr_at(self, seen: int) -> float:
        """Learning rate after `seen` images."""
        left = (self.images - seen) / (self.decay * self.images)
        return self.lr * max(0.0, min(1.0, (seen + self.batch) / self.warmup_images, left))

    def ema_decay_at(self, seen: int) -> float:
        """Weight of the old average in the step after `seen` images; the half-life is at most 5 % of `seen`."""
        halflife = min(self.ema_halflife_images, 0.05 * seen)
        return 0.5 ** (self.batch / halflife) if halflife else 0.0


_TINY = {
    "img_resolution": 32,
    "in_channels": 3,
    "out_channels": 3,
    "model_channels": 16,
    "channel_mult": [1, 2, 4],
    "num_blocks": 1,
    "attn_resolutions": [8],
    "dropout": 0.0,
}

RECIPES: dict[str, Recipe] = {
    recipe.id: recipe
    for recipe in (
        Recipe(
            id="cifar10-tiny-vp",
            title="Tiny DDPM++ on CIFAR-10 (JPEG), VP path, v-prediction",
            dataset="cifar10-jpeg",
            network_args=_TINY,
            path="vp-linear",
            # At t = 1 the signal is 0.7 % of the noise: after a run this short the error of a noise
            # prediction is still many times the signal there, and samples lose their mean colour.
            prediction="v",
            images=640_000,
        ),
        Recipe(
            id="cifar10-tiny-flow",
            title="Tiny DDPM++ on CIFAR-10 (JPEG), linear flow path, velocity prediction",
            dataset="cifar10-jpeg",
            network_args=_TINY,
            path="flow",
            prediction="velocity",
            times="logit-normal",
            images=700_000,
        ),
    )
}


def recipe_named(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        ValueError: for an unknown name; the message lists the known ones.
    """
    if name not in RECIPES:
        raise ValueError(f"unknown training recipe {name!r}; known: {', '.join(RECIPES)}")
    return RECIPES[name]
