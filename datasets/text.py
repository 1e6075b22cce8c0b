"""The text of files that people write: UTF-8 whatever the locale, with or without a byte-order mark."""

from __future__ import annotations

import codecs

__all__ = ["text_of"]

_WIDE = {
    codecs.BOM_UTF32_LE: "UTF-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def text_of(content: bytes) -> str:
    """The text without its mark.

    Raises:
        ValueError: if it is not UTF-8; for UTF-16, which PowerShell's `>` writes, that is said.
    """
    wide = next((name for mark, name in _WIDE.items() if content.startswith(mark)), "")
    if not wide and [bool(byte) for byte in content[:4]] in ([True, False] * 2, [False, True] * 2):  # without a mark
        wide = "UTF-16"
    if wide:
        raise ValueError(f"it is {wide} text; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"byte 0x{content[error.start]:02x} in line {line} is not UTF-8; save it as UTF-8") from None
