"""What decides the steps of AMED (arXiv 2312.00094): r, c and a of each step, from a small network or as given.

The network reads the bottleneck features of the evaluation just made (zeros where none was) and the ends s, t of the
step, each as sines and cosines of 10^(-4 k / 3) s, k = 0 .. 3:

    z = [enc_1(silu(enc_0(features))), silu(map(s)), silu(map(t))]
    r = sigmoid(fc_r z),  c = 1 + s_d (2 sigmoid(fc_c z) - 1),  a = 1 + s_t (2 sigmoid(fc_a z) - 1)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch  # as in `models.denoiser`

__all__ = ["Coefficients", "Given", "Predictor"]

# r, c and a of a step: numbers, or float64 [batch] where each sample has its own.
Coefficients = tuple[Any, Any, Any]


@dataclass(frozen=True)
class Given:
    """Numbers that no sample decides: those of each step, or r, 1 and 1 in all."""

    steps: Sequence[Coefficients] = ()
    r: float = 0.5
    linear: bool = True
    facts: None = None

    def __call__(self, i: int, s: float, t: float, features: torch.Tensor | None, batch: int) -> Coefficients:
        return self.steps[i] if self.steps else (self.r, 1.0, 1.0)


@dataclass(frozen=True)
class Predictor:
    """A learned network.

    Attributes:
        layers: weights and biases by name, float64.
        scale_dir, scale_time: s_d and s_t; a head that is missing predicts 1.
        facts: sha256, and where it comes from.
    """

    layers: Mapping[str, np.ndarray]
    scale_dir: float
    scale_time: float
    facts: Mapping[str, str] | None = None
    linear: bool = False

    @property
    def pixels(self) -> int:
        """Features of a sample that it reads."""
        return self.layers["enc_layer0.weight"].shape[1]

    def __call__(self, i: int, s: float, t: float, features: torch.Tensor | None, batch: int) -> Coefficients:
        """r, c and a of step i, from s to t.

        Raises:
            ValueError: for another number of features than it was learned for.
        """
        read = np.zeros((batch, self.pixels)) if features is None else features.double().cpu().numpy()
        if read.shape != (batch, self.pixels):
            raise ValueError(
                f"this predictor reads {self.pixels} pixels of a narrowest layer, and the network has {read.shape[1]}"
            )
        inner = self._linear("enc_layer1", _silu(self._linear("enc_layer0", read)))
        ends = [np.broadcast_to(_silu(self._linear("map_layer0", _waves(level))), (batch, 8)) for level in (s, t)]
        z = np.concatenate([inner, *ends], 1)
        heads = (self._head(name, z) for name in ("fc_r", "fc_scale_dir", "fc_scale_time"))
        r, c, a = (np.full(batch, 0.5) if head is None else head for head in heads)
        return r, 1 + self.scale_dir * (2 * c - 1), 1 + self.scale_time * (2 * a - 1)

    def _linear(self, layer: str, x: np.ndarray) -> np.ndarray:
        return x @ self.layers[f"{layer}.weight"].T + self.layers[f"{layer}.bias"]

    def _head(self, layer: str, z: np.ndarray) -> np.ndarray | None:
        """The sigmoid of a head [batch]; None where there is none."""
        return 1 / (1 + np.exp(-self._linear(layer, z)[:, 0])) if f"{layer}.weight" in self.layers else None


def _waves(level: float) -> np.ndarray:
    angles = level * 10.0 ** (-4 / 3 * np.arange(4))
    return np.concatenate([np.sin(angles), np.cos(angles)])


def _silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))
