"""Preconditioned denoisers of EDM (arXiv 2206.00364, table 1) and rfpp's velocity form (arXiv 2405.20320).

All compute D(x; sigma) = c_skip x + c_out F(c_in x; c_noise) for data x = y + sigma n. The constructors
take the arguments that the public checkpoints carry.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from fastsample.models.networks.dhariwal_unet import DhariwalUNet
from fastsample.models.networks.song_unet import SongUNet

__all__ = ["EDMPrecond", "EDMPrecondVel", "VEPrecond", "VPPrecond", "edm_coefficients", "iDDPMPrecond"]

_MODELS: dict[str, type[nn.Module]] = {"SongUNet": SongUNet, "DhariwalUNet": DhariwalUNet}


def edm_coefficients(sigma: Tensor, sigma_data: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """EDM's own (c_skip, c_out, c_in, c_noise), for data of that standard deviation; in the shape of `sigma`."""
    total = sigma**2 + sigma_data**2
    return sigma_data**2 / total, sigma * sigma_data / total.sqrt(), 1 / total.sqrt(), sigma.log() / 4


class _Precond(nn.Module):
    """D around a network of class `model_type`, which gets the further arguments.

    Attributes:
        sigma_min, sigma_max: range of noise levels, in units of the data scale [-1, 1].

    Raises:
        ValueError: for an unknown `model_type`.
    """

    out_multiple = 1  # channels of F per image channel; only the first of them are used

    def __init__(
        self,
        img_resolution: int,
        img_channels: int,
        label_dim: int = 0,
        *,
        model_type: str,
        sigma_min: float = 0.0,
        sigma_max: float = math.inf,
        **model_args: Any,
    ) -> None:
        super().__init__()
        if model_type not in _MODELS:
            raise ValueError(f"unknown network {model_type!r}; known: {', '.join(_MODELS)}")
        self.sigma_min, self.sigma_max = float(sigma_min), float(sigma_max)
        self.model = _MODELS[model_type](
            img_resolution, img_channels, self.out_multiple * img_channels, label_dim, **model_args
        )

    def coefficients(self, sigma: Tensor) -> tuple[Tensor | float, Tensor, Tensor | float, Tensor]:
        """(c_skip, c_out, c_in, c_noise) in the shape of `sigma`."""
        raise NotImplementedError

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """The nearest noise levels that the network knows."""
        return sigma

    def forward(
        self, x: Tensor, sigma: Tensor, class_labels: Tensor | None = None, augment_labels: Tensor | None = None
    ) -> Tensor:
        """The denoised images D, [batch, channels, R, R].

        Args:
            x: noisy images [batch, channels, R, R].
            sigma: noise levels [batch].
            class_labels: [batch, label_dim] one-hot rows (zeros for no class); None means zeros.
            augment_labels: [batch, augment_dim]; None means zeros.
        """
        c_skip, c_out, c_in, c_noise = self.coefficients(sigma.reshape(-1, 1, 1, 1))
        out = self.model(c_in * x, c_noise.flatten(), class_labels, augment_labels)
        return c_skip * x + c_out * out[:, : x.shape[1]]


class EDMPrecond(_Precond):
    """EDM's own preconditioning; sigma_data is the standard deviation of the data."""

    def __init__(self, *args: Any, sigma_data: float = 0.5, model_type: str = "DhariwalUNet", **others: Any) -> None:
        super().__init__(*args, model_type=model_type, **others)
        self.sigma_data = sigma_data

    def coefficients(self, sigma: Tensor) -> tuple[Tensor | float, Tensor, Tensor | float, Tensor]:
        return edm_coefficients(sigma, self.sigma_data)


