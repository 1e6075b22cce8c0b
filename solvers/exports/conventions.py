"""What networks of other programs take and return."""

from __future__ import annotations

from fastsample.models.denoiser import Prediction, convert, weights
from fastsample.models.path import DiscreteVP, LinearFlow, Path, ScaledFlow, SubVPLinear, VPCosine, VPLinear
from fastsample.solvers.table_file import TableFile

__all__ = ["from_output", "timestep_map"]


def timestep_map(path: Path, steps: int = 1000) -> tuple[float, float] | None:
    """(scale, shift) such that scale t + shift is the timestep that networks of public pipelines take; None if unknown.

    A network of N noise levels has index i at t = (i + 1) / N, so it takes N t - 1 (arXiv 2206.00927, appendix D.2);
    so does one with the linear betas of DDPM, whose limit VP-linear is. Flow models take N sigma = N (1 - t).

    Args:
        steps: N where the path itself has none.
    """
    if isinstance(path, DiscreteVP):
        return float(len(path.betas)), -1.0
    if isinstance(path, VPLinear | VPCosine) and not isinstance(path, SubVPLinear):
        return float(steps), -1.0
    if isinstance(path, LinearFlow) and not isinstance(path, ScaledFlow):
        return -float(steps), float(steps)
    return None


def from_output(file: TableFile, prediction: Prediction) -> list[tuple[float, float]]:
    """(c_x, c_f) of every evaluation, such that the table's f_i is c_x x_i + c_f times the network's prediction.

    Raises:
        ValueError: where that prediction says nothing more than x, as eps at alpha = 0.
    """
    path = file.noise_path
    try:
        return [convert(path, t, prediction, weights(path, t, file.coordinate)) for t in file.times]
    except ZeroDivisionError as error:
        raise ValueError(str(error)) from None
