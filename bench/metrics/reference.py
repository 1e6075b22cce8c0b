"""Reference sets: what the samples of a model are compared with, which is the reference of its own data or nothing.

A model's set is that which its card names (an entry of `datasets/references.toml`), or the data set that an embedded
or own checkpoint was trained on; `--reference` names another: an entry's id, a file of statistics, or images, as
`folder:PATH[@PREPROCESSING]` or the name of a data set. Under another extractor than theirs statistics are made anew.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from rich.console import Console

from fastsample.bench.metrics.extractor_weights import EDM2, INCEPTION, SPATIAL
from fastsample.bench.metrics.moments import (
    Known,
    MetricUnavailable,
    Seen,
    kept_moments,
    moments_of_data,
    no_images,
    real_images,
)
from fastsample.datasets.home import data_home, expanded, sha256_of
from fastsample.datasets.image_set import DatasetError, Images
from fastsample.datasets.images import dataset_names
from fastsample.datasets.moments import ReferenceError, ReferenceStats
from fastsample.datasets.names import nearest
from fastsample.datasets.own.code import code_named, is_code
from fastsample.datasets.packed import PACK, packed_images
from fastsample.datasets.published_moments import PublishedReference, PublishedStats, published_references, read_stats
from fastsample.models.catalogue import Model
from fastsample.models.checkpoints import embedded_models, load_checkpoint, model_file
from fastsample.models.public.cards import cards
from fastsample.models.public.known import DownloadError
from fastsample.models.public.references import made_by, reference_file

__all__ = ["ReferenceSet", "data_set", "of_data", "reference_set"]


_WIDTHS = {INCEPTION: 2048, SPATIAL: 2023}


@dataclass(frozen=True)
class ReferenceSet:
    """What samples are compared with.

    Attributes:
        id: how commands call it.
        moments: those under an extractor; raises MetricUnavailable.
        images: the real images, for KID, precision and recall; raises MetricUnavailable.
        standard: whether a distance to it in Inception's features is a FID.
        others: real images of another split than that of the moments; raises MetricUnavailable.
    """

    id: str
    moments: Callable[[Seen], Known]
    images: Callable[[], Images]
    standard: bool = True
    others: Callable[[], Images] = no_images


def reference_set(asked: str | None, model: Model, console: Console | None = None) -> ReferenceSet:
    """The set that a model's samples are compared with.

    Args:
        asked: as `--reference` takes it; None for the model's own.
        console: where the progress of a download is shown.

    Raises:
        MetricUnavailable: if the model has none.
        ValueError: for a word that names nothing.
    """
    if asked:
        return _asked(asked, console)
    if model.reference and model.reference != "none":
        entries = {entry.id: entry for entry in published_references()}
        if model.reference not in entries:
            raise MetricUnavailable(f"its card names {model.reference!r}, which `list references` does not have")
        return _published(entries[model.reference], console)
    data = data_set(model.data)
    if is_code(data):
        return _of_images(data)
    if model.reference == "none" or data not in dataset_names():
        of = f"it is a model of {model.data}" if model.data else "its data are not known"
        raise MetricUnavailable(f"{of}, for which no reference set is known; --reference names one")
    return of_data(data)


def _asked(text: str, console: Console | None) -> ReferenceSet:
    entries = {entry.id: entry for entry in published_references()}
    if text in entries:
        return _published(entries[text], console)
    if text in dataset_names():
        return of_data(text)
    if text.startswith("folder:") or is_code(text):
        return _of_images(text)
    file = expanded(text)
    if not file.is_file():
        known = [*entries, *dataset_names()]
        raise ValueError(f"--reference: {nearest(text, known, 'reference set')} (or a file, or folder:PATH)")
    return _of_file(file)


@cache
def data_set(data: str) -> str:
    """The data set that a model's `data` names, as "cifar10-jpeg train" does; of a reflow's pairs the teacher's.

    "" where the teacher is not known here.
    """
    if not data.startswith("pairs of "):
        return data.partition(" ")[0]
    teacher = data.split()[2]
    if teacher in embedded_models():
        return data_set(load_checkpoint(model_file(teacher))[1].data)
    return cards()[teacher].data if teacher in cards() else ""


def of_data(name: str) -> ReferenceSet:
    """A data set: the moments of its training images, and of real images those of its test split where it has one."""

    def images() -> Images:
        try:
            return real_images(name, "test")
        except MetricUnavailable as error:
            if "split" not in str(error):
                raise
            return real_images(name, "train")

    lossy, others = name.endswith("-jpeg"), partial(real_images, name, "test")
    return ReferenceSet(name, partial(moments_of_data, name), images, not lossy, others)


def _of_images(spec: str) -> ReferenceSet:
    """Images of one's own; what is computed of them is kept by their names, sizes and times of change."""

    def moments(seen: Seen) -> Known:
        cached = data_home() / "reference" / f"images-{_state(spec)[:16]}@{seen.name}-{seen.sha256[:12]}.npz"
        known = kept_moments(cached, lambda: real_images(spec, "train"), seen)
        digest = hashlib.sha256(known.mu.tobytes() + known.sigma.tobytes()).hexdigest()  # images change, their name not
        return replace(known, told=f"{known.told} moments {digest[:16]}")

    return ReferenceSet(spec, moments, lambda: real_images(spec, "train"))


