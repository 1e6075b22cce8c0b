"""Files: where what is downloaded, given or computed once lies, and their hashes.

The folder may be shared, or for reading only: what is in it is used, and what cannot be put into it is computed for
this run alone, which is said once.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastsample.datasets.files import warn_once

__all__ = ["data_home", "expanded", "keep", "sha256_of", "unwritable"]


def data_home() -> Path:
    """Folder of downloaded and user-given files: $FASTSAMPLE_HOME, else ~/.cache/fastsample.

    Raises:
        ValueError: where neither is known, as to a user without an entry in the system's list.
    """
    try:
        return expanded(os.environ.get("FASTSAMPLE_HOME") or Path.home() / ".cache" / "fastsample")
    except RuntimeError:
        raise ValueError("no home folder is known: set FASTSAMPLE_HOME to a folder for what is kept") from None


def keep(file: Path, write: Callable[[Path], Any]) -> bool:
    """Write a file of the cache, in a folder made for it; False where that cannot be done, which is said once."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write(file)
    except OSError as error:
        warn_once(f"{data_home()} cannot be written ({error.strerror}): what is computed is not kept there")
        return False
    return True


def unwritable(folder: Path) -> str:
    """Why no file can be put into a folder, which is made if it is not there; "" if one can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return str(error.strerror)


def expanded(path: str | Path) -> Path:
    """The path that a user wrote, with a home folder for `~` at its beginning; that of no user stays."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser raises for a user that is not known


def sha256_of(path: str | Path) -> str:
    """Hexadecimal sha256 of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
