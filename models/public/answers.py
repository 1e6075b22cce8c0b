"""What the answer of a server means that is not the file: why, for how long, and what came in place of it."""

from __future__ import annotations

import http.client
import json
import re
import urllib.error
from contextlib import suppress
from email.message import Message
from email.utils import formatdate, parsedate_to_datetime
from typing import Any

from fastsample.models.public.file_kinds import no_checkpoint
from fastsample.models.public.known import DownloadError

__all__ = ["check_kind", "pause", "reason"]

_MOST = 2**16  # bytes of an answer that are searched for words


def check_kind(headers: Message, head: bytes) -> None:
    """Raise a DownloadError for an answer that is not the file, whatever its status says."""
    if packed := headers.get("Content-Encoding", "identity").replace("identity", ""):
        raise DownloadError(f"the server sends it packed as {packed}, which was not asked for")
    kind = "a web page" if headers.get_content_type() == "text/html" else no_checkpoint(head)
    if kind:
        raise DownloadError(f"{kind} came in place of the file; a browser shows what it says")


def reason(error: urllib.error.HTTPError) -> str:
    """The phrase of a status, with the server's own words: the hub's header, or JSON or XML."""
    words = " ".join(error.headers.get("X-Error-Message", "").split()) or _words(error)
    return f"{' '.join(str(error.reason).split())}{f': {words[:300]}' if words else ''}"


def _words(error: urllib.error.HTTPError) -> str:
    """The reason in the JSON or XML of an answer; "" if there is none, as in a web page."""
    with suppress(OSError, http.client.HTTPException, ValueError, AttributeError, RecursionError):
        text = error.read(_MOST).decode("utf-8", "replace")
        if found := re.search(r"<Message>([^<]*)</Message>", text):
            return " ".join(found[1].split())
        said: Any = json.loads(text)
        said = said.get("error") or said.get("message")
        said = said.get("message") if isinstance(said, dict) else said
        return " ".join(said.split())
    return ""


def pause(headers: Message) -> float | None:
    """Seconds to wait by Retry-After, a number or a date, or by the limit that the hub tells; None without either."""
    asked = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", asked):
        return float(asked)
    if limit := re.search(r"r=0;t=(\d{1,9})", headers.get("RateLimit", "")):
        return float(limit[1])
    try:
        until, now = (parsedate_to_datetime(text) for text in (asked, headers.get("Date") or formatdate()))
        return max(0.0, until.timestamp() - now.timestamp())
    except (ValueError, TypeError):
        return None
