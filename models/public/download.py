"""Downloads of public checkpoints: resumed, shown, verified, and complete or not there at all.

A file lands in HOME/checkpoints/ID/FILE. Until it is complete, verified and read as what its card says, it is
FILE.part beside it (see `fastsample.models.public.transfer`); then its sha256 is recorded (see
`fastsample.models.public.known`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from huggingface_hub import constants
from rich.console import Console

from fastsample.datasets.home import sha256_of
from fastsample.models.checkpoints import CheckpointError
from fastsample.models.public.cards import Card
from fastsample.models.public.known import DownloadError, from_elsewhere, record, target_of, verify_file
from fastsample.models.public.transfer import origin_file, transfer

__all__ = ["address_of", "download"]

_HUB = re.compile(r"hf://([^/]+/[^/]+)/(.+)@([^@]+)")


def download(
    card: Card, home: Path, accept: Callable[[Path, str], object], console: Console | None = None, wait: float = 1.0
) -> Path:
    """The card's file, fetched if it is not there, and verified in any case.

    Args:
        card: what to fetch; its urls are tried in order.
        home: folder of all that is downloaded.
        accept: called with a file and its sha256 before it is recorded and kept; raises `CheckpointError` for one that
            is not what the card says, and the next url is tried.
        console: where the licence and the progress are shown; None for silence.
        wait: seconds before the second attempt at a url; see `fastsample.models.public.transfer.transfer`.

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
            _fetch(url, part, console, wait)
            _take(card, home, part, accept)
        except CheckpointError as error:
            faults.append(f"{url}: {error}")
            if url != card.urls[-1]:
                console.print(f"{faults[-1]}; the next source is tried", markup=False, highlight=False, soft_wrap=True)
        else:
            return target
    if not card.urls:
        faults.append("it can only be fetched in a browser")
    by_hand = f"take it from {card.page or _in_browser(card.urls[0])} and save it as {target}"
    raise DownloadError(
        f"{card.id} is not here and could not be fetched: {'; '.join(faults)}. By hand: {by_hand}, or give its path "
        f"with --checkpoint. {card.note}".strip()
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
        origin_file(part).unlink(missing_ok=True)


def address_of(url: str) -> tuple[str, dict[str, str]]:
    """What is asked for a url of a card, and the headers for that host alone.

    For the Hugging Face hub that is the token of `hf auth login` or HF_TOKEN, if there is one.

    Raises:
        DownloadError: for an hf:// url of another form, or if the hub is not to be asked.
    """
    if not url.startswith("hf://"):
        return url, {}
    if constants.HF_HUB_OFFLINE:
        raise DownloadError("HF_HUB_OFFLINE is set, so the hub is not asked")
    from huggingface_hub import get_token  # takes long to import, and is seldom needed

    token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
    return _on_hub(url, constants.ENDPOINT), {"Authorization": f"Bearer {token}"} if token else {}


def _fetch(url: str, part: Path, console: Console, wait: float) -> None:
    address, headers = address_of(url)
    try:
        transfer(url, part, console, wait, address=address, headers=headers)
    except DownloadError as error:
        told = url.startswith("hf://") and re.match("the server answers 40[13] ", str(error))
        login = " (`hf auth login`, or HF_TOKEN, of an account with access opens it)" if told else ""
        raise DownloadError(f"{error}{login}") from error


def _on_hub(url: str, endpoint: str) -> str:
    """The address of an hf:// url.

    Raises:
        DownloadError: when it is of another form.
    """
    found = _HUB.fullmatch(url)
    if not found:
        raise DownloadError("not of the form hf://OWNER/REPO/FILE@REVISION")
    return f"{endpoint}/{found[1]}/resolve/{quote(found[3], safe='')}/{quote(found[2])}"


def _in_browser(url: str) -> str:
    """The address that a person can open."""
    hub = constants.ENDPOINT if constants.ENDPOINT.startswith("https://") else "https://huggingface.co"
    return _on_hub(url, hub) if _HUB.fullmatch(url) else url
