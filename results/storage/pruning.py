"""What a store can do without: its rows, tables and intervals are the same after."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from fastsample.datasets.files import read_arrays, write_arrays
from fastsample.results.storage.claims import claimed
from fastsample.results.store import Store, StoreError

__all__ = ["Waste", "prune", "waste"]

_READ_BY_NOBODY = ("features[", "logits[")


@dataclass(frozen=True)
class Waste:
    """Files of one kind that go, or of which their features go, and the bytes that this frees by file."""

    what: str
    sizes: Mapping[Path, int]
    whole: bool = True


def waste(store: Store, *, kept: bool = False) -> list[Waste]:
    """What can go: what an interrupted sweep would go on from, what is damaged, and features that nothing reads.

    Args:
        kept: also the parts that were kept on request, with features or images.
    """
    folder = store.folder
    rows = {file.stem for file in (folder / "rows").glob("*.json")}
    arrays = list((folder / "per_sample").glob("*.npz"))
    features = {file: size for file in arrays if file.stem in rows and (size := _features(file))}
    found = [
        _files("parts of unfinished cells", (folder / "partial").rglob("*")),
        _files("damaged rows", (folder / "damaged").rglob("*")),
        _files("arrays without a row", (file for file in arrays if file.stem not in rows)),
        Waste("features in rows of older versions", features, whole=False),
        _files("kept parts", (folder / "kept").rglob("*") if kept else ()),
    ]
    return [one for one in found if one.sizes]


def prune(store: Store, found: Sequence[Waste]) -> None:
    """Remove it.

    Raises:
        StoreError: while a process is at work on the store.
    """
    for lock in (store.folder / "claims").glob("*.lock"):
        with claimed(lock) as free:
            if not free:
                raise StoreError(f"a bench is at work on {store.folder} ({lock.stem}): prune it when that has ended")
    for one in found:
        for file in one.sizes:
            if one.whole:
                file.unlink(missing_ok=True)
            elif arrays := read_arrays(file, "it is left as it is"):
                write_arrays(file, {name: arrays[name] for name in arrays if not name.startswith(_READ_BY_NOBODY)})
    for name in ("partial/*/", "kept/*/", "kept/", "damaged/"):
        for folder in store.folder.glob(name):
            with suppress(OSError):  # it is not empty
                folder.rmdir()


def _files(what: str, files: Iterable[Path]) -> Waste:
    return Waste(what, {file: file.stat().st_size for file in files if file.is_file()})


def _features(file: Path) -> int:
    """Bytes of features in a file of arrays."""
    try:
        with ZipFile(file) as archive:
            return sum(one.file_size for one in archive.infolist() if one.filename.startswith(_READ_BY_NOBODY))
    except (OSError, BadZipFile):  # who reads it tells
        return 0
