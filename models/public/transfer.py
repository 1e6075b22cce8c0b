"""One file over HTTP: resumed, shown, tried again as its server asks, and whole in the end or told why not.

FILE.part is what has come; FILE.part.json says from where, and by which validator its server knows the file again. What
comes over https never comes over anything else.
"""

from __future__ import annotations

import errno
import http.client
import json
import os
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from fastsample.datasets.files import write_atomically
from fastsample.models.public.answers import check_kind, pause, reason
from fastsample.models.public.known import DownloadError

__all__ = ["ask", "origin_file", "transfer"]

_ATTEMPTS = 5
_PATIENCE = 120.0  # seconds without a byte, waits and silence together, after which nothing is tried again
_TIMEOUT = 30.0
_CHUNK = 1 << 16  # what a reset may lose
_REPORT = 10.0  # seconds between the lines of a console that is no terminal
_FOR_NOW = {408, 425, 429}  # beside 5xx: refusals of this request at this time


class _BrokenError(Exception):
    """An attempt that failed.

    Attributes:
        passing: whether another attempt may help.
        pause: seconds that the server asks to wait, or None.
    """

    def __init__(self, told: str, passing: bool = True, pause: float | None = None) -> None:
        super().__init__(told)
        self.passing, self.pause = passing, pause


def transfer(
    url: str, part: Path, console: Console, wait: float, *, address: str = "", headers: Mapping[str, str] | None = None
) -> None:
    """Fetch into `part`, going on after what is there if it came from the same url.

    Args:
        url: what is recorded as the origin, and from where it comes unless `address` says it.
        console: where progress, and each wait with its reason, is shown.
        wait: seconds before the second attempt, doubled for each further one, where the server does not say.
        headers: for the host of the address alone, and no other that it sends on to.

    Raises:
        DownloadError: when the file cannot be had from there.
        OSError: when `part` cannot be written.
    """
    origin, name = origin_file(part), part.name.removesuffix(".part")
    if not (os.access(part, os.W_OK) and _origin(origin).get("url") == url):
        part.unlink(missing_ok=True)
        _record(origin, url, "")
    silent = time.monotonic()
    for attempt in range(1, _ATTEMPTS + 1):
        before = _size(part)
        try:
            return _attempt(url, address or url, headers or {}, part, console)
        except _BrokenError as broken:
            now = time.monotonic()
            silent = now if _size(part) > before else silent
            seconds = wait * 2 ** (attempt - 1) if broken.pause is None else broken.pause
            if attempt == _ATTEMPTS or not broken.passing:
                raise DownloadError(str(broken)) from broken
            if now - silent + seconds > _PATIENCE:
                raise DownloadError(
                    f"{broken}; another attempt would be in {seconds:,.0f} s, which is not waited for"
                ) from broken
            again = f"tried again in {seconds:,.3g} s, attempt {attempt + 1} of {_ATTEMPTS}"
            console.print(f"{name}: {broken}; {again}", markup=False, highlight=False, soft_wrap=True)
            sleep(seconds)


def origin_file(part: Path) -> Path:
    """Where it is recorded from where an unfinished download came."""
    return part.with_name(f"{part.name}.json")


def ask(address: str, headers: Mapping[str, str], first: int = 0) -> http.client.HTTPResponse:
    """The answer for a file before anything of it has come: to HEAD, or to GET of so many `first` bytes.

    Raises:
        DownloadError: when the server cannot be reached, or refuses.
    """
    request = _request(address, headers, "GET" if first else "HEAD")
    if first:
        request.add_header("Range", f"bytes=0-{first - 1}")
    try:
        with _speaking():
            answer: http.client.HTTPResponse = _OPENER.open(request, timeout=_TIMEOUT)
            return answer
    except urllib.error.HTTPError as error:
        with error:
            raise DownloadError(str(_refusal(error))) from error
    except _BrokenError as broken:
        raise DownloadError(str(broken)) from broken


def _request(address: str, headers: Mapping[str, str], method: str = "GET") -> urllib.request.Request:
    plain = {"User-Agent": "fastsample", "Accept-Encoding": "identity"}
    request = urllib.request.Request(address, headers=plain, method=method)
    for name, value in headers.items():
        request.add_unredirected_header(name, value)
    return request


