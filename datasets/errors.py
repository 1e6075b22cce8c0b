"""An error in one line."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

__all__ = ["told"]

_PACKAGE = Path(__file__).resolve().parents[1]
_ROOMS = tuple(_PACKAGE / room for room in ("bench", "datasets", "models", "results", "solvers"))


def told(error: BaseException) -> str:
    """What went wrong, on one line without control characters.

    A text that this package did not write has its class before it and the place behind it. With FASTSAMPLE_DEBUG set
    the traceback goes to stderr too.
    """
    if os.environ.get("FASTSAMPLE_DEBUG"):
        traceback.print_exception(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    else:
        text = str(error)
        frames = traceback.extract_tb(error.__traceback__)
        mine = [frame for frame in frames if any(Path(frame.filename).is_relative_to(room) for room in _ROOMS)]
        written = frames and frames[-1] in mine and (frames[-1].line or "").startswith("raise ")
        if not (written and text):
            place = f" ({Path(mine[-1].filename).relative_to(_PACKAGE)}, line {mine[-1].lineno})" if mine else ""
            text = ": ".join(filter(None, (type(error).__name__, text))) + place
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in line)
