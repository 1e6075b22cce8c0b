"""BibTeX of papers, of what `titles.tsv` has of them; where it has no authors, the entry has none."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from functools import cache
from importlib.metadata import metadata
from pathlib import Path

__all__ = ["bibtex", "of_fastsample", "titles"]

_YEARS = {"doi:10.1016/0771-050X(80)90013-3": "1980", "doi:10.1016/0893-9659(89)90079-7": "1989"}


@cache
def titles() -> dict[str, tuple[str, str]]:
    """Title and authors ("" where they are not written down) of papers by arXiv id, or `doi:` and DOI."""
    with Path(__file__).with_name("titles.tsv").open(encoding="utf-8", newline="") as stream:
        return {line["paper"]: (line["title"], line["authors"]) for line in csv.DictReader(stream, delimiter="\t")}


def bibtex(papers: Iterable[str]) -> list[str]:
    """An entry for each paper; one whose title is not written down has its address alone."""
    return list(map(_entry, dict.fromkeys(paper for paper in papers if paper)))


def _entry(paper: str) -> str:
    title, authors = titles().get(paper, ("", ""))
    doi = paper.removeprefix("doi:") if paper.startswith("doi:") else ""
    return _written(
        "misc", f"doi:{doi}" if doi else f"arxiv:{paper}", title=title, author=authors,
        year=_YEARS.get(paper, "") if doi else f"20{paper[:2]}", doi=doi, eprint="" if doi else paper,
        archivePrefix="" if doi else "arXiv", url=f"https://doi.org/{doi}" if doi else f"https://arxiv.org/abs/{paper}",
    )  # fmt: skip


def of_fastsample(code: str) -> str:
    """The entry of this tool, with the version and the commit of its code."""
    return _written("software", "fastsample", title=f"fastsample: {metadata('fastsample')['Summary']}", version=code)


def _written(kind: str, key: str, **fields: str) -> str:
    lines = [f"  {name} = {{{{{text}}}}}," if name == "title" else f"  {name} = {{{text}}},"
             for name, text in fields.items() if text]  # fmt: skip
    return "\n".join([f"@{kind}{{{key},", *lines, "}"])
