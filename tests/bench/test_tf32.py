"""What is compared to 1e-4 or better is never computed in TF32, whatever the process is set to."""

from contextlib import suppress

import pytest
import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from fastsample.bench.learning.distillation import Distillation
from fastsample.bench.learning.pairs import generate, invert
from fastsample.bench.metrics.integrator import integrate
from fastsample.bench.sampling import Sampler
from fastsample.datasets.image_set import ImageDataset
from fastsample.models.catalogue import open_model
from fastsample.models.noise import normal
from fastsample.models.precision import matmul
from fastsample.models.training.classifier import ClassifierRecipe, train_classifier
from fastsample.models.training.recipe import Recipe
from fastsample.models.training.trainer import train
from fastsample.solvers.solver import get

SHAPE = (3, 8, 8)
IMAGES = ImageDataset("toy", "train", torch.randint(0, 256, (16, *SHAPE), dtype=torch.uint8), torch.arange(16) % 10)
KINDS = torch.backends.cuda.matmul, torch.backends.cudnn


@pytest.fixture
def seen():
    """The TF32 settings that modules are called under, in a process that allows it."""
    found = []
    with matmul("tf32"):
        hook = register_module_forward_pre_hook(lambda *_: found.append([kind.allow_tf32 for kind in KINDS]))
        yield found
        hook.remove()
        assert all(kind.allow_tf32 for kind in KINDS)


def reference(model, folder):
    integrate(model.make(model.network, None, 0.0, None), normal(0, range(2), SHAPE), 2)


def pairs(model, folder):
    generate(model, get("euler").plan(model.path, 1), folder, 2, 0, solver="euler")


def real_pairs(model, folder):
    invert(model, 1, IMAGES, folder, 2)


def distill(model, folder):
    Distillation(model, Sampler(torch.device("cpu")), train=32, validation=32).run("bns", 2, initial="euler", steps=1)


def network(model, folder):
    args = {"img_resolution": 8, "in_channels": 3, "out_channels": 3, "width": 8, "blocks": 1}
    train(Recipe(id="toy", title="A toy", dataset="toy", network="ResidualMLP", network_args=args, images=8, batch=8,
                 warmup_images=8, ema_halflife_images=(8,)), IMAGES, folder)  # fmt: skip


def classifier(model, folder):
    args = {"num_classes": 10, "stem": 4, "widths": [4, 4, 4]}
    train_classifier(
        "toy", ClassifierRecipe(title="A toy", epochs=1, batch=8, network_args=args), IMAGES, IMAGES, folder
    )


@pytest.mark.parametrize("job", [reference, pairs, real_pairs, distill, network, classifier])
def test_no_network_of_the_job_is_called_under_tf32(job, seen, checkpoint, coarse, tmp_path):
    job(open_model(checkpoint("random")), tmp_path)
    assert seen
    assert not any(map(any, seen))


def test_a_setting_comes_back_also_after_a_failure():
    before = [kind.allow_tf32 for kind in KINDS]
    with suppress(ValueError), matmul("tf32"):
        assert all(kind.allow_tf32 for kind in KINDS)
        raise ValueError
    assert [kind.allow_tf32 for kind in KINDS] == before
