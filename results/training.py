"""What a sampler was trained on, and which metrics have the same judge.

A solver that was trained on the network of a metric is not judged by it, but by its own teacher: its values are below
what its samples are worth, and a table says so where it ranks it.
"""

from __future__ import annotations

from typing import Literal

__all__ = ["TrainedOn"]

TrainedOn = Literal[
    "nothing", "statistics", "squared error", "LPIPS", "Inception", "FID", "classifier", "GAN", "reward"
]
