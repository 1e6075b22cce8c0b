# ruff: noqa: RUF001 - the signs are meant
"""Text of stores, cards and files, made harmless in each format that it is printed in.

Whatever a name holds, a reader sees it: control characters do not steer a terminal, Markdown gets no link or image of
it, a spreadsheet no formula, and LaTeX compiles.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["csv_text", "latex", "markdown", "visible"]


def visible(text: str) -> str:
    r"""The text with characters that steer instead of show, as `\x1b` or `\u202e`.

    These are the control characters of C0 and C1 (line ends and tabs among them), the format characters (those that
    turn the direction of writing, or have no width), the separators of lines and paragraphs, and halves of pairs.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_coded(c) if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c for c in text)


def _coded(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def markdown(text: str) -> str:
    """For GitHub's Markdown, in a line or a cell of a table: no sign has a meaning, and no address becomes a link."""
    return re.sub(r"[\\`*_{}\[\]<>|~#$&@]|:(?=//)|(?<=www)\.", r"\\\g<0>", visible(text))


_TEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "→": r"$\to$", "±": r"$\pm$", "×": r"$\times$", "·": r"$\cdot$",
    "−": "$-$", "≤": r"$\le$", "≥": r"$\ge$", "≈": r"$\approx$", "∞": r"$\infty$", "°": r"$^\circ$", "–": "--",
    "—": "---", "…": r"\dots{}", "‘": "`", "’": "'", "“": "``", "”": "''", "\xa0": "~", "ß": r"\ss{}", "æ": r"\ae{}",
    "Æ": r"\AE{}", "ø": r"\o{}", "Ø": r"\O{}", "ł": r"\l{}", "Ł": r"\L{}", "ı": r"\i{}", "§": r"\S{}",
    "α": r"$\alpha$", "β": r"$\beta$", "γ": r"$\gamma$", "δ": r"$\delta$", "ε": r"$\varepsilon$", "η": r"$\eta$",
    "θ": r"$\theta$", "κ": r"$\kappa$", "λ": r"$\lambda$", "μ": r"$\mu$", "µ": r"$\mu$", "π": r"$\pi$",
    "ρ": r"$\rho$", "σ": r"$\sigma$", "τ": r"$\tau$", "φ": r"$\varphi$", "χ": r"$\chi$", "ψ": r"$\psi$",
    "ω": r"$\omega$", "Δ": r"$\Delta$", "Σ": r"$\Sigma$", "Φ": r"$\Phi$", "Ψ": r"$\Psi$", "Ω": r"$\Omega$",
} | {sign: f"\\{sign}" for sign in "&%$#_{}"}  # fmt: skip
_ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": ".",
    "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0327": "c",
}  # fmt: skip


def latex(text: str) -> str:
    r"""For pdflatex without a package; a character that it has not stands as `\u4e2d`.

    A hyphen in front of a number is a minus, alone it is a dash.
    """
    text = "".join(map(_tex, visible(text)))
    return "--" if text == "-" else re.sub(r"^-(?=[\d.])", "$-$", text)


def _tex(character: str) -> str:
    if character in _TEX:
        return _TEX[character]
    if character.isascii():
        return character
    letter, *accents = list(unicodedata.normalize("NFD", character))
    if letter.isascii() and letter.isalpha() and len(accents) == 1 and accents[0] in _ACCENTS:
        return f"\\{_ACCENTS[accents[0]]}{{{letter}}}"
    return "".join(_TEX.get(c, c) for c in _coded(character))


def csv_text(frame: pd.DataFrame) -> str:
    """A frame as CSV that a spreadsheet reads as it is: text that would be a formula gets an apostrophe in front.

    That is text that begins with one of = + - @, a tab or a line end, and is neither a number nor a dash. Numbers are
    not touched.
    """
    names = [_cell(str(name)) for name in frame]
    return frame.apply(_column).set_axis(names, axis=1).to_csv(index=False)


def _column(values: pd.Series) -> pd.Series:
    if values.dtype.kind in "biufc":
        return values
    return values.map(lambda value: _cell(value) if isinstance(value, str) else value)


def _cell(text: str) -> str:
    first = unicodedata.normalize("NFKC", text[:1])  # full-width signs begin formulas as well
    formula = first in tuple("=+-@\t\r\n") and not re.fullmatch(r"-|[+-]?\d*\.?\d+([eE][+-]?\d+)?", text)
    return "'" * formula + visible(text)
