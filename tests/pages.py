"""The pages of the documentation: their blocks of code and commands, and what their prose says of commands.

A block without a language holds commands, `text` what something prints; python, toml and yaml are what they say. A
comment on the line before a block says more of it:

    <!-- not run: REASON -->    it cannot be run here; its commands are parsed only
    <!-- file: PATH -->         it is the content of that file, which is there before the page is run
"""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

__all__ = ["PAGES", "ROOT", "Block", "blocks", "commands", "spoken"]

ROOT = Path(__file__).parents[1]
PAGES = [name for name in ("README.md", "CONTRIBUTING.md") if (ROOT / name).is_file()]
PAGES += sorted(file.relative_to(ROOT).as_posix() for file in (ROOT / "docs").rglob("*.md"))

_BLOCK = re.compile(r"^(?:<!-- (not run|file): (.+?) -->\n)?```(\w*)\n(.*?)^```$", re.M | re.S)
_REMARK = re.compile(r"(?:^|\s)#.*")  # not the # of FILE.toml#ID
_SPOKEN = re.compile(r"(?<!`)`([^`]+)`(?!`)")


class Block(NamedTuple):
    """A block of a page; `line` is that of its first line, `mark` and `said` what the comment before it says."""

    page: str
    line: int
    language: str
    text: str
    mark: str
    said: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: str) -> list[Block]:
    """The blocks of a page, in order."""
    text = (ROOT / page).read_text("utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        mark, said, language, body = match.groups(default="")
        found.append(Block(page, text.count("\n", 0, match.start(4)) + 1, language, body, mark, said))
    if len(re.findall("^```", text, re.M)) != 2 * len(found) or "<!-- not run" in _BLOCK.sub("", text):
        raise ValueError(f"{page} has a block that does not end, or a comment that belongs to none")
    return found


def commands(block: Block) -> list[list[str]]:
    """The commands of a block without a language, a list of words each."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(_REMARK.sub("", line)))]


def spoken(page: str) -> list[str]:
    """What stands between backticks in the prose of a page."""
    prose = _BLOCK.sub("", (ROOT / page).read_text("utf-8"))
    return [" ".join(text.split()) for text in _SPOKEN.findall(prose)]
