"""One file of an image: which formats are read, and what its numbers become.

All become RGB of 8 bits, by Pillow's mode of the file:

* 1, L, LA, P, PA, RGB, RGBA, RGBX, CMYK, YCbCr, LAB: as Pillow's `convert("RGB")` gives them, which is what pytorch-fid
  and torch-fidelity measure. Alpha is dropped, not blended; colour profiles and gamma are not applied.
* LA, RGB, RGBA, CMYK of 16 bits: of them the high byte, as Pillow opens them.
* I;16, I;16L, I;16B, I;16N (grey of 16 bits; of 12 bits in some TIFF) and I of a PNG or PNM: v 255 / 65535 (4095),
  to the nearest.
* F: 255 v to the nearest, where all v are in 0..1.
* Refused, since nothing says which number is white: F outside 0..1, I of other files (32 bits, or a sign), TIFF of 16
  bits or floats in which 0 is white, all other modes.

EXIF orientation is not applied, as in those codes; the tag of the same name in a TIFF is, by Pillow. A file of several
pictures (TIFF, animated PNG or WebP) is refused; of an MPO, a camera's JPEG with previews, the first is read.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, UnidentifiedImageError

from fastsample.datasets.image_set import DatasetError

__all__ = ["open_image", "rgb"]

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "PPM", "TIFF")  # told by the content: others run programs (EPS) or are films
_MOST_PIXELS = 2**26  # the largest of ImageNet has 61 million
_CONVERTED = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB"}
_BITS, _PHOTOMETRIC = 258, 262  # tags of TIFF


def open_image(content: bytes) -> Image.Image:
    """The image in the content of a file, not yet decoded.

    Raises:
        DatasetError: when it is of no known format, larger than any, or one of several in the file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit is ours
            image = Image.open(io.BytesIO(content), formats=_FORMATS)
    except UnidentifiedImageError:
        raise DatasetError(
            f"it is nothing that Pillow reads as {', '.join(_FORMATS)}: it begins with {content[:16]!r}"
        ) from None
    if image.width * image.height > _MOST_PIXELS:
        raise DatasetError(f"{image.width}x{image.height} pixels; at most {_MOST_PIXELS:,} are read")
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise DatasetError("it holds several pictures; give each a file of its own")
    return image


def rgb(image: Image.Image) -> Image.Image:
    """The image in mode RGB; see above for what becomes of which mode.

    Raises:
        DatasetError: when its numbers can be read in more than one way.
    """
    if image.mode in _CONVERTED:
        image.info.pop("transparency", None)  # of a palette or one colour: dropped too, and Pillow would warn of it
        return image.convert("RGB")
    white = _white(image)
    levels = np.array(image, np.float32)
    if not (levels.min() >= 0 and levels.max() <= white):  # NaN is neither
        raise DatasetError(
            f"its levels are {levels.min():g} to {levels.max():g}, not 0 to {white:g}; save it with 8 bits"
        )
    levels *= 255 / white
    levels += 0.5
    return Image.fromarray(levels.astype(np.uint8)).convert("RGB")


def _white(image: Image.Image) -> float:
    """The number that is white in an image of more than 8 bits."""
    tags = getattr(image, "tag_v2", {})
    if tags.get(_PHOTOMETRIC) == 0:
        raise DatasetError(f"a TIFF of mode {image.mode} in which 0 is white is not read; save it with 8 bits")
    if image.mode.startswith("I;16"):
        return float(2 ** tags.get(_BITS, (16,))[0] - 1)
    if image.mode == "I" and image.format in ("PNG", "PPM"):  # their 16 bits; those of PNG in older Pillows
        return 65535.0
    if image.mode == "F":
        return 1.0
    raise DatasetError(
        f"nothing says which number is white in a {image.format} of mode {image.mode}; save it with 8 bits"
    )
