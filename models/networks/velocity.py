"""Diffusion networks as velocity networks of the linear path (arXiv 2405.20320, proposition 1).

A reflow starts from the weights of a diffusion model: wrapped in `Velocity` they are a rectified flow before any
training, since all Gaussian paths are one path in other units: z_s = (1 - s) x_0 + s eps is the point
alpha / (1 - s) z_s of a path with alpha and sigma, at its time where sigma / alpha = s / (1 - s).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastsample.models.convention import Convention
from fastsample.models.path import DiscreteVP, Path, VPLinear, path_named

__all__ = ["Velocity"]

_DIFFUSION = ("eps", "x0", "v")
_KNOWN = {"edm": ("edm-F",), "vp-linear": _DIFFUSION, "vp-discrete": _DIFFUSION, "flow": (*_DIFFUSION, "velocity")}
_EDGE = 1e-5


class Velocity(nn.Module):
    """A diffusion network F as the velocity x_0 - eps of the linear path z_s = (1 - s) x_0 + s eps.

    With Q = s^2 + (1 - s)^2, and q = sqrt(Q) on VP paths, whose z_s / q has unit alpha^2 + sigma^2, and q = 1 on the
    linear path, it is

        eps         (z - F) / (1 - s)
        x0          (F - z) / s
        v           (1 - 2 s) / Q z - q / Q F           v = alpha eps - sigma x_0 (arXiv 2202.00512)
        velocity    F

    for F(z / q, label), and for EDM's raw network (arXiv 2206.00364, table 1) with data of standard deviation d, and
    R = s^2 + d^2 (1 - s)^2,

        edm-F       (d^2 (1 - s) - s) / R z + d / sqrt(R) F(z / sqrt(R), label),

    the preconditioned denoiser without its divisions by s and 1 - s, which cost digits at both ends.

    Its parameters are those of the network under the prefix `model.`, as in the files of rfpp.

    Args:
        network: called as network(x, label) or network(x, label, class_labels); returns F in the shape of x.
        path: "edm", "vp-linear" (beta from 0.1 to 20), "vp-discrete" (DDPM's linear table), or "flow".
        prediction: what F is: "edm-F" on edm; "eps", "x0" or "v" on the others, or "velocity" on flow.
        time_scale, time_shift: the label is time_scale * t + time_shift. t is that of `fastsample.models.path`, 1 - s
            on flow; on edm it is c_noise = ln(sigma) / 4.
        sigma_data: d.

    Raises:
        ValueError: for an unknown path, or a prediction that it does not go with; the message lists the known ones.
    """

    fallen: Tensor

    def __init__(
        self,
        network: nn.Module,
        path: str,
        prediction: str,
        time_scale: float = 1.0,
        time_shift: float = 0.0,
        sigma_data: float = 0.5,
    ) -> None:
        super().__init__()
        if path not in _KNOWN:
            raise ValueError(f"unknown path {path!r} of a velocity; known: {', '.join(_KNOWN)}")
        if prediction not in _KNOWN[path]:
            raise ValueError(f"unknown prediction {prediction!r} on path {path}; known: {', '.join(_KNOWN[path])}")
        self.model = network
        self.convention = Convention(path_named(path), prediction, time_scale, time_shift)
        self.path, self.prediction, self.sigma_data = self.convention.path, prediction, sigma_data
        # The shares of noise that F is asked for. Beyond the ends of a diffusion F can only be asked for the end, and
        # dividing what it misses by 1 - s, or s, would blow it up: there z is taken for a point of the end.
        self.span = (0.0, 1.0) if prediction == "velocity" else (_EDGE, 1 - _EDGE)
        if isinstance(self.path, VPLinear | DiscreteVP):
            self.span = (_noise_share(self.path, self.path.t_data), _noise_share(self.path, self.path.t_noise))
        fallen = [-log_alpha for log_alpha in self.path.log_alphas] if isinstance(self.path, DiscreteVP) else []
        self.register_buffer("fallen", torch.tensor(fallen, dtype=torch.float64), persistent=False)

    def forward(self, z: Tensor, s: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """The velocity, data minus noise, in the shape of z.

        Args:
            z: states [batch, ...].
            s: shares of noise [batch], 0 at data, 1 at pure noise. The network's label has their dtype.
            class_labels: what the network takes, or None.
        """
        label, scales = self._coefficients(s.double())
        c_in, c_z, c_f = (c.to(z.dtype).reshape(-1, *[1] * (z.ndim - 1)) for c in scales)
        label = self.convention.label(label).to(s.dtype)
        given = [] if class_labels is None else [class_labels]
        out: Tensor = c_z * z + c_f * self.model(c_in * z, label, *given)
        return out

    def _coefficients(self, s: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """(t, (c_in, c_z, c_f)) of the velocity c_z z + c_f F(c_in z, t), float64 [batch]."""
        clamped = s.clamp(*self.span)
        if self.prediction == "edm-F":
            d = self.sigma_data
            c_in = (s**2 + d**2 * (1 - s) ** 2).rsqrt()
            return clamped.logit() / 4, (c_in, (d**2 * (1 - s) - s) * c_in**2, d * c_in)
        s, one = clamped, torch.ones_like(clamped)
        total = s**2 + (1 - s) ** 2
        c_in = one if self.path.name == "flow" else total.rsqrt()
        match self.prediction:
            case "eps":
                return self._time(s), (c_in, 1 / (1 - s), -1 / (1 - s))
            case "x0":
                return self._time(s), (c_in, -1 / s, 1 / s)
            case "v":
                return self._time(s), (c_in, (1 - 2 * s) / total, -1 / (c_in * total))
            case _:
                return self._time(s), (one, 0 * one, one)

    def _time(self, s: Tensor) -> Tensor:
        """The time of the path with sigma / alpha = s / (1 - s)."""
        if self.path.name == "flow":
            return 1 - s
        fallen = 0.5 * (s / (1 - s)).square().log1p()  # -log alpha, as alpha^2 + sigma^2 = 1
        if isinstance(self.path, VPLinear):
            low, rise = self.path.beta_min, self.path.beta_max - self.path.beta_min
            return 4 * fallen / ((low**2 + 4 * rise * fallen).sqrt() + low)
        count = len(self.fallen)
        index = (torch.searchsorted(self.fallen, fallen) - 1).clamp(0, count - 2)
        first, second = self.fallen[index], self.fallen[index + 1]
        return (index + 1 + (fallen - first) / (second - first)) / count


def _noise_share(path: Path, t: float) -> float:
    return path.sigma(t) / (path.alpha(t) + path.sigma(t))
