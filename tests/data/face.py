"""What a type checker says of a program that uses fastsample from Python."""

from pathlib import Path

import pandas as pd
from torch import Tensor

import fastsample as fs

version: str = fs.__version__
model = fs.open_model("cifar10-tiny-flow")
images: Tensor = fs.sample(model, fs.sampler("scire:order=3@karras"), nfe=8, samples=16, seed=0)
more: Tensor = fs.sample("cifar10-tiny-flow", "ddim", 4)
rows: pd.DataFrame = fs.sweep(model="cifar10-tiny-flow", solver=["ddim", "heun"], nfe=[5, 10], uint8="floor")
held: pd.DataFrame = fs.open_store(Path("results-store")).frame()
proofs: pd.DataFrame = fs.verify(["scire"])
wide: tuple[int, ...] = model.shape
