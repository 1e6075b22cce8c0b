import pytest
import torch

from fastsample.datasets.image_set import ImageDataset
from fastsample.models.training.recipe import Recipe

TOY = {"id": "toy", "title": "A toy", "dataset": "toy", "network": "ResidualMLP", "images": 64, "batch": 8,
       "network_args": {"img_resolution": 8, "in_channels": 3, "out_channels": 3, "width": 16, "blocks": 1},
       "warmup_images": 16, "ema_halflife_images": (20,)}  # fmt: skip
UNET = {"img_resolution": 8, "in_channels": 3, "out_channels": 3, "model_channels": 8, "channel_mult": [1],
        "num_blocks": 1, "attn_resolutions": [], "dropout": 0.2}  # fmt: skip


@pytest.fixture
def toy():
    """A function that makes a recipe for the images of `images`, with changes."""
    return lambda **changes: Recipe(**TOY | changes)


@pytest.fixture
def unet():
    """Fields of a recipe with a network that has dropout."""
    return {"network": "SongUNet", "network_args": UNET}


@pytest.fixture
def learned():
    """A learned coupling for that recipe."""
    args = {"img_resolution": 8, "in_channels": 3, "out_channels": 6, "width": 16, "blocks": 1, "time": False}
    return {"kind": "learned", "beta": 1.0, "network": "ResidualMLP", "network_args": args}


@pytest.fixture
def images():
    pixels = torch.randint(0, 256, (28, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return ImageDataset("toy", "train", pixels, torch.arange(28) % 10)
