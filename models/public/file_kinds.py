"""What a file is that was taken for a checkpoint and is none, in words."""

from __future__ import annotations

import zipfile
from pathlib import Path

__all__ = ["no_checkpoint", "wrong_file"]


def no_checkpoint(head: bytes) -> str:
    """What a file is, from its first bytes, that is no checkpoint and stands in the place of one; "" if it may be one.

    A safetensors file may begin with a brace too, as its length, but always has one at its ninth byte.
    """
    text = head[:512].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    kinds = {
        "an empty file": not head,
        "a web page": text.startswith((b"<!doctype html", b"<html", b"<head", b"<!--")),
        "an answer in XML": text.startswith((b"<?xml", b"<error")),
        "a Git LFS pointer, which `git lfs pull` replaces by the file": text.startswith(b"version https://git-lfs"),
        "a text in JSON": text.startswith((b"{", b"[")) and head[8:9] != b"{",
    }
    return next((kind for kind, true in kinds.items() if true), "")


def wrong_file(path: Path) -> str:
    """What a path is that cannot be read as a checkpoint; "" if that cannot be told."""
    if path.is_dir():
        return "a folder"
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        head = file.read(512)
    cut = "a zip without its end, so cut short" if head[:4] == b"PK\3\4" and not zipfile.is_zipfile(path) else ""
    return no_checkpoint(head) or cut
