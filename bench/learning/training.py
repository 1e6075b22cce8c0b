"""`fastsample train`: from a recipe to a run, with the pairs of a reflow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from fastsample.bench.learning.pairs import make_pairs
from fastsample.datasets.images import dataset_named
from fastsample.datasets.names import nearest
from fastsample.datasets.points import POINTS, points_named
from fastsample.models.training.classifier import CLASSIFIERS, train_classifier
from fastsample.models.training.couplings import TrainingData
from fastsample.models.training.process import process_group
from fastsample.models.training.recipe import Pairs, Recipe, RecipeError
from fastsample.models.training.start import starting_weights
from fastsample.models.training.state import read_state
from fastsample.models.training.trainer import TrainingRun, train

__all__ = ["train_features", "train_recipe", "training_data"]


def train_recipe(
    recipe: Recipe,
    out: Path,
    *,
    dataset: str | None = None,
    data: Path | None = None,
    pairs: Path | None = None,
    max_minutes: float | None = None,
    device: str = "cpu",
    compile_network: bool = False,
    console: Console | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> TrainingRun:
    """Train a recipe, or go on with the run in `out`; makes the pairs of a reflow first, where they are not there.

    Args:
        dataset, data: another data set than the recipe's, and where it is.
        pairs: folder of the pairs; `out`/pairs by default.
        console: where the progress of a download is shown.
        tell: called with a line of how far it is.

    Raises:
        ValueError: for data, a teacher or a run that is not there or does not fit.
    """
    name = dataset or recipe.dataset
    if name in POINTS and POINTS[name][2] != (1.0, 1.0):
        # A checkpoint does not carry it, and sampling would start from the wrong noise.
        raise RecipeError(f"{name} has a prior of its own, which only tests can train with")
    source: TrainingData
    with process_group(device) as process:
        if isinstance(recipe.coupling, Pairs):
            source = make_pairs(recipe, pairs or out / "pairs", name, data, device, process, console, tell)
        else:
            source = training_data(name, data)
        start = starting_weights(recipe, console) if recipe.start and not read_state(out) else None
        return train(
            recipe,
            source,
            out,
            device=device,
            start=start,
            max_minutes=max_minutes,
            compile_network=compile_network,
            tell=tell,
        )


def training_data(name: str, data: Path | None = None) -> TrainingData:
    """Images of the training split, or points of the plane, by name."""
    return points_named(name) if name in POINTS else dataset_named(name, "train", data).loaded()


def train_features(
    name: str, out: Path, *, dataset: str | None = None, data: Path | None = None, device: str = "cpu"
) -> str:
    """Train an embedded classifier; returns a line that says how well it does."""
    if name not in CLASSIFIERS:
        raise ValueError(nearest(name, list(CLASSIFIERS), "classifier"))
    recipe = CLASSIFIERS[name]
    chosen = dataset or recipe.dataset
    test = dataset_named(chosen, "test").loaded()
    metadata = train_classifier(name, recipe, dataset_named(chosen, "train", data).loaded(), test, out, device)
    return f"{out}/{name}.safetensors: test accuracy {metadata.test_accuracy:.4f}"
