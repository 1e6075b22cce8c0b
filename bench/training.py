"""`fastsample train`: from a recipe's name to a run."""

from __future__ import annotations

from pathlib import Path

from fastsample.datasets.images import dataset_named
from fastsample.models.training.classifier import ClassifierRecipe, train_classifier
from fastsample.models.training.config import RECIPES, recipe_named
from fastsample.models.training.trainer import train
from fastsample.solvers.grids import nearest

__all__ = ["CLASSIFIER", "train_named"]

CLASSIFIER = "cifar10-resnet"


def train_named(
    name: str,
    dataset: str,
    data: Path | None,
    out: Path,
    *,
    images: int | None = None,
    max_minutes: float | None = None,
    device: str = "cpu",
    compile_network: bool = False,
) -> str:
    """Train the model of that name, or go on with the run in `out`; returns a line that says where it stands.

    Raises:
        ValueError: for an unknown recipe, or images that are not there.
    """
    if name not in (*RECIPES, CLASSIFIER):
        raise ValueError(nearest(name, [*RECIPES, CLASSIFIER], "recipe"))
    images_of = dataset_named(dataset, "train", data).loaded()
    if name == CLASSIFIER:
        metadata = train_classifier(ClassifierRecipe(), images_of, dataset_named(dataset, "test").loaded(), out, device)
        return f"{out}/{CLASSIFIER}.safetensors: test accuracy {metadata.test_accuracy:.4f}"
    recipe = recipe_named(name)
    if images is not None:
        recipe = recipe.model_copy(update={"images": images})
    run = train(recipe, images_of, out, device=device, max_minutes=max_minutes, compile_network=compile_network)
    state = "finished" if run.finished else "stopped; the same command goes on"
    return f"{run.checkpoint}: {run.images_seen} of {recipe.images} images, {state}"
