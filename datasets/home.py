"""Files: where what is downloaded or given lies, and their hashes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

__all__ = ["data_home", "expanded", "sha256_of"]


def data_home() -> Path:
    """Folder of downloaded and user-given files: $FASTSAMPLE_HOME, else ~/.cache/fastsample."""
    return expanded(os.environ.get("FASTSAMPLE_HOME") or Path.home() / ".cache" / "fastsample")


def expanded(path: str | Path) -> Path:
    """The path that a user wrote, with a home folder for `~` at its beginning; that of no user stays."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser raises for a user that is not known


def sha256_of(path: str | Path) -> str:
    """Hexadecimal sha256 of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
