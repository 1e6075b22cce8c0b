"""Downloads of public checkpoints: resumed, shown, verified, and complete or not there at all.

A file lands in HOME/checkpoints/ID/FILE. Until it is complete and verified it is FILE.part beside it. The sha256 of
the first download is recorded in HOME/checkpoints/lock.json and every later file of that id must have it.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from time import sleep
from typing import BinaryIO

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from fastsample.datasets.home import sha256_of
from fastsample.models.checkpoints import CheckpointError
from fastsample.models.public import Card

__all__ = ["DownloadError", "download", "locked_sha256", "target_of", "verify_file"]

_ATTEMPTS = 5
_CHUNK = 1 << 20
_TIMEOUT = 60.0
_HUB = re.compile(r"hf://([^/]+/[^/]+)/(.+)@([^@]+)")


class DownloadError(CheckpointError):
    """A file could not be fetched, or is not the one that was asked for."""


def target_of(card: Card, home: Path) -> Path:
    """Where the card's file is kept, and where a person can put it by hand."""
    return home / "checkpoints" / card.id / card.file


def download(card: Card, home: Path, console: Console | None = None, wait: float = 2.0) -> Path:
    """The card's file, fetched if it is not there, and verified in any case.

    Args:
        card: what to fetch; its urls are tried in order.
        home: folder of all that is downloaded.
        console: where the licence and the progress are shown; None for silence.
        wait: seconds between attempts after a lost connection; each attempt goes on where the last one stopped.

    Raises:
        DownloadError: without a network, for a file that only a person can fetch, a web page in place of a file, or a
            hash that is not the known one. The message says where the file is and where to put it.
    """
    target = target_of(card, home)
    if target.is_file():
        verify_file(card, target, home)
        return target
    console = console or Console(quiet=True)
    console.print(f"{card.title}: {card.licence}. {card.notice}", markup=False)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    faults = []
    for url in card.urls:
        try:
            if url.startswith("hf://"):
                _from_hub(url, part)
            else:
                _from_web(url, part, console, wait)
            verify_file(card, part, home)
        except DownloadError as error:
            faults.append(f"{url}: {error}")
        else:
            part.replace(target)
            return target
    if not card.urls:
        faults.append("it can only be fetched in a browser")
    raise DownloadError(
        f"{card.id} is not here and could not be fetched: {'; '.join(faults)}. By hand: take it from "
        f"{card.page or card.urls[0]} and save it as {target}, or give its path with --checkpoint. {card.note}".strip()
    )


def locked_sha256(card: Card, home: Path) -> str:
    """The sha256 recorded for that id at its first download; "" before it."""
    return _lock(home).get(card.id, "")


def verify_file(card: Card, path: Path, home: Path) -> str:
    """The sha256 of a file, checked against the card and the lock, and recorded if it is the first.

    Raises:
        DownloadError: when it is not the known file. An incomplete download of that content is removed.
    """
    sha256, locked = sha256_of(path), locked_sha256(card, home)
    known = {"the card": card.sha256, "the first download, recorded in lock.json": locked}
    told = [f"its sha256 is {sha256}, that of {who} {one}" for who, one in known.items() if one not in ("", sha256)]
    if card.md5:
        with path.open("rb") as file:
            md5 = hashlib.file_digest(file, "md5").hexdigest()
        if md5 != card.md5:
            told.append(f"its md5 is {md5}, that of the card {card.md5}")
    if told:
        if path.suffix == ".part":
            path.unlink()
        raise DownloadError(f"{path} is not the known file of {card.id}: {'; '.join(told)}")
    if not locked:
        _write(_lock_file(home), json.dumps(dict(sorted({**_lock(home), card.id: sha256}.items())), indent=2) + "\n")
    return sha256


def _lock_file(home: Path) -> Path:
    return home / "checkpoints" / "lock.json"


