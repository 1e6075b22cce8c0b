"""Whether what a command is to write can be written: asked before hours are spent on it, and nothing is left behind."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

__all__ = ["check_file", "check_folder"]


def check_file(file: Path) -> None:
    """Raise ValueError where a file cannot be written; it is not touched.

    Its folder may be missing, as `write_atomically` makes it; not that one's own, which looks like a slip of the pen.
    """
    target = Path(os.path.realpath(file))
    there = target.parent if target.parent.exists() else target.parent.parent
    try:
        mode = target.stat().st_mode if target.exists() else stat.S_IFREG
        if stat.S_ISDIR(mode):
            raise ValueError(f"cannot write {file}: it is a folder, and a file is to be written")
        if stat.S_ISREG(mode):
            _try(there)
    except OSError as error:
        raise ValueError(f"cannot write {file}: {_told(error, there)}") from None


def check_folder(folder: Path) -> None:
    """Raise ValueError where a folder can be neither written to nor made; it is not made."""
    there = Path(os.path.realpath(folder))
    try:
        while not there.exists() and there != there.parent:
            there = there.parent
        _try(there)
    except OSError as error:
        raise ValueError(f"cannot write to the output folder {folder}: {_told(error, there)}") from None


def _try(folder: Path) -> None:
    """Raise OSError where no file can be put into a folder."""
    with tempfile.TemporaryFile(dir=folder):
        pass


def _told(error: OSError, folder: Path) -> str:
    if isinstance(error, FileNotFoundError):  # which /proc says of its own files, too
        return f"no file can be made in {folder}" if folder.is_dir() else f"there is no folder {folder}"
    return f"{folder}: {error.strerror}"
