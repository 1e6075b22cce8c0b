"""Commands about reference sets: statistics of one's own images, and published ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from fastsample.bench.cli.words import EXTRACTOR_WEIGHTS, Words, console, path, weights_by_name, writable

__all__ = ["app"]

app = typer.Typer()
reference = typer.Typer(no_args_is_help=True, help="Reference statistics: of your own images, and published ones.")
app.add_typer(reference, name="reference")


@reference.command(
    epilog="""
[bold]Examples[/]

fastsample reference make folder:~/faces@as-is -o faces.npz

fastsample reference make cifar10 --extractor inception-v3-compat -o cifar10.npz
"""
)
def make(
    images: Annotated[str, typer.Argument(help=r"A data set, or folder:PATH\[@PREPROCESSING].")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="npz to write, with mu and sigma.", parser=path, callback=writable)
    ],
    extractor: Annotated[str, typer.Option(help="Whose features.")] = "inception-v3-compat",
    split: Annotated[str, typer.Option(help="Of a data set that has several.")] = "train",
    inception_weights: Annotated[
        Path | None, typer.Option(help="Inception-v3 weights of torch-fidelity.", parser=path)
    ] = None,
    extractor_weights: Annotated[Words, typer.Option(help=EXTRACTOR_WEIGHTS)] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
) -> None:
    """Write mean and covariance of images' features, in the form that pytorch-fid, EDM and most others read."""
    from fastsample.bench.metrics.extractor_weights import INCEPTION, SPATIAL, given_file
    from fastsample.bench.metrics.extractors import moments_of
    from fastsample.bench.metrics.features import open_network
    from fastsample.bench.sampling import choose_device
    from fastsample.datasets.images import dataset_named
    from fastsample.datasets.published_moments import write_stats

    found = dataset_named(images, split)
    weights = weights_by_name(extractor_weights, inception_weights)
    names = (INCEPTION, SPATIAL) if extractor == SPATIAL else (extractor,)
    extractors = [open_network(name, choose_device(device), given_file(name, weights)) for name in names]
    with console.status(f"{len(found):,} images"):
        made = [moments_of(found, seen.name, seen.network, seen.sha256, seen.device) for seen in extractors]
    stats, *spatial = made
    write_stats(out, stats.mu, stats.sigma, *((one.mu, one.sigma) for one in spatial))
    under = " and ".join(seen.identity for seen in extractors)
    told = f"{stats.n:,} images of {found.name} under {under} in {out}; `bench --reference {out}` takes it"
    console.print(told, markup=False, highlight=False, soft_wrap=True)


@reference.command(epilog="Example: fastsample reference fetch edm-cifar10")
def fetch(id_: Annotated[str, typer.Argument(metavar="ID", help="Of `fastsample list references`.")]) -> None:
    """Download and verify a published file, ahead of use."""
    from fastsample.datasets.home import data_home
    from fastsample.models.public.references import reference_file, reference_named

    file = reference_file(reference_named(id_), data_home(), console)
    console.print(str(file), markup=False, highlight=False, soft_wrap=True)


@reference.command(epilog="Example: fastsample reference info edm-cifar10")
def info(
    what: Annotated[str, typer.Argument(help="An id of `fastsample list references`, or a file of statistics.")],
) -> None:
    """What a reference is: its data, extractor, place, and what the file holds; nothing is fetched."""
    from fastsample.datasets.home import data_home, expanded, sha256_of
    from fastsample.datasets.published_moments import read_stats
    from fastsample.models.public.references import place_of, reference_named

    file, lines = expanded(what), list[tuple[str, str]]()
    if not file.is_file():
        entry = reference_named(what)
        lines, file = [(name, str(value)) for name, value in entry._asdict().items()], place_of(entry, data_home())
    if file.is_file():
        stats = read_stats(file, "")
        lines += [("file", str(file)), ("sha256", sha256_of(file)), ("features", str(len(stats.mu)))]
        lines += [("images", f"{stats.n:,}")] if stats.n else []
        lines += [("besides", ", ".join(stats.others))] if stats.others else []
    else:
        lines.append(("file", f"not here; it would be {file}"))
    table = Table.grid(padding=(0, 2))
    for name, text in lines:
        if text:
            table.add_row(name, escape(text))
    console.print(table)
