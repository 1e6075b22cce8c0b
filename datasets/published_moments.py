"""Reference statistics as other projects publish them, read without executing anything, and written for them.

`references.toml` lists the files. None of them says which network made its features, and two networks can have
the same number of them, so the extractor is always named by the reader and compared by name.
"""

from __future__ import annotations

import tomllib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastsample.datasets.archives import read_arrays
from fastsample.datasets.files import write_atomically
from fastsample.datasets.moments import MOST_FEATURES, FeatureMoments, ReferenceError, check_moments
from fastsample.datasets.pickles import ArrayUnpickler, StoredArray

__all__ = ["PublishedReference", "PublishedStats", "published_references", "read_stats", "write_stats"]

_FEATURES = ("pool_3", "feats")  # arrays [n, d] in the files of Score-SDE and of clean-fid's KID
_SPATIAL = ("mu_s", "sigma_s")
_MOST = f"more than {MOST_FEATURES:,} features, which nothing here makes"


class PublishedReference(NamedTuple):
    """An entry of `references.toml`: where a file is, what it was made of, and by which extractor.

    Attributes:
        data, preprocessing: the images, as a model's card names them, and their recipe; "?" where it is not stated.
        count, url: of the images and the file; 0 and "" where none is known, and a person finds `file` on `page`.
    """

    id: str
    data: str
    preprocessing: str
    extractor: str
    format: str
    count: int = 0  # type: ignore[assignment]
    url: str = ""
    page: str = ""
    file: str = ""
    note: str = ""

    @property
    def place(self) -> str:
        """Where the file is, for a person."""
        return self.url or f"{self.file or 'a file'} on {self.page} (in a browser)"


@cache
def published_references() -> list[PublishedReference]:
    """The known files."""
    table = tomllib.loads((Path(__file__).parent / "references.toml").read_text("utf-8"))
    return [PublishedReference(name, **entry) for name, entry in table.items()]


