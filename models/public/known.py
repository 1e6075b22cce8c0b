"""Which file of a public model is the known one, and what a model of other weights is called.

HOME/checkpoints/lock.json holds, by id, the sha256 of the first file that was read as what its card says: where no
hash is published, that is the known file from then on. A card of one's own may change its source, or its file may be
trained further: `ID FILE URLS` holds the sha256 of the file that such a card names by now.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from fastsample.datasets.files import locked, write_atomically
from fastsample.datasets.home import sha256_of
from fastsample.models.checkpoints import CheckpointError
from fastsample.models.public.cards import Card, is_shipped

__all__ = [
    "DownloadError",
    "conflict",
    "current_sha256",
    "from_elsewhere",
    "identity",
    "lock_of",
    "record",
    "record_given",
    "target_of",
    "verify_file",
]


class DownloadError(CheckpointError):
    """A file could not be fetched, or is not the one that was asked for."""


def target_of(card: Card, home: Path) -> Path:
    """Where the card's file is kept, and where a person can put it by hand."""
    return home / "checkpoints" / card.id / card.file


def lock_of(file: Path) -> Path:
    """The lock of those who make a file, beside it."""
    return file.with_name(f".{file.name}.lock")


def current_sha256(card: Card, home: Path) -> str:
    """The sha256 of the file that the card names, from the card or as recorded; "" before it is known."""
    first = "" if _sources(card, home) else _lock(home).get(card.id, "")
    return card.sha256 or _sources(card, home).get(_key(card), first)


def from_elsewhere(card: Card, sha256: str, home: Path) -> bool:
    """Whether a file was recorded for that id, but from other places only than the card of one's own names by now."""
    known = _sources(card, home)
    return sha256 in known.values() and known.get(_key(card)) != sha256


def identity(card: Card, sha256: str, home: Path) -> tuple[str, str]:
    """(the id of the model with these weights, how well they are known).

    The known file has the card's id: the one with the published hash, or where none is published the first one seen.
    Every other has the id and the first digits of its sha256.
    """
    published = bool(card.sha256 or card.md5)
    if sha256 == (card.sha256 or _lock(home).get(card.id)):
        return card.id, "published, by its hash" if published else "first seen here; no hash is published"
    told = "not the published file" if published else "not the known file; no hash is published"
    return f"{card.id}@{sha256[:8]}", told


def conflict(card: Card, sha256: str, home: Path) -> str:
    """What to do about a card of one's own under whose id another file was recorded first; "" where none was."""
    first = _lock(home).get(card.id, sha256)
    if is_shipped(card.id) or card.sha256 or first == sha256:
        return ""
    return (
        f"{card.id}@{sha256[:8]} is not {card.id}: under that id {_lock_file(home)} has the file that was seen first, "
        f'sha256 {first[:12]}...; to make this one {card.id}, write sha256 = "{sha256}" on its card, or give the card '
        "an id of its own"
    )


def verify_file(card: Card, path: Path, home: Path) -> str:
    """The sha256 of a file that was downloaded, or put in the place of a download.

    Raises:
        DownloadError: when it is not what the card says, or for a card of the package without a published hash not the
            first one seen.
    """
    first_counts = is_shipped(card.id) and not (card.sha256 or card.md5)
    sha256, first = sha256_of(path), _lock(home).get(card.id, "") if first_counts else ""
    told = _mismatch(card, path, sha256)
    if first not in ("", sha256):
        told.append(
            f"its sha256 is {sha256}, that of the first download, recorded in lock.json {first} (to take this one "
            f"instead, remove {card.id!r} from {_lock_file(home)})"
        )
    if told:
        own = "" if is_shipped(card.id) else f". Remove {path} to fetch it anew, or correct the card"
        raise DownloadError(f"{path} is not the known file of {card.id}: {'; '.join(told)}{own}")
    return sha256


def record(card: Card, sha256: str, home: Path) -> None:
    """Take a file that was read as what the card says for the one that the card names, and the first of it for known.

    Other processes may record other files at the same time.
    """
    with locked(lock_of(_lock_file(home))):
        lock = _lock(home)
        if card.sha256 or card.md5:
            lock[card.id] = sha256
        lock.setdefault(card.id, sha256)
        if not is_shipped(card.id):
            lock[_key(card)] = sha256
        text = json.dumps(dict(sorted(lock.items())), indent=2) + "\n"
        _lock_file(home).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(_lock_file(home), lambda stream: stream.write(text.encode()))


def record_given(card: Card, path: Path, sha256: str, home: Path) -> None:
    """Record a file given by hand if it is the published one by its hash, or the first of a card without urls.

    Any other is a model of its own, and nothing to be found in place of a download.
    """
    published = card.sha256 or card.md5
    if not _mismatch(card, path, sha256) if published else not card.urls and card.id not in _lock(home):
        record(card, sha256, home)


def _mismatch(card: Card, path: Path, sha256: str) -> list[str]:
    """What of the card's hashes a file does not have."""
    told = [f"its sha256 is {sha256}, that of the card {card.sha256}"] if card.sha256 not in ("", sha256) else []
    if card.md5:
        with path.open("rb") as file:
            md5 = hashlib.file_digest(file, "md5").hexdigest()
        told += [f"its md5 is {md5}, that of the card {card.md5}"] if md5 != card.md5 else []
    return told


def _sources(card: Card, home: Path) -> dict[str, str]:
    """What is recorded of the places that cards of one's own with that id named: sha256 by `_key`."""
    return {key: sha256 for key, sha256 in _lock(home).items() if key.startswith(f"{card.id} ")}


def _key(card: Card) -> str:
    """Of the file that a card names by now: its id, and where a card of one's own takes it from."""
    return card.id if is_shipped(card.id) else " ".join((card.id, card.file, *card.urls))


def _lock_file(home: Path) -> Path:
    return home / "checkpoints" / "lock.json"


def _lock(home: Path) -> dict[str, str]:
    file = _lock_file(home)
    if not file.is_file():
        return {}
    try:
        lock = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise DownloadError(f"{file} is damaged: {error}; remove it, and what is here is recorded anew") from error
    if not isinstance(lock, dict) or not all(isinstance(sha256, str) for sha256 in lock.values()):
        raise DownloadError(f"{file} is damaged: it holds no table of id and sha256; remove it")
    return lock
