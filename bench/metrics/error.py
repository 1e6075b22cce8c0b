"""Errors of samples against the reference solutions of the same noise."""

from __future__ import annotations

import numpy as np
import torch

__all__ = ["finite", "psnr_values", "snr_values", "square_errors", "summarise_psnr"]


def finite(what: str, value: torch.Tensor | np.ndarray) -> None:
    """Raise FloatingPointError, which names what it is, unless every number is finite."""
    if not bool(torch.isfinite(torch.as_tensor(value)).all()):
        raise FloatingPointError(f"{what} NaN or infinity")


def psnr_values(x: torch.Tensor, reference: torch.Tensor) -> np.ndarray:
    """Per-sample PSNR [n] in dB, float64: 10 log10(R^2 / MSE).

    Images [n, channels, height, width] are clamped to [-1, 1] and R = 2; all others, such as points [n, d] of the
    plane mixtures and [n, channels, length], are taken as they are and R = 4. An MSE below 1e-20 counts as
    1e-20, so that equal samples give a number and not infinity.
    """
    x, reference, peak = x.double(), reference.double(), 4.0
    if x.ndim == 4:
        x, reference, peak = x.clamp(-1, 1), reference.clamp(-1, 1), 2.0
    mse = (x - reference).square().flatten(1).mean(1).clamp(min=1e-20)
    return np.asarray((10 * torch.log10(peak * peak / mse)).cpu().numpy())


def snr_values(x: torch.Tensor, reference: torch.Tensor) -> np.ndarray:
    """Per-sample signal-to-noise ratio [n] in dB, float64: 10 log10(mean reference^2 / MSE), nothing clamped.

    What BNS reports of audio (arXiv 2403.01329). As with `psnr_values` an MSE has a least value, relative here.
    """
    x, reference = x.double().flatten(1), reference.double().flatten(1)
    power = reference.square().mean(1)
    mse = (x - reference).square().mean(1).clamp(min=1e-20 * power.clamp(min=1e-20))
    return np.asarray((10 * torch.log10(power.clamp(min=1e-40) / mse)).cpu().numpy())


def square_errors(x: torch.Tensor, reference: torch.Tensor) -> np.ndarray:
    """Per-sample mean square error per dimension [n], float64, of x [n, ...] as it is: nothing is clamped.

    The root of their mean over samples is `truncation`: how far a solver's result is from the reference solution of
    the same noise, 0 for an exact solver. Both are states of the ODE at its end (latents, where a model has them),
    or with `denoise` the data predictions there.
    """
    return np.asarray((x.double() - reference.double()).square().flatten(1).mean(1).cpu().numpy())


def summarise_psnr(values: np.ndarray) -> dict[str, float]:
    """Mean over samples (the headline), median, and the PSNR of the pooled MSE."""
    pooled = -10 * np.log10(np.mean(10 ** (-values / 10)))
    return {"psnr": float(values.mean()), "psnr_median": float(np.median(values)), "psnr_pooled": float(pooled)}
