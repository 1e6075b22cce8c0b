"""The rule hash-v1 of the golden networks: values that depend on a name alone."""

import math
import zlib

import numpy as np
import torch


def hashed(name, shape, scale=1.0):
    """Values in [-scale, scale), float32."""
    return _tensor(scale * _values(name, shape), shape)


def hashed_weight(name, shape):
    """A parameter or buffer of that name: matrices keep the size of what they multiply."""
    v, last = _values(name, shape), name.rsplit(".", 1)[-1]
    if not shape:
        v = 0.5 + 0.25 * v
    elif len(shape) >= 2:
        v = v * math.sqrt(3 / math.prod(shape[1:]))
    elif last == "weight":
        v = 1 + 0.25 * v
    elif last not in ("W", "freqs", "phases"):
        v = 0.1 * v
    return _tensor(v, shape)


def _values(name, shape):
    h = np.arange(math.prod(shape), dtype=np.uint32) * np.uint32(0x9E3779B1) + np.uint32(zlib.crc32(name.encode()))
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        h = (h ^ (h >> np.uint32(shift))) * np.uint32(factor)
    return 2 * (h / 2**32) - 1


def _tensor(values, shape):
    return torch.from_numpy(values.astype(np.float32)).reshape(shape)
