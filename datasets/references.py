"""The list of published reference statistics, `references.toml`; what is in them is read by `published_moments`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

__all__ = ["PublishedReference", "published_references"]


@dataclass(frozen=True)
class PublishedReference:
    """An entry of the list: where a file is, what it was made of, and by which extractor.

    Attributes:
        data, preprocessing: the images, as a model's card names them, and their recipe in
            `fastsample.datasets.preprocessing.RECIPES`; "?" where the publisher does not state it.
        extractor: what made the features.
        format: of the file, and what is in it.
        count: of the images; 0 where it is not known.
        url: of the file; "" for one that only a person can fetch.
        page, file: where a person finds it, under which name.
    """

    id: str
    data: str
    preprocessing: str
    extractor: str
    format: str
    count: int = 0
    url: str = ""
    page: str = ""
    file: str = ""
    note: str = ""

    @property
    def place(self) -> str:
        """Where the file is, for a person."""
        return self.url or f"{self.file or 'a file'} on {self.page} (in a browser)"


@cache
def published_references() -> Mapping[str, PublishedReference]:
    """The known files, by id."""
    table = tomllib.loads((Path(__file__).parent / "references.toml").read_text("utf-8"))
    return MappingProxyType({name: PublishedReference(name, **entry) for name, entry in table.items()})
