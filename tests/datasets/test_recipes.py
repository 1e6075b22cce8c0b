"""Every recipe on images whose pixels say where they come from."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from fastsample.datasets.image_set import DatasetError
from fastsample.datasets.preprocessing import RECIPES


def coordinates(width, height):
    """Red is the row, green the column."""
    rows, columns = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([rows, columns, 0 * rows], axis=2).astype(np.uint8))


def smooth(width, height):
    rows, columns = np.mgrid[:height, :width] / 17
    waves = [np.sin(rows) * np.cos(columns), np.sin(rows + columns), np.cos(rows - 2 * columns)]
    return Image.fromarray((127.5 + 120 * np.stack(waves, axis=2)).astype(np.uint8))


def cropped(name, image):
    """The image after the recipe's first step, which for these is the crop."""
    return np.asarray(RECIPES[name].steps[0](image))


@pytest.mark.parametrize(
    ("name", "rows", "columns"),
    [
        ("celeba64-ddim", (57, 184), (25, 152)),
        ("celeba64-140", (39, 178), (19, 158)),
        ("celeba64-148", (35, 182), (15, 162)),
        ("celeba64-178", (20, 197), (0, 177)),
        ("imagenet64-edm", (20, 197), (0, 177)),
        ("lsun256-ldm", (20, 197), (0, 177)),
        ("lsun256-score-sde", (20, 197), (0, 177)),
    ],
)
def test_windows(name, rows, columns):
    window = cropped(name, coordinates(178, 218))
    assert (window[0, 0, 0], window[-1, -1, 0]) == rows
    assert (window[0, 0, 1], window[-1, -1, 1]) == columns
    assert (np.diff(window[:, 0, 0].astype(int)) == 1).all()


def test_an_odd_pixel_is_lost_on_the_right_and_at_the_bottom():
    assert cropped("imagenet64-edm", coordinates(100, 105))[[0, -1], 0, 0].tolist() == [2, 101]
    assert cropped("imagenet64-edm", coordinates(105, 100))[0, [0, -1], 1].tolist() == [2, 101]
    image = coordinates(67, 64)
    assert RECIPES["imagenet64-adm"](image)[1, 0, [0, -1]].tolist() == [1, 64]


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if recipe.side and recipe.steps])
def test_the_result_is_uint8_rgb_of_the_stated_side(name):
    recipe = RECIPES[name]
    image = smooth(*(recipe.source or (517, 389)))
    pixels = recipe(image)
    assert pixels.shape == (3, recipe.side, recipe.side)
    assert pixels.dtype == torch.uint8
    grey = recipe(image.convert("L"))
    assert torch.equal(grey[0], grey[1])
    assert abs(pixels.float().mean() - np.asarray(image).mean()) < 15


def test_filters():
    """Against the same resize in floating point by another library: Pillow rounds once per axis."""
    face = smooth(178, 218)

    def floats(box, mode, side):
        x = torch.from_numpy(np.array(face.crop(box))).permute(2, 0, 1)[None].float()
        return F.interpolate(x, (side, side), mode=mode, antialias=True)[0].clamp(0, 255)

    ddim = floats((25, 57, 153, 185), "bilinear", 64)
    assert (RECIPES["celeba64-ddim"](face).float() - ddim).abs().max() < 1.1
    assert torch.equal(RECIPES["celeba64-140"](face), floats((19, 39, 159, 179), "bilinear", 64).round().byte())
    assert (RECIPES["lsun256-ldm"](face).float() - floats((0, 20, 178, 198), "bicubic", 256)).abs().max() < 1.6
    cut = floats((0, 20, 178, 198), "bicubic", 256)
    assert torch.equal(RECIPES["lsun256-score-sde"](face), cut.byte())
    assert (cut - cut.byte()).max() > 0.9
    big = smooth(1024, 1024)
    x = torch.from_numpy(np.array(big)).permute(2, 0, 1).float()
    assert (RECIPES["celebahq256"](big).float() - F.avg_pool2d(x, 4)).abs().max() < 1.1
    centre = F.avg_pool2d(x[:, 1:-1, 1:-1], 2, stride=4)  # bilinear without antialiasing sees the inner 2x2 of 4x4
    assert (RECIPES["ffhq256-ldm"](big).float() - centre).abs().max() <= 0.5
    adm = RECIPES["imagenet64-adm"](big).float()
    assert (adm - F.avg_pool2d(x, 16)).abs().max() < 4.1  # four halvings by two axes, each rounding halves up


def test_adm_halves_before_the_bicubic():
    """250 -> 125 by averages, 125 -> 64 by bicubic: not the same as bicubic at once."""
    image = smooth(250, 330)
    by_hand = image.resize((125, 165), Image.Resampling.BOX).resize((64, 84), Image.Resampling.BICUBIC)
    by_hand = np.asarray(by_hand.crop((0, 10, 64, 74)))
    np.testing.assert_array_equal(RECIPES["imagenet64-adm"](image).permute(1, 2, 0).numpy(), by_hand)


def test_edm_is_lanczos_of_the_centre_square():
    image = smooth(300, 401)
    by_hand = image.crop((0, 50, 300, 350)).resize((64, 64), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(RECIPES["imagenet64-edm"](image).permute(1, 2, 0).numpy(), np.asarray(by_hand))


def test_ddims_lsun_is_torchvisions():
    from torchvision import transforms

    image = smooth(343, 256)  # the crop leaves 87 columns: torchvision puts 44 of them on the left
    theirs = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(256), transforms.PILToTensor()])(image)
    assert torch.equal(RECIPES["lsun256-ddim"](image), theirs)


def test_images_of_another_size_are_refused():
    with pytest.raises(DatasetError, match=r"178x178, not 178x218"):
        RECIPES["celeba64-ddim"](smooth(178, 178))
    with pytest.raises(DatasetError, match="65x64, not 64x64"):
        RECIPES["imagenet64-box"](smooth(65, 64))
