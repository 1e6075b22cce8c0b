import os
import stat
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # small tensors: threads only get in each other's way, most of all under pytest-xdist


@pytest.fixture
def full_device(tmp_path):
    """A device that is always full; one of the test's own where it may make one, since root can replace /dev/full."""
    node = tmp_path / "full"
    try:
        os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(1, 7))
    except PermissionError:
        return Path("/dev/full")
    return node


@pytest.fixture
def flips():
    """A function that writes a file with one bit flipped, every `step`-th in turn, and yields after each."""

    def flipped(file, step=97):
        content = file.read_bytes()
        for bit in range(0, 8 * len(content), step):
            changed = bytearray(content)
            changed[bit // 8] ^= 1 << bit % 8
            file.write_bytes(changed)
            yield bit

    return flipped