def _state(spec: str) -> str:
    if code := code_named(spec, "datasets"):
        return hashlib.sha256(code.told.encode()).hexdigest()
    root = expanded(spec.removeprefix("folder:"))
    root = root if root.exists() else expanded(spec.removeprefix("folder:").rpartition("@")[0])
    files = sorted(root.rglob("*")) if root.is_dir() else [root]
    lines = (f"{file} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files if file.is_file())
    return hashlib.sha256("\n".join([spec, *lines]).encode()).hexdigest()


def _of_file(file: Path) -> ReferenceSet:
    """A file of statistics: of ours, which says its extractor, or of another project, by Inception-v3 as most are."""

    def images() -> Images:
        return _packed(file, file.name, None)

    def moments(seen: Seen) -> Known:
        try:
            ours = ReferenceStats.load(file)
        except ReferenceError:
            return _read(file, file.name, made_by(file) or INCEPTION, seen, images)
        if (ours.extractor, ours.extractor_sha256) != (seen.name, seen.sha256):
            raise MetricUnavailable(f"{file} holds features of {ours.extractor}, and not of {seen.name} as it is here")
        return Known(ours.mu, ours.sigma, f"{ours.name} n={ours.n}")

    return ReferenceSet(str(file), moments, images)


def _published(entry: PublishedReference, console: Console | None) -> ReferenceSet:
    """A published file, fetched at the first need."""

    def file() -> Path:
        try:
            return reference_file(entry, data_home(), console)
        except DownloadError as error:
            raise MetricUnavailable(f"{error} Going on with the other metrics.") from None

    def images() -> Images:
        return _packed(file(), entry.id, entry)

    def others() -> Images:
        return real_images(_data_of(entry), "test")

    def moments(seen: Seen) -> Known:
        return _read(file(), entry.id, entry.extractor, seen, images)

    return ReferenceSet(entry.id, moments, images, others=others)


def _read(file: Path, title: str, extractor: str, seen: Seen, images: Callable[[], Images]) -> Known:
    """The moments of a file if the extractor is the one that made them, else those of the images that are with it.

    EDM2's files hold those of Inception and of `dinov2-edm2`; those of guided diffusion also Inception's spatial ones.
    """
    metric = "fid"
    if seen.name == EDM2 and extractor == INCEPTION and not zipfile.is_zipfile(file):
        extractor, metric = EDM2, "fd_dinov2"
    elif seen.name == SPATIAL and extractor == INCEPTION:
        extractor, metric = SPATIAL, "sfid"
    if seen.name != extractor:
        cached = data_home() / "reference" / f"{file.name}-{sha256_of(file)[:12]}@{seen.name}-{seen.sha256[:12]}.npz"
        try:
            return kept_moments(cached, images, seen)
        except MetricUnavailable as error:
            why = f"{title} holds features of {extractor}, from which a distance of those of {seen.name} means nothing"
            raise MetricUnavailable(f"{why}; {error}") from None
    if seen.weights:
        raise MetricUnavailable(f"{title} was made by the published weights of {extractor}, and those here are others")
    try:
        stats: PublishedStats = read_stats(file, extractor, metric)
    except ReferenceError as error:
        raise MetricUnavailable(f"{error}. Going on with the other metrics.") from None
    if len(stats.mu) != (width := _WIDTHS.get(extractor, len(stats.mu))):
        raise MetricUnavailable(f"{title} holds {len(stats.mu):,} features, where {extractor} makes {width:,}")
    return Known(stats.mu, stats.sigma, f"{title} sha256 {sha256_of(file)[:16]}")


def _packed(file: Path, title: str, entry: PublishedReference | None) -> Images:
    """The images in a reference batch of guided diffusion, else those of the data set where it is here."""
    try:
        return packed_images(title, "train", file, "as-is")
    except DatasetError:
        if entry:
            return real_images(_data_of(entry), "train")
    raise MetricUnavailable(f"{title} has no images ({PACK} of an npz)")


def _data_of(entry: PublishedReference) -> str:
    """The data set whose images a published set is of, prepared as they were where such a one is known."""
    for name in (entry.preprocessing, entry.data):
        if name in dataset_names():
            return name
    raise MetricUnavailable(
        f"{entry.id} has no images ({PACK} of an npz), and those of its data set are not known here"
    )
