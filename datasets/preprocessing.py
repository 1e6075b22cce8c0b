"""How a benchmark's images are made from the published files: crop, filter and size, by name.

Papers that say "CelebA 64x64" mean at least four different sets of pixels, and a Frechet distance between two of
them is larger than the gain of most samplers. So a recipe has a name, and the name is part of the data set's.
All resizing is Pillow's, which widens its filters when it shrinks (antialiasing), where nothing else is said.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL.Image import Image, Resampling, fromarray
from torch import Tensor

from fastsample.datasets.image_set import DatasetError
from fastsample.datasets.pixels import rgb

__all__ = ["RECIPES", "Recipe"]

Step = Callable[[Image], Image]


@dataclass(frozen=True)
class Recipe:
    """One preprocessing.

    Attributes:
        title: what it does, and who uses it.
        steps: applied in order to the RGB image.
        side: of the square result; 0 for images that stay as they are.
        source: (width, height) that an image must have before, if the crop counts on it.
    """

    title: str
    steps: tuple[Step, ...]
    side: int
    source: tuple[int, int] | None = None

    def __call__(self, image: Image) -> Tensor:
        """The pixels, uint8 [3, H, W]; an image that is not RGB is converted first (`datasets/pixels.py`).

        Raises:
            DatasetError: when the image has not the size that the recipe is for, or levels of no certain meaning.
        """
        if self.source is not None and image.size != self.source:
            raise DatasetError(f"the image is {_size(image.size)}, not {_size(self.source)} ({self.title})")
        image = rgb(image)
        for step in self.steps:
            image = step(image)
        if self.side and image.size != (self.side, self.side):
            raise DatasetError(f"the image is {_size(image.size)}, not {_size((self.side, self.side))} ({self.title})")
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _box(left: int, top: int, side: int) -> Step:
    return lambda image: image.crop((left, top, left + side, top + side))


def _centre(side: int | None = None) -> Step:
    """A centred square, as large as fits by default; an odd pixel is lost on the right or at the bottom."""

    def crop(image: Image) -> Image:
        size = side or min(image.size)
        return _box((image.width - size) // 2, (image.height - size) // 2, size)(image)

    return crop


def _resize(side: int, filter_: Resampling) -> Step:
    return lambda image: image.resize((side, side), filter_)


def _short_side(side: int, filter_: Resampling) -> Step:
    """Shrink or enlarge until the short side has this length, the long one rounded."""

    def resize(image: Image) -> Image:
        scale = side / min(image.size)
        return image.resize((round(image.width * scale), round(image.height * scale)), filter_)

    return resize


def _halve(side: int) -> Step:
    """Average 2x2 pixels while the short side is at least twice as long as wanted."""

    def halve(image: Image) -> Image:
        while min(image.size) >= 2 * side:
            image = image.resize((image.width // 2, image.height // 2), Resampling.BOX)
        return image

    return halve


def _on_floats(side: int, mode: str, antialias: bool, cut: bool = False) -> Step:
    """On floats, as TensorFlow (antialiased) or OpenCV (not) do it; rounded once at the end, or cut off there."""

    def resize(image: Image) -> Image:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
        small = F.interpolate(pixels, (side, side), mode=mode, antialias=antialias)[0].clamp(0, 255)
        return fromarray((small if cut else small.round()).to(torch.uint8).permute(1, 2, 0).numpy())

    return resize


def _torchvision(side: int) -> Step:
    """Its rounding differs from that of the others: the long side down, half a pixel of crop to the even number."""

    def resize(image: Image) -> Image:
        from torchvision.transforms import functional  # seconds to import, and no other recipe needs it

        return functional.center_crop(functional.resize(image, [side]), [side, side])

    return resize


def _adm(side: int) -> tuple[Step, ...]:
    return (_halve(side), _short_side(side, Resampling.BICUBIC), _centre(side))


_CELEBA = (178, 218)

RECIPES: dict[str, Recipe] = {
    "as-is": Recipe("no change", (), 0),
    "cifar10-train": Recipe("no change: 32x32", (), 32),
    "celeba64-ddim": Recipe(
        "rows 57 to 184 and columns 25 to 152, bilinear to 64: DDIM, PNDM, DPM-Solver, Analytic-DPM, SciRE",
        (_box(25, 57, 128), _resize(64, Resampling.BILINEAR)), 64, _CELEBA,
    ),
    "celeba64-140": Recipe(
        "centre 140x140, antialiased bilinear on floats to 64: NCSN, Score-SDE",
        (_centre(140), _on_floats(64, "bilinear", antialias=True)), 64, _CELEBA,
    ),
    "celeba64-148": Recipe(
        "centre 148x148, bilinear to 64: VAE and GAN line, some flow papers",
        (_centre(148), _resize(64, Resampling.BILINEAR)), 64, _CELEBA,
    ),
    "celeba64-178": Recipe(
        "centre 178x178, bilinear to 64: whole width",
        (_centre(178), _resize(64, Resampling.BILINEAR)), 64, _CELEBA,
    ),
    "celebahq256": Recipe(
        "area to 256: LDM, Rectified Flow, Score-SDE", (_resize(256, Resampling.BOX),), 256
    ),
    "ffhq64": Recipe("Lanczos to 64, no crop: EDM", (_resize(64, Resampling.LANCZOS),), 64),
    "afhqv2-64": Recipe("Lanczos to 64, no crop: EDM", (_resize(64, Resampling.LANCZOS),), 64),
    # Of the files of 256x256 that ship with FFHQ, ffhq-r08.tfrecords.
    "ffhq256": Recipe("area to 256: Score-SDE, clean-fid", (_resize(256, Resampling.BOX),), 256),
    "ffhq256-ldm": Recipe(
        "bilinear without antialiasing to 256: LDM", (_on_floats(256, "bilinear", antialias=False),), 256
    ),
    "afhq256": Recipe("bilinear to 256: Rectified Flow", (_resize(256, Resampling.BILINEAR),), 256),
    "lsun256-adm": Recipe(
        "short side to 256 by area, centre crop: guided diffusion, consistency models",
        (_short_side(256, Resampling.BOX), _centre(256)), 256,
    ),
    "lsun256-ldm": Recipe(
        "centre square, bicubic to 256: LDM", (_centre(), _resize(256, Resampling.BICUBIC)), 256
    ),
    "lsun256-score-sde": Recipe(
        "centre square, antialiased bicubic on floats to 256, cut off: Score-SDE, Rectified Flow",
        (_centre(), _on_floats(256, "bicubic", antialias=True, cut=True)), 256,
    ),
    "lsun256-ddim": Recipe(
        "torchvision's Resize(256) and CenterCrop(256), bilinear: DDIM", (_torchvision(256),), 256
    ),
    "imagenet64-adm": Recipe(
        "2x2 averages, bicubic to short side 64, centre crop: guided diffusion, EDM2", _adm(64), 64
    ),
    "imagenet64-edm": Recipe("centre square, Lanczos to 64: EDM", (_centre(), _resize(64, Resampling.LANCZOS)), 64),
    "imagenet64-box": Recipe("as distributed at 64x64 (area): iDDPM", (), 64),
    "imagenet128-adm": Recipe("2x2 averages, bicubic to short side 128, centre crop: guided diffusion", _adm(128), 128),
    "imagenet256-adm": Recipe(
        "2x2 averages, bicubic to short side 256, centre crop: guided diffusion, DiT, SiT, LDM", _adm(256), 256
    ),
    "imagenet512-adm": Recipe(
        "2x2 averages, bicubic to short side 512, centre crop: guided diffusion, DiT, EDM2", _adm(512), 512
    ),
}  # fmt: skip
