"""The version of the code, and its commit where that is known: of a clone from git, else as the installer noted it."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from importlib.metadata import distribution, version
from pathlib import Path

__all__ = ["code", "commit"]

_ROOT = Path(__file__).parents[2]  # of the package; in a clone the clone itself


@cache
def commit() -> str:
    """The first 12 digits, with `+changed` behind them where files of a clone are others; "" where it is not known."""
    return _of_git(_ROOT) or _of_installer()


def code() -> str:
    """Version and commit in words."""
    known = commit()
    return version("fastsample") + (f", commit {known}" if known else "")


def _of_git(root: Path) -> str:
    if not (root / ".git").exists():
        return ""
    try:
        digits, changed = (
            subprocess.run(["git", "-C", root, *words], capture_output=True, text=True, check=True, timeout=30).stdout
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.SubprocessError):  # without git, or a clone of another user
        return ""
    return digits[:12] + ("+changed" if changed else "")


def _of_installer() -> str:
    told = distribution("fastsample").read_text("direct_url.json")
    return str(json.loads(told).get("vcs_info", {}).get("commit_id", ""))[:12] if told else ""
