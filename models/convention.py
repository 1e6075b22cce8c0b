"""A network's convention: what the numbers mean that go in and come out, so that weights can change hands.

Two networks of one architecture and one `Convention` are interchangeable; what differs is told field by field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from fastsample.models.path import Path, path_named

__all__ = ["Convention"]


@dataclass(frozen=True)
class Convention:
    """What a network predicts, on which path, and of which time.

    Attributes:
        path: the path it was trained on, with its interval.
        prediction: what it returns: a `Prediction` of `fastsample.models.denoiser`; or "score", or "edm-F", EDM's raw
            network F (arXiv 2206.00364, table 1), which stand on cards and inside `Velocity` alone.
        time_scale, time_shift: it is called with time_scale * t + time_shift, t of `path`; for edm-F
            c_noise = ln(sigma) / 4 stands for t.
        plain: that is all there is to know. False where its sign is turned, further channels follow the prediction,
            classes are indices, images are in [0, 1], or its label is the logarithm of t.
    """

    path: Path
    prediction: str
    time_scale: float = 1.0
    time_shift: float = 0.0
    plain: bool = True

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> Self:
        """From the fields of a recipe, a checkpoint's metadata, or the arguments of `Velocity`, with its defaults."""
        return cls(
            path_named(fields.get("path", "flow")), fields.get("prediction", "velocity"),
            fields.get("time_scale", 1.0), fields.get("time_shift", 0.0),
        )  # fmt: skip

    def label(self, t: Any) -> Any:
        """What the network is called with at t, a float or a tensor."""
        return self.time_scale * t + self.time_shift

    def differences(self, other: Convention) -> list[str]:
        """One phrase for each thing that is not the same "there", in `other`, and "here"."""
        here, there = self._told(), other._told()
        return [f"{key} is {there[key]} there and {here[key]} here" for key in here if there[key] != here[key]]

    def _told(self) -> dict[str, object]:
        name = self.path.name
        return {
            "path": name if self.path == path_named(name) else f"a {name} of its own",
            "prediction": self.prediction if self.plain else f"{self.prediction} in a form of its own",
            "time_scale": self.time_scale,
            "time_shift": self.time_shift,
        }  # fmt: skip