class VPPrecond(_Precond):
    """The VP formulation of Song et al. (arXiv 2011.13456): the label is (M - 1) t(sigma), F predicts the noise."""

    def __init__(
        self,
        *args: Any,
        beta_d: float = 19.9,
        beta_min: float = 0.1,
        M: int = 1000,
        epsilon_t: float = 1e-5,
        model_type: str = "SongUNet",
        **others: Any,
    ) -> None:
        low, high = (math.sqrt(math.expm1(0.5 * beta_d * t**2 + beta_min * t)) for t in (epsilon_t, 1.0))
        super().__init__(*args, model_type=model_type, sigma_min=low, sigma_max=high, **others)
        self.beta_d, self.beta_min, self.M = beta_d, beta_min, M

    def coefficients(self, sigma: Tensor) -> tuple[Tensor | float, Tensor, Tensor | float, Tensor]:
        # log1p keeps small noise levels exact, where log(1 + sigma^2) loses digits in float32.
        t = ((self.beta_min**2 + 2 * self.beta_d * (sigma**2).log1p()).sqrt() - self.beta_min) / self.beta_d
        return 1.0, -sigma, 1 / (sigma**2 + 1).sqrt(), (self.M - 1) * t


class VEPrecond(_Precond):
    """The VE formulation of Song et al. (arXiv 2011.13456), on data in [-1, 1]."""

    def __init__(
        self, *args: Any, sigma_min: float = 0.02, sigma_max: float = 100.0, model_type: str = "SongUNet", **others: Any
    ) -> None:
        super().__init__(*args, model_type=model_type, sigma_min=sigma_min, sigma_max=sigma_max, **others)

    def coefficients(self, sigma: Tensor) -> tuple[Tensor | float, Tensor, Tensor | float, Tensor]:
        return 1.0, sigma, 1.0, (0.5 * sigma).log()


class iDDPMPrecond(_Precond):  # noqa: N801 - the name in the checkpoints
    """Improved DDPM (arXiv 2102.09672) on the noise levels `u`, M + 1 of them, falling to 0; F also has variances.

    The label is the index of the nearest level, counted from the smallest; solvers should use `round_sigma`.
    """

    out_multiple = 2
    u: Tensor

    def __init__(
        self,
        *args: Any,
        C_1: float = 0.001,
        C_2: float = 0.008,
        M: int = 1000,
        model_type: str = "DhariwalUNet",
        **others: Any,
    ) -> None:
        # In float32 throughout, like the table in the checkpoints: float64 moves the smallest level by 0.05 %.
        def alpha_bar(j: int) -> Tensor:
            return (0.5 * math.pi * torch.tensor(j, device="cpu") / M / (C_2 + 1)).sin() ** 2

        u = torch.zeros(M + 1, device="cpu")
        for j in range(M, 0, -1):
            u[j - 1] = ((u[j] ** 2 + 1) / (alpha_bar(j - 1) / alpha_bar(j)).clip(min=C_1) - 1).sqrt()
        super().__init__(*args, model_type=model_type, sigma_min=float(u[M - 1]), sigma_max=float(u[0]), **others)
        self.M = M
        self.register_buffer("u", torch.tensor(u.tolist()))

    def _nearest(self, sigma: Tensor) -> Tensor:
        return (sigma.flatten()[:, None] - self.u).abs().argmin(1).reshape(sigma.shape)

    def round_sigma(self, sigma: Tensor) -> Tensor:
        return self.u[self._nearest(sigma)].to(sigma.dtype)

    def coefficients(self, sigma: Tensor) -> tuple[Tensor | float, Tensor, Tensor | float, Tensor]:
        return 1.0, -sigma, 1 / (sigma**2 + 1).sqrt(), (self.M - 1 - self._nearest(sigma)).to(sigma.dtype)


class EDMPrecondVel(EDMPrecond):
    """EDM's denoiser as the velocity of the rectified flow x_t = (1 - t) data + t noise (arXiv 2405.20320)."""

    def forward(
        self, x: Tensor, t: Tensor, class_labels: Tensor | None = None, augment_labels: Tensor | None = None
    ) -> Tensor:
        """The velocity (noise - data), [batch, channels, R, R].

        Args:
            x: states [batch, channels, R, R].
            t: times [batch] in (0, 1], 1 is noise; beyond 1 - 1e-5, where x / (1 - t) overflows, that is used.
            class_labels: [batch, label_dim] one-hot rows (zeros for no class); None means zeros.
            augment_labels: [batch, augment_dim]; None means zeros.
        """
        t = t.clamp(max=1 - 1e-5).reshape(-1, 1, 1, 1)
        denoised = super().forward(x / (1 - t), t / (1 - t), class_labels, augment_labels)
        return (x - denoised) / t
