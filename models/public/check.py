"""Whether the files that cards name can be had: each address is asked, and nothing is fetched."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from urllib.parse import urlsplit

from fastsample.datasets.published_moments import published_references
from fastsample.models.public.answers import check_kind
from fastsample.models.public.cards import Card, card_named
from fastsample.models.public.download import address_of
from fastsample.models.public.known import DownloadError
from fastsample.models.public.transfer import ask

__all__ = ["Source", "check", "without_source"]

_FIRST = 512  # bytes, which tell a file from a web page
_AT_ONCE = 8
_ABOUT = 0.2  # relative: the sizes of cards are rounded


@dataclass(frozen=True)
class Source:
    """An address, and what its server says.

    Attributes:
        kind, id: whose file it is: of the card of a model, or of reference statistics.
        url: as the card has it.
        in_browser: it is a page where a person finds the file, which has no address of its own.
        expected_mb: the size on the card, 10^6 bytes; None where none is told.
        reachable: whether the file, or the page, is there.
        status: the same in words, with the reason.
        size: of the file in bytes; None where the server does not say it.
        type: what the server says that it is.
        moved: the host that the request was sent on to; "" for none.
    """

    kind: str
    id: str
    url: str
    in_browser: bool = False
    expected_mb: float | None = None
    reachable: bool = False
    status: str = ""
    size: int | None = None
    type: str = ""
    moved: str = ""


def check(cards: Sequence[Card]) -> list[Source]:
    """Ask each address of cards, of the first stages and classifiers that these need, and of their references, once.

    The addresses of a card are in its own order; references follow the models.
    """
    cards = [needed for card in cards for needed in (card, *_needed(card))]
    models = [source for card in cards for source in _of_model(card)]
    references = [source for card in cards for source in _of_reference(card.reference)]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = list(pool.map(_asked, dict.fromkeys(models + references)))
    for index, (one, after) in enumerate(pairwise(found)):
        if not one.reachable and (one.kind, one.id) == (after.kind, after.id):
            found[index] = replace(one, status=f"{one.status}; the next source is tried")
    return found


def without_source(found: Iterable[Source], kind: str) -> list[str]:
    """The ids of models, or of references, of which no address is reachable."""
    there: dict[str, bool] = {}
    for source in found:
        if source.kind == kind:
            there[source.id] = there.get(source.id, False) or source.reachable
    return [name for name, reachable in there.items() if not reachable]


def _needed(card: Card) -> list[Card]:
    names = (card.first_stage, card.classifier)
    return [card_named(name) for name in names if isinstance(name, str) and name]


def _of_model(card: Card) -> list[Source]:
    if not card.urls:
        return [Source("model", card.id, card.page, True, card.size_mb)]
    return [Source("model", card.id, url, False, card.size_mb) for url in card.urls]


def _of_reference(name: str) -> list[Source]:
    return [
        Source("reference", name, entry.url or entry.page, not entry.url)
        for entry in published_references()
        if entry.id == name
    ]


def _asked(source: Source) -> Source:
    if not source.url.startswith(("https://", "http://", "hf://")):
        return replace(source, status="no address")
    try:
        address, headers = address_of(source.url)
        size, kind, there = _answer(address, headers, source.in_browser)
    except DownloadError as error:
        return replace(source, status=str(error))
    host = urlsplit(there).netloc
    moved = "" if host == urlsplit(address).netloc else host
    told = "reachable in a browser" if source.in_browser else "reachable"
    if size is not None and source.expected_mb and abs(size / 1e6 / source.expected_mb - 1) > _ABOUT:
        told += ", but not of the size on the card"
    return replace(source, reachable=True, status=told, size=size, type=kind, moved=moved)


def _answer(address: str, headers: dict[str, str], page: bool) -> tuple[int | None, str, str]:
    """(size of the file, its type, the address that answered).

    Some servers refuse HEAD, or say nothing of the file then; they are asked for its first bytes.
    """
    try:
        with ask(address, headers) as answer:
            size, kind = _number(answer.headers.get("Content-Length")), answer.headers.get_content_type()
            if page or (size and kind != "text/html"):
                return None if page else size, kind, answer.geturl()
    except DownloadError:
        pass
    with ask(address, headers, _FIRST) as answer:
        if not page:
            check_kind(answer.headers, answer.read(_FIRST))
        part = re.match(r"bytes 0-\d+/(\d+)", answer.headers.get("Content-Range", ""))
        size = _number(part[1] if part else answer.headers.get("Content-Length") if answer.status == 200 else None)
        return None if page else size, answer.headers.get_content_type(), answer.geturl()


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() else None
