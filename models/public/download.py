"""Downloads of public checkpoints: resumed, shown, verified, and complete or not there at all.

A file lands in HOME/checkpoints/ID/FILE. Until it is complete, verified and read as what its card says, it is
FILE.part beside it, with what its server said of it in FILE.part.json; then its sha256 is recorded (see
`fastsample.models.public.known`). What comes over https never comes over anything else.
"""

from __future__ import annotations

import http.client
import json
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from time import sleep
from typing import Any, BinaryIO

from huggingface_hub import hf_hub_download
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from fastsample.datasets.files import write_atomically
from fastsample.datasets.home import sha256_of
from fastsample.models.checkpoints import CheckpointError
from fastsample.models.public.cards import Card
from fastsample.models.public.file_kinds import no_checkpoint
from fastsample.models.public.known import DownloadError, from_elsewhere, record, target_of, verify_file

__all__ = ["download"]

_ATTEMPTS = 5
_CHUNK = 1 << 20
_TIMEOUT = 60.0
_HUB = re.compile(r"hf://([^/]+/[^/]+)/(.+)@([^@]+)")


def download(
    card: Card, home: Path, accept: Callable[[Path, str], object], console: Console | None = None, wait: float = 2.0
) -> Path:
    """The card's file, fetched if it is not there, and verified in any case.

    Args:
        card: what to fetch; its urls are tried in order.
        home: folder of all that is downloaded.
        accept: called with a file and its sha256 before it is recorded and kept; raises `CheckpointError` for one that
            is not what the card says, and the next url is tried.
        console: where the licence and the progress are shown; None for silence.
        wait: seconds between attempts after a lost connection; each attempt goes on where the last one stopped.

    Raises:
        DownloadError: without a network, for a file that only a person can fetch, one that is not accepted, or a hash
            that is not the known one. The message says where the file is and where to put it.
    """
    target = target_of(card, home)
    if target.is_file() and not (card.urls and from_elsewhere(card, sha256_of(target), home)):
        sha256 = verify_file(card, target, home)
        try:
            accept(target, sha256)
        except CheckpointError as error:
            raise DownloadError(f"{error} (remove {target} if it is another file)") from error
        record(card, sha256, home)
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
            _take(card, home, part, accept)
        except CheckpointError as error:
            faults.append(f"{url}: {error}")
        else:
            return target
    if not card.urls:
        faults.append("it can only be fetched in a browser")
    raise DownloadError(
        f"{card.id} is not here and could not be fetched: {'; '.join(faults)}. By hand: take it from "
        f"{card.page or card.urls[0]} and save it as {target}, or give its path with --checkpoint. {card.note}".strip()
    )


def _take(card: Card, home: Path, part: Path, accept: Callable[[Path, str], object]) -> None:
    """Make a complete download the card's file, if it is; nothing of another one is kept, so that none is continued."""
    try:
        sha256 = verify_file(card, part, home)
        accept(part, sha256)
        record(card, sha256, home)
        part.replace(target_of(card, home))
    finally:
        part.unlink(missing_ok=True)
        _origin_file(part).unlink(missing_ok=True)


def _from_hub(url: str, part: Path) -> None:
    found = _HUB.fullmatch(url)
    if not found:
        raise DownloadError("not of the form hf://OWNER/REPO/FILE@REVISION")
    folder = part.with_name(".hub")
    try:
        file = hf_hub_download(found[1], found[2], revision=found[3], local_dir=folder)
    except Exception as error:  # those of the HTTP library that the hub's client is made with
        raise DownloadError(_first_line(error)) from error
    Path(file).replace(part)
    shutil.rmtree(folder)


def _from_web(url: str, part: Path, console: Console, wait: float) -> None:
    """Fetch into `part`, going on after what is there if it came from the same url."""
    origin = _origin_file(part)
    if not (part.is_file() and _origin(origin).get("url") == url):
        part.unlink(missing_ok=True)
        write_atomically(origin, lambda stream: stream.write(json.dumps({"url": url}).encode()))
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
            return


def _attempt(url: str, part: Path, origin: Path, console: Console) -> None:
    """One request; returns when the file is complete.

    What is there is only continued if the server says by a validator that it has the same file still.

    Raises:
        ConnectionError: when the server stops early.
    """
    known = _origin(origin).get("validator", "")
    start = _size(part) if known else 0
    request = urllib.request.Request(url, headers={"User-Agent": "fastsample", "Accept-Encoding": "identity"})
    if start:
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", known)
    try:
        response = _OPENER.open(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not start:
            raise
        if error.headers.get("Content-Range", "") == f"bytes */{start}":
            return
        part.unlink()
        raise ConnectionError("what was there is not the beginning of the file; it is fetched anew") from error
    with response:
        # A weak ETag says nothing about bytes.
        tag = response.headers.get("ETag", "")
        validator = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")
        if response.status == 206:
            wanted = re.match(rf"bytes {start}-", response.headers.get("Content-Range", ""))
            if not wanted or not start or validator != known:
                part.unlink(missing_ok=True)
                raise ConnectionError("the server sends another part than asked for, or of another file")
        else:
            start = 0  # The server sends the whole file.
        told = json.dumps({"url": url, "validator": validator})
        write_atomically(origin, lambda stream: stream.write(told.encode()))
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
            if not start and not file.tell() and (kind := no_checkpoint(chunk)):
                raise DownloadError(f"{kind} came in place of the file; a browser shows what it says")
            file.write(chunk)
            progress.advance(task, len(chunk))


class _SameScheme(urllib.request.HTTPRedirectHandler):
    """Redirects of https stay on https, those of http on http and https; nothing goes to ftp or a file."""

    def redirect_request(self, req: urllib.request.Request, *rest: Any) -> urllib.request.Request | None:
        new = super().redirect_request(req, *rest)
        if new is not None and new.type not in {"https": ("https",), "http": ("http", "https")}.get(req.type, ()):
            raise DownloadError(f"the server sends on from {req.type} to {new.type}, which is not followed")
        return new


_OPENER = urllib.request.build_opener(_SameScheme)


def _origin_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


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
