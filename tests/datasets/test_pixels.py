"""What becomes of an image's numbers, mode by mode."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from fastsample.datasets.image_set import DatasetError
from fastsample.datasets.images import dataset_named

from .image_files import put

RAMP = (np.arange(1024).reshape(32, 32) * 64).astype(np.uint16)  # 0..65472
EIGHT = np.rint(RAMP / 257).astype(np.uint8)  # v 255 / 65535 to the nearest


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(tmp_path, content, suffix):
    put(tmp_path / f"a.{suffix}", content)
    return dataset_named(f"folder:{tmp_path}").loaded().images[0].permute(1, 2, 0).numpy()


def tiff(levels, bits, photometric=1, sample_format=1):
    """A TIFF of one strip, as Pillow does not write them."""
    height, width, data = 32, 32, levels
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height, 279: len(data)}
    tags[339] = sample_format
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def png(rows, colour):
    """A PNG of 16 bits, as Pillow does not write them in colour."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", *rows.shape[1::-1], 16, colour, 0, 0, 0)
    body = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


BIG = Image.frombytes("I;16B", (32, 32), RAMP.astype(">u2").tobytes())
FLOATS = (RAMP / 65535).astype(np.float32)


@pytest.mark.parametrize(
    ("content", "suffix"),
    [
        (saved(Image.fromarray(RAMP), "PNG"), "png"),
        (saved(Image.fromarray(RAMP), "TIFF"), "tif"),
        (saved(Image.fromarray(RAMP), "TIFF", compression="tiff_lzw"), "tiff"),
        (saved(BIG, "TIFF"), "tif"),
        (saved(Image.fromarray(RAMP), "PPM"), "pgm"),
        (saved(Image.fromarray(FLOATS), "TIFF"), "tif"),
    ],
    ids=["PNG", "TIFF", "packed TIFF", "big-endian TIFF", "PGM", "floats in 0..1"],
)
def test_more_than_8_bits_are_scaled_to_the_nearest_level(content, suffix, tmp_path):
    found = pixels(tmp_path, content, suffix)
    np.testing.assert_array_equal(found, np.repeat(EIGHT[..., None], 3, 2))
    assert abs(found.mean() - 127.5) < 0.2


def test_a_tiff_of_12_bits_has_another_white(tmp_path):
    levels = (np.arange(1024, dtype=np.uint32) * 4).reshape(-1, 2)
    first, second = levels.T
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 1).astype(np.uint8).tobytes()
    found = pixels(tmp_path, tiff(packed, 12), "tif")
    np.testing.assert_array_equal(found[..., 0].ravel(), np.rint(levels.ravel() * 255 / 4095))


def test_of_colours_of_16_bits_the_high_byte_is_read(tmp_path):
    colours = np.stack([RAMP, RAMP + 63, 65535 - RAMP], -1)
    np.testing.assert_array_equal(pixels(tmp_path / "rgb", png(colours, 2), "png"), colours >> 8)
    with_alpha = np.concatenate([colours, RAMP[..., None]], -1)
    np.testing.assert_array_equal(pixels(tmp_path / "rgba", png(with_alpha, 6), "png"), colours >> 8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            saved(Image.fromarray(RAMP.astype(np.int32)), "TIFF"),
            "nothing says which number is white in a TIFF of mode I",
        ),
        (tiff(RAMP.astype("<i2").tobytes(), 16, sample_format=2), "nothing says which number is white in a TIFF"),
        (tiff(RAMP.tobytes(), 16, photometric=0), "a TIFF of mode I;16 in which 0 is white"),
        (
            saved(Image.fromarray(FLOATS * 255), "TIFF"),
            r"its levels are 0 to 254\.755, not 0 to 1; save it with 8 bits",
        ),
        (saved(Image.fromarray(FLOATS * 2 - 1), "TIFF"), "its levels are -1 to"),
        (saved(Image.fromarray(FLOATS * np.float32("nan")), "TIFF"), "its levels are nan"),
    ],
    ids=["int32", "int16", "0 is white", "floats to 255", "floats from -1", "nan"],
)
def test_numbers_without_a_certain_meaning_are_refused(content, message, tmp_path):
    with pytest.raises(DatasetError, match=rf"a\.tif: {message}"):
        pixels(tmp_path, content, "tif")


COLOUR = (200, 100, 50)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("1", (8, 8), 1), (255, 255, 255)),
        (Image.new("L", (8, 8), 7), (7, 7, 7)),
        (Image.new("LA", (8, 8), (7, 0)), (7, 7, 7)),
        (Image.new("RGB", (8, 8), COLOUR).quantize(2), COLOUR),
        (Image.new("RGB", (8, 8), COLOUR), COLOUR),
        (Image.new("RGBA", (8, 8), (*COLOUR, 0)), COLOUR),
        (Image.new("RGBA", (8, 8), (*COLOUR, 128)), COLOUR),
    ],
    ids=["1", "L", "LA", "P", "RGB", "transparent RGBA", "half transparent RGBA"],
)
def test_8_bits_are_converted_and_alpha_is_dropped(image, expected, tmp_path):
    assert (pixels(tmp_path, saved(image, "PNG"), "png") == np.array(expected)).all()


@pytest.mark.filterwarnings("error")
def test_transparent_colours_of_a_palette_are_kept(tmp_path):
    image = Image.new("RGB", (8, 8), COLOUR).quantize(2)
    found = pixels(tmp_path, saved(image, "PNG", transparency=bytes([64, 128])), "png")
    assert (found == np.array(COLOUR)).all()


def test_cmyk_is_converted_by_pillow(tmp_path):
    image = Image.new("CMYK", (8, 8), (200, 100, 50, 10))
    np.testing.assert_array_equal(pixels(tmp_path, saved(image, "TIFF"), "tif"), np.asarray(image.convert("RGB")))


def test_exif_orientation_is_not_applied_but_that_of_a_tiff_is(tmp_path):
    exif, image = Image.Exif(), Image.new("RGB", (8, 4))
    exif[0x112] = 6  # turn by 90 degrees
    for kind, shape in {"JPEG": (4, 8, 3), "PNG": (4, 8, 3), "WEBP": (4, 8, 3), "TIFF": (8, 4, 3)}.items():
        assert pixels(tmp_path / kind, saved(image, kind, exif=exif), kind.lower()).shape == shape


def test_of_several_pictures_in_a_file_none_is_chosen(tmp_path):
    image = Image.new("RGB", (8, 8), COLOUR)
    several = dict(save_all=True, append_images=[Image.new("RGB", (8, 8))])
    for kind in ("TIFF", "PNG", "WEBP"):
        with pytest.raises(DatasetError, match="it holds several pictures; give each a file of its own"):
            pixels(tmp_path / kind, saved(image, kind, **several), kind.lower())
    preview = pixels(tmp_path / "MPO", saved(image, "MPO", **several), "jpg")  # a camera's
    assert torch.allclose(torch.tensor(preview[0, 0]).float(), torch.tensor(COLOUR).float(), atol=3)
