"""Published reference statistics on this machine: fetched like checkpoints, verified by the sha256 first seen."""

from __future__ import annotations

import zipfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

from rich.console import Console

from fastsample.datasets.files import json_bytes, locked, read_facts, write_atomically
from fastsample.datasets.home import sha256_of
from fastsample.datasets.names import nearest
from fastsample.datasets.published_moments import PublishedReference, published_references
from fastsample.models.public.known import DownloadError, lock_of
from fastsample.models.public.transfer import origin_file, transfer

__all__ = ["made_by", "place_of", "reference_file", "reference_named"]


def reference_named(name: str) -> PublishedReference:
    """The entry of `references.toml` of that id.

    Raises:
        ValueError: for an unknown id; the message offers the nearest.
    """
    entries = {entry.id: entry for entry in published_references()}
    if name not in entries:
        raise ValueError(nearest(name, entries, "reference", "`fastsample list references` shows all."))
    return entries[name]


def _name(entry: PublishedReference) -> str:
    """Of the file, as it is published; "" where that is not known."""
    return entry.file or Path(unquote(urlsplit(entry.url).path)).name


def made_by(file: Path) -> str:
    """The extractor of a file that has the name of a listed one, or Score-SDE's array; "" where nothing tells it."""
    if listed := [entry.extractor for entry in published_references() if _name(entry) == file.name]:
        return listed[0]
    try:
        with zipfile.ZipFile(file) as archive:
            return "tfhub-inception" if "pool_3.npy" in archive.namelist() else ""
    except (OSError, ValueError, zipfile.BadZipFile):
        return ""


def place_of(entry: PublishedReference, home: Path) -> Path:
    """Where the file of an entry is kept, and where a person can put it by hand."""
    return home / "references-published" / entry.id / (_name(entry) or "statistics.npz")


def reference_file(entry: PublishedReference, home: Path, console: Console | None = None, wait: float = 1.0) -> Path:
    """The file of an entry of `references.toml`, in HOME/references-published/ID/; fetched if it is not there.

    Raises:
        DownloadError: if it cannot be had, or is not the one that was first seen; the message says where to put it.
    """
    console, file = console or Console(quiet=True), place_of(entry, home)
    by_hand = f"by hand: take {entry.place} and save it as {file}"
    if not file.is_file():
        if not entry.url:
            raise DownloadError(f"the reference {entry.id} is not here; {by_hand}.")
        part = file.with_name(f"{file.name}.part")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with locked(lock_of(file)):
                if not file.is_file():
                    console.print(
                        f"reference {entry.id}: {entry.data}, {entry.preprocessing}", markup=False, highlight=False
                    )
                    transfer(entry.url, part, console, wait)
                    part.replace(file)
                    origin_file(part).unlink(missing_ok=True)
        except (DownloadError, OSError) as error:
            raise DownloadError(f"the reference {entry.id} could not be fetched: {error}; {by_hand}.") from None
    _verify(entry, file, home)
    return file


def _verify(entry: PublishedReference, file: Path, home: Path) -> None:
    """Compare the file with the first one that was seen under this id."""
    lock, sha256 = home / "references-published" / "lock.json", sha256_of(file)
    with locked(lock_of(lock)):
        known = read_facts(lock) or {}
        if known.get(entry.id, sha256) != sha256:
            raise DownloadError(
                f"{file} is not the file of {entry.id} that was seen first: its sha256 is {sha256}, not "
                f"{known[entry.id]}; remove it, or {entry.id!r} from {lock} to take this one."
            )
        if entry.id not in known:
            facts = known | {entry.id: sha256}
            write_atomically(lock, lambda stream: stream.write(json_bytes(facts)))