@dataclass(frozen=True)
class PublishedStats:
    """Statistics of a published file.

    Attributes:
        mu, sigma: float64 [d] and [d, d].
        extractor: what made the features, as the reader was told.
        n: number of images, where the file tells it; else 0.
        others: names of further arrays in the file, such as arr_0 (images), mu_s and sigma_s (spatial features).
    """

    path: Path
    mu: NDArray[np.float64]
    sigma: NDArray[np.float64]
    extractor: str
    n: int = 0
    others: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_moments(self.mu, self.sigma, str(self.path))

    def under(self, extractor: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(mu, sigma), to be compared with features of this extractor.

        Raises:
            ReferenceError: when another one made them.
        """
        if extractor != self.extractor:
            raise ReferenceError(
                f"{self.path} holds features of {self.extractor}; a distance from features of {extractor} means nothing"
            )
        return self.mu, self.sigma

    def array(self, name: str) -> NDArray[Any]:
        """One of `others`, read from the file now; arr_0 can be gigabytes.

        Raises:
            ReferenceError: when it is not in the file.
        """
        if name not in self.others:
            there = ", ".join(self.others) or "none"
            raise ReferenceError(f"{self.path} has no array {name!r} besides; it has: {there}")
        try:
            return read_arrays(self.path, (name,))[name]
        except (OSError, ValueError) as error:
            raise ReferenceError(f"{self.path}: {error}") from error


def read_stats(path: str | Path, extractor: str, metric: str = "fid") -> PublishedStats:
    """Read reference statistics, whatever project wrote them.

    Formats, told apart by content: npz with mu and sigma (EDM, pytorch-fid, clean-fid, guided diffusion, ...); npz
    with features [n, d] under pool_3 or feats (Score-SDE, clean-fid's KID); EDM2's pickle of {metric: {mu, sigma}};
    torch-fidelity's cache .pt of {mu, sigma} or of features. Features become a mean and a covariance with divisor
    n - 1.

    Args:
        extractor: what made the features; see `published_references`.
        metric: "fid"; "fd_dinov2" of EDM2's files; "sfid" for mu_s and sigma_s of guided diffusion's.

    Raises:
        ReferenceError: for another content, objects other than arrays, asymmetric or negative sigma, or values that
            are not finite.
    """
    path = Path(path)
    try:
        found, others = _content(path, metric)
        mu, sigma, n = _moments(found)
    except ReferenceError as error:
        raise ReferenceError(f"{path}: {error}") from error
    except Exception as error:  # A damaged or hostile file can raise anything; all of it means the same.
        told = str(error) if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {error}"
        raise ReferenceError(f"{path} holds no reference statistics: {told}") from error
    return PublishedStats(path, mu, sigma, extractor, n, others)


def write_stats(
    path: str | Path,
    mu: NDArray[np.float64],
    sigma: NDArray[np.float64],
    spatial: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
) -> None:
    """Write the npz with mu and sigma, float64, that pytorch-fid, EDM and most others read.

    Args:
        spatial: mean and covariance of Inception's spatial features, beside them as mu_s and sigma_s.

    Raises:
        ReferenceError: when they are no mean and covariance.
    """
    arrays: dict[str, Any] = {"mu": mu, "sigma": sigma}
    check_moments(mu, sigma, str(path))
    if spatial:
        check_moments(*spatial, str(path))
        arrays |= dict(zip(_SPATIAL, spatial, strict=True))
    write_atomically(Path(path), lambda stream: np.savez(stream, **arrays))


def _moments(found: dict[str, NDArray[Any]]) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """(mu, sigma, number of images or 0)."""
    if any(array.dtype.kind not in "fiu" for array in found.values()):
        raise ReferenceError("the arrays do not hold real numbers")
    if {"mu", "sigma"} <= found.keys():
        if max(found["mu"].size, int(found["sigma"].size ** 0.5)) > MOST_FEATURES:
            raise ReferenceError(f"mu {found['mu'].shape}, sigma {found['sigma'].shape}: {_MOST}")
        return found["mu"].astype(np.float64), found["sigma"].astype(np.float64), 0
    features = next((found[key] for key in _FEATURES if key in found), None)
    if features is None or features.ndim != 2 or len(features) < 2:
        raise ReferenceError(f"neither mu and sigma nor features [n, d]; there are: {', '.join(found) or 'no arrays'}")
    if features.shape[1] > MOST_FEATURES:
        raise ReferenceError(f"features {features.shape}: {_MOST}")
    moments = FeatureMoments(features.shape[1], features[:1000].mean(axis=0, dtype=np.float64))
    for start in range(0, len(features), 1000):
        moments.add(features[start : start + 1000])
    return *moments.moments(), moments.n


def _content(path: Path, metric: str) -> tuple[dict[str, NDArray[Any]], tuple[str, ...]]:
    """(the arrays that moments are made from, the names of the others)."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            if file.peek(2)[:2] == b"PK":
                raise ReferenceError("a zip file (an npz is one) that is cut off or damaged")
            content = _unpickled(file, path.stat().st_size)
        if metric not in content or not isinstance(content[metric], dict):
            raise ReferenceError(f"no statistics for {metric!r}; there are: {', '.join(map(str, list(content)[:8]))}")
        return _plain(content[metric]), ()
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if metric == "sfid":
            return _spatial(path, names), ()
        roots = [name for name in names if name.endswith("/data.pkl")]
        if not roots:
            keys = [name.removesuffix(".npy") for name in names]
            wanted = tuple(key for key in keys if key in ("mu", "sigma", *_FEATURES))
            if not wanted:
                raise ReferenceError(f"neither mu and sigma nor features [n, d]; there are: {', '.join(keys[:8])}")
            return read_arrays(path, wanted), tuple(key for key in keys if key not in wanted)
        if any(record.compress_type != zipfile.ZIP_STORED for record in archive.infolist()):
            raise ReferenceError("torch.save does not compress, this file does")
        if sum(record.file_size for record in archive.infolist()) > path.stat().st_size:
            raise ReferenceError("its records claim more bytes than it has")
        record = cache(lambda key: archive.read(f"{roots[0].removesuffix('.pkl')}/{key}"))
        tensor = _unpickled(archive.open(roots[0]), archive.getinfo(roots[0]).file_size, record)
    return (_plain(tensor) if isinstance(tensor, dict) else {_FEATURES[0]: tensor.array}), ()


def _spatial(path: Path, names: list[str]) -> dict[str, NDArray[Any]]:
    """mu_s and sigma_s, of an archive with these names, as a mean and a covariance."""
    if missing := [key for key in _SPATIAL if f"{key}.npy" not in names]:
        there = ", ".join(name.removesuffix(".npy") for name in names[:8])
        raise ReferenceError(f"no {' and '.join(missing)}, which sFID is computed with; there are: {there}")
    found = read_arrays(path, _SPATIAL)
    return {"mu": found["mu_s"], "sigma": found["sigma_s"]}


def _plain(content: dict[Any, Any]) -> dict[str, NDArray[Any]]:
    return {str(key): value.array for key, value in content.items() if isinstance(value, StoredArray)}


def _unpickled(file: IO[bytes], size: int, record: Callable[[str], bytes] | None = None) -> Any:
    content = ArrayUnpickler(file, size, record).load()
    if not isinstance(content, dict | StoredArray):
        raise ReferenceError(f"the pickle holds a {type(content).__name__}, not arrays")
    return content