def _lock(home: Path) -> dict[str, str]:
    file = _lock_file(home)
    if not file.is_file():
        return {}
    try:
        lock = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise DownloadError(f"{file} is damaged: {error}") from error
    if not isinstance(lock, dict):
        raise DownloadError(f"{file} is damaged: it holds no table of id and sha256")
    return lock


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, "utf-8")
    temporary.replace(path)


def _from_hub(url: str, part: Path) -> None:
    found = _HUB.fullmatch(url)
    if not found:
        raise DownloadError("not of the form hf://OWNER/REPO/FILE@REVISION")
    folder = part.with_name(".hub")
    try:
        file = hf_hub_download(found[1], found[2], revision=found[3], local_dir=folder)
    except (OSError, EntryNotFoundError, ValueError) as error:
        raise DownloadError(_first_line(error)) from error
    Path(file).replace(part)
    shutil.rmtree(folder)


def _from_web(url: str, part: Path, console: Console, wait: float) -> None:
    """Fetch into `part`, going on after what is there if it came from the same url."""
    origin = part.with_name(f"{part.name}.json")
    if not (part.is_file() and _origin(origin).get("url") == url):
        part.unlink(missing_ok=True)
        _write(origin, json.dumps({"url": url}))
    for attempt in range(1, _ATTEMPTS + 1):
        before = _size(part)
        try:
            _attempt(url, part, origin, console)
        except urllib.error.HTTPError as error:
            raise DownloadError(f"the server answers {error.code} {error.reason}") from error
        except (OSError, http.client.HTTPException) as error:
            # Trying again helps against a connection that broke, not against one that was never there.
            if attempt == _ATTEMPTS or _size(part) == before == 0:
                raise DownloadError(f"no connection, or a broken one: {_first_line(error)}") from error
            sleep(wait)
        else:
            origin.unlink()
            return


def _attempt(url: str, part: Path, origin: Path, console: Console) -> None:
    """One request; returns when the file is complete.

    Raises:
        ConnectionError: when the server stops early.
    """
    start, validator = _size(part), _origin(origin).get("validator", "")
    request = urllib.request.Request(url, headers={"User-Agent": "fastsample", "Accept-Encoding": "identity"})
    if start:
        request.add_header("Range", f"bytes={start}-")
        if validator:
            request.add_header("If-Range", validator)
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not start:
            raise
        if error.headers.get("Content-Range", "") == f"bytes */{start}":
            return
        part.unlink()
        raise ConnectionError("what was there is not the beginning of the file; it is fetched anew") from error
    with response:
        if not re.match(rf"bytes {start}-", response.headers.get("Content-Range", "")):
            start = 0  # The server sends the whole file, or another part than asked for.
            if response.status == 206:
                part.unlink(missing_ok=True)
                raise ConnectionError("the server sends another part than asked for")
        # A weak ETag says nothing about bytes.
        tag = response.headers.get("ETag", "")
        validator = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")
        _write(origin, json.dumps({"url": url, "validator": validator}))
        length = response.headers.get("Content-Length")
        total = start + int(length) if length is not None else None
        with part.open("ab" if start else "wb") as file:
            _copy(response, file, start, total, part.name.removesuffix(".part"), console)
        if total is not None and _size(part) != total:
            raise ConnectionError(f"{_size(part)} of {total} bytes came")


def _copy(
    response: http.client.HTTPResponse, file: BinaryIO, start: int, total: int | None, name: str, console: Console
) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=console.quiet) as progress:
        task = progress.add_task(name, total=total, completed=start)
        while chunk := response.read(_CHUNK):
            if not start and not file.tell() and _is_page(chunk):
                raise DownloadError("a web page came in place of the file; a browser shows what it asks for")
            file.write(chunk)
            progress.advance(task, len(chunk))


def _is_page(chunk: bytes) -> bool:
    return chunk[:512].lstrip().lower().startswith((b"<!doctype html", b"<html"))


def _origin(file: Path) -> dict[str, str]:
    """Url and validator of an unfinished download; {} if there is no record, or a damaged one."""
    try:
        record = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
