"""The tables inside a card: network, path, time, labels, and reported values."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from torch import nn

from fastsample.datasets.names import guidance_words
from fastsample.datasets.own.code import Code, code_named, fault, is_code
from fastsample.models import path as paths
from fastsample.models.checkpoints import MOST_CLASSES
from fastsample.models.networks.registry import build_network, network_names

__all__ = ["Fid", "Labels", "Network", "NoisePath", "Table", "Time"]


class Table(BaseModel):
    """A table without keys that it does not know; it does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Network(Table):
    """A network by the name of its original class, with the arguments as published.

    `module:Class` is a class of a user's own, which is imported and called with the arguments. TOML has no null: the
    text "null" stands for it.
    """

    name: str
    config: dict[str, Any]

    @field_validator("config")
    @classmethod
    def _with_nulls(cls, config: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = _nulls(config)
        return found

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.name not in network_names() and not is_code(self.name):
            raise ValueError(f"unknown network {self.name!r}; known: {', '.join(network_names())}, or module:Class")
        return self

    @property
    def code(self) -> Code | None:
        """A class of a user's own; None for a network of the registry."""
        return code_named(self.name, "models") if is_code(self.name) else None

    def build(self) -> nn.Module:
        """The network, freshly initialised.

        Raises:
            ValueError: for a class that cannot be imported, or arguments that it does not accept.
        """
        if not (code := self.code):
            return build_network(self.name, self.config)
        try:
            network = code.value(**self.config)
        except Exception as error:  # of a user's code
            raise ValueError(f"{self.name} refuses its configuration: {fault(error)}") from error
        if not isinstance(network, nn.Module):
            raise ValueError(f"{self.name} makes {type(network).__name__}, not a torch.nn.Module")
        return network


def _nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _nulls(one) for key, one in value.items()}
    return [_nulls(one) for one in value] if isinstance(value, list) else None if value == "null" else value


class NoisePath(Table):
    """The path that a network was trained on.

    `vp-linear` and `sub-vp` are the continuous VP-SDE and sub-VP-SDE, `vp-discrete` a table of betas, `edm` the VE path
    in sigma, `flow` the linear path with t = 0 for noise.
    """

    name: Literal["vp-linear", "sub-vp", "vp-discrete", "edm", "flow"]
    schedule: Literal["linear", "scaled-linear", "cosine"] = Field(default="linear", description="of vp-discrete")
    steps: int = Field(default=1000, ge=2, le=100_000, description="of vp-discrete")
    beta_first: float = Field(default=1e-4, gt=0, lt=1)
    beta_last: float = Field(default=0.02, gt=0, le=1)
    zero_terminal_snr: bool = Field(
        default=False, exclude_if=lambda said: not said, description="of vp-discrete: betas rescaled (arXiv 2305.08891)"
    )
    sigma_min: float = Field(default=0.002, gt=0, description="of edm")
    sigma_max: float = Field(default=80.0, gt=0, description="of edm")

    @model_validator(mode="after")
    def _applies(self) -> Self:
        if self.zero_terminal_snr and self.name != "vp-discrete":
            raise ValueError("zero_terminal_snr rescales the betas of vp-discrete")
        return self

    def betas(self) -> tuple[float, ...]:
        """The table of vp-discrete: DDPM's (2006.11239), LDM's (2112.10752) or iDDPM's cosine (2102.09672, eq. 17)."""
        betas = self._published_betas()
        return paths.zero_terminal_snr(betas) if self.zero_terminal_snr else betas

    def _published_betas(self) -> tuple[float, ...]:
        n = self.steps
        if self.schedule == "cosine":
            kept = [paths.VPCosine().alpha(i / n) ** 2 for i in range(n + 1)]
            return tuple(min(1 - kept[i + 1] / kept[i], 0.999) for i in range(n))
        power = 0.5 if self.schedule == "scaled-linear" else 1.0
        first, last = self.beta_first**power, self.beta_last**power
        return tuple((first + (last - first) * i / (n - 1)) ** (1 / power) for i in range(n))

    def build(self) -> paths.Path:
        """The path."""
        match self.name:
            case "vp-discrete":
                return paths.DiscreteVP(betas=self.betas())
            case "edm":
                return paths.Edm(t_noise=self.sigma_max, t_data=self.sigma_min, prior_std=self.sigma_max)
            case name:
                return paths.path_named(name)


class Time(Table):
    """What the network is called with: scale * t + shift, or scale * ln(t) + shift, with t of the path."""

    map: Literal["linear", "log"] = "linear"
    scale: float = 1.0
    shift: float = 0.0


class Labels(Table):
    """How a class is given to the network."""

    kind: Literal["none", "one-hot", "index"] = "none"
    classes: int = Field(default=0, ge=0, le=MOST_CLASSES)
    null: bool = Field(default=False, description="index `classes` stands for no class")


class Fid(Table):
    """A reported value: a label, never a target.

    Attributes:
        metric: FID, or EDM2's Frechet distance of DINOv2 features.
        value, sampler: what is reported, and how the samples were made.
        cfg_scale: the published scale s of classifier-free guidance u + s (c - u), c with the class and u without; the
            weight w that `--guidance` takes is s - 1.
        guide: id of the card of another network that u is of, as `--guide` takes it.
        classifier_scale: of classifier guidance, as `--classifier-scale` takes it.
    """

    metric: Literal["fid", "fd_dinov2"] = "fid"
    value: float = Field(gt=0)
    sampler: str
    cfg_scale: float | None = Field(default=None, ge=0)
    guide: str = ""
    classifier_scale: float | None = Field(default=None, gt=0)

    def __str__(self) -> str:
        told = [self.sampler]
        if self.cfg_scale is not None and self.guide:
            told.append(f"{guidance_words(self.cfg_scale)} --guide {self.guide}")
        elif self.cfg_scale is not None:
            told.append(guidance_words(self.cfg_scale))
        if self.classifier_scale is not None:
            scale = f"{self.classifier_scale:g}"
            told.append(f"classifier scale {scale}, here --classifier-scale {scale}")
        return f"{'' if self.metric == 'fid' else f'{self.metric} '}{self.value} ({'; '.join(told)})"
