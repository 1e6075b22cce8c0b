"""The converted file of a public model, wherever it comes from: found, made from a file that is here, or downloaded."""

from __future__ import annotations

import atexit
import tempfile
from functools import cache
from pathlib import Path

from rich.console import Console

from fastsample.datasets.files import locked, warn_once
from fastsample.datasets.home import sha256_of, unwritable
from fastsample.models.public.cards import Card
from fastsample.models.public.conversion import convert
from fastsample.models.public.download import download
from fastsample.models.public.file_kinds import wrong_file
from fastsample.models.public.known import (
    DownloadError,
    current_sha256,
    identity,
    lock_of,
    record_given,
    target_of,
    verify_file,
)
from fastsample.models.public.manifest import converted, existing, made_for

__all__ = ["fetch"]


def fetch(card: Card, home: Path, console: Console | None = None, checkpoint: Path | None = None) -> Path:
    """The converted file of a public model: found, or made from the file that was downloaded or is given.

    Of several processes that want one model, one makes it, and the others wait for it.

    Args:
        card: the model.
        home: folder of all that is downloaded.
        console: where the licence and the progress are shown.
        checkpoint: a file with its weights, where a person has put it; nothing is downloaded. If it is not the known
            file, its conversion is found by its hash only: see `fastsample.models.public.known.identity`.

    Raises:
        DownloadError: when the file cannot be had, or a downloaded one is not the known one.
        CheckpointError: when it cannot be read, or does not fit its network.
    """
    if checkpoint is None and (done := existing(card, home)):
        return done
    if checkpoint and not checkpoint.is_file():
        raise DownloadError(f"{checkpoint} is {wrong_file(checkpoint) or 'not a file'}")
    target = target_of(card, home)
    if why := unwritable(target.parent):
        return _without_home(card, home, checkpoint or target, why)

    def waiting() -> None:
        if console:
            console.print(f"another process makes {target}; waiting for it", markup=False, soft_wrap=True)

    with locked(lock_of(target), waiting):
        if checkpoint:
            sha256 = sha256_of(checkpoint)
            convert(card, home, checkpoint, sha256, console)
            record_given(card, checkpoint, sha256, home)
            name, told = identity(card, sha256, home)
            if console and name != card.id:
                console.print(f"{name}: {checkpoint} is {told}", markup=False, highlight=False, soft_wrap=True)
            return converted(card, home, sha256)
        if not existing(card, home):
            download(card, home, lambda file, sha256: convert(card, home, file, sha256, console), console)
        return converted(card, home, current_sha256(card, home))


def _without_home(card: Card, home: Path, source: Path, why: str) -> Path:
    """The conversion of a file that is here: found, or made for this process where nothing can be kept for `why`."""
    if not source.is_file():
        raise DownloadError(
            f"{card.id} is not here, and {home} cannot be written ({why}): set FASTSAMPLE_HOME to a folder that can"
        )
    sha256 = sha256_of(source) if source != target_of(card, home) else verify_file(card, source, home)
    if made_for(card, done := converted(card, home, sha256)):
        return done
    warn_once(f"{home} cannot be written ({why}): {source} is converted for this run alone")
    convert(card, own := _own_home(), source, sha256, None)
    return converted(card, own, sha256)


@cache
def _own_home() -> Path:
    """A folder of this process, removed at its end."""
    folder = tempfile.TemporaryDirectory(prefix="fastsample-")
    atexit.register(folder.cleanup)
    (Path(folder.name) / "checkpoints").mkdir()
    return Path(folder.name)