def _attempt(url: str, address: str, headers: Mapping[str, str], part: Path, console: Console) -> None:
    """One request; returns when the file is complete.

    What is there is only continued if the server says by a validator that it has the same file still; it is only given
    up once something else that may be the file has begun to come.
    """
    known = _origin(origin_file(part)).get("validator", "")
    start = _size(part) if known else 0
    request = _request(address, headers)
    if start:
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", known)
    try:
        with _speaking():
            response = _OPENER.open(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            if error.code != 416 or not start:
                raise _refusal(error) from error
            if error.headers.get("Content-Range", "") == f"bytes */{start}":
                return
        part.unlink()
        raise _BrokenError("what was there is not the beginning of the file; it is fetched anew") from error
    with response:
        # A weak ETag says nothing about bytes.
        tag = response.headers.get("ETag", "")
        validator = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")
        if response.status == 206:
            wanted = re.match(rf"bytes {start}-", response.headers.get("Content-Range", ""))
            if not wanted or not start or validator != known:
                part.unlink(missing_ok=True)
                raise _BrokenError("the server sends another part than asked for, or of another file")
        else:
            start = 0  # The server sends the whole file.
        total = None if response.length is None else start + response.length
        chunk = _read(response)
        if chunk and not start:
            check_kind(response.headers, chunk)
        _record(origin_file(part), url, validator)
        with _named(part), part.open("ab" if start else "wb") as file, _shown(part, start, total, console) as advance:
            while chunk:
                file.write(chunk)
                advance(len(chunk))
                chunk = _read(response)
        if total is not None and _size(part) != total:
            raise _BrokenError(f"no connection, or a broken one: {_size(part)} of {total} bytes came")


def _refusal(error: urllib.error.HTTPError) -> _BrokenError:
    told = f"the server answers {error.code} {reason(error)}"
    return _BrokenError(told, error.code >= 500 or error.code in _FOR_NOW, pause(error.headers))


@contextmanager
def _speaking() -> Iterator[None]:
    """What goes wrong while the server is spoken to becomes a `_BrokenError`; its refusals stay."""
    try:
        yield
    except (urllib.error.HTTPError, DownloadError):
        raise
    except (OSError, http.client.HTTPException) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        # A name that is not known or a certificate that is not valid will not be in a second.
        lasting = isinstance(cause, socket.gaierror | ssl.SSLCertVerificationError) or (
            isinstance(cause, OSError) and cause.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH)
        )
        raise _BrokenError(f"no connection, or a broken one: {_first_line(cause)}", not lasting) from error
    except ValueError as error:
        raise DownloadError(f"the server sends on to an address that is none: {_first_line(error)}") from error


def _read(response: http.client.HTTPResponse) -> bytes:
    with _speaking():
        return response.read(_CHUNK)


@contextmanager
def _named(file: Path) -> Iterator[None]:
    """A full disk says of which file it speaks."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file)) from error


@contextmanager
def _shown(part: Path, start: int, total: int | None, console: Console) -> Iterator[Callable[[int], None]]:
    """A function that is told how many bytes came: a bar on a terminal, a line now and then elsewhere."""
    name = part.name.removesuffix(".part")
    if console.is_terminal and not console.quiet:
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
            task = progress.add_task(name, total=total, completed=start)
            yield lambda count: progress.advance(task, count)
        return
    done, said = start, time.monotonic()

    def advance(count: int) -> None:
        nonlocal done, said
        done += count
        if (now := time.monotonic()) - said >= _REPORT or done == total:
            said, whole = now, f" of {total / 1e6:,.1f}" if total else ""
            console.print(f"{name}: {done / 1e6:,.1f}{whole} MB", markup=False, highlight=False, soft_wrap=True)

    yield advance


class _SameScheme(urllib.request.HTTPRedirectHandler):
    """Redirects of https stay on https, those of http on http and https; nothing goes to ftp or a file."""

    def redirect_request(self, req: urllib.request.Request, *rest: Any) -> urllib.request.Request | None:
        new = super().redirect_request(req, *rest)
        if new is None:
            return None
        old, there = urlsplit(req.full_url), urlsplit(new.full_url)  # not of the proxy in between
        if there.scheme not in {"https": ("https",), "http": ("http", "https")}.get(old.scheme, ()):
            raise DownloadError(f"the server sends on from {old.scheme} to {there.scheme}, which is not followed")
        new.method = req.get_method()
        if there[:2] == old[:2] and (token := req.get_header("Authorization")):
            new.add_unredirected_header("Authorization", token)
        return new


_OPENER = urllib.request.build_opener(_SameScheme)


def _record(origin: Path, url: str, validator: str) -> None:
    text = json.dumps({"url": url, "validator": validator})
    write_atomically(origin, lambda stream: stream.write(text.encode()))


def _origin(file: Path) -> dict[str, str]:
    """Url and validator of an unfinished download; {} if there is no record, or a damaged one."""
    try:
        record = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _first_line(error: BaseException | str) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (text.splitlines() or [type(error).__name__])[0]
