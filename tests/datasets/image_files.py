"""Small files of images for the tests of data sets."""

import io

from PIL import Image


def encoded(level, size=(40, 40), kind="PNG"):
    out = io.BytesIO()
    Image.new("RGB", size, (level, level, level)).save(out, kind)
    return out.getvalue()


def put(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def levels(images):
    return [int(batch[0, 0, 0]) for part in images.batches(2) for batch in part]
