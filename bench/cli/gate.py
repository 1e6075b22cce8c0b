"""Commands that guard a build: a baseline, and the check against it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastsample.bench.cli.words import console, path, writable

__all__ = ["app"]

app = typer.Typer()

_STORE = typer.Argument(help="Folder written by bench --out.", parser=path)


@app.command(epilog="Example: fastsample baseline results-store -o baselines/mine.json")
def baseline(
    store: Annotated[Path, _STORE],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="JSON file to write, for your repository.", parser=path, callback=writable),
    ],
) -> None:
    """Keep the numbers of a store, with their errors, for later checks."""
    from fastsample.results.baseline import baseline_of
    from fastsample.results.store import Store

    made = baseline_of(Store(store, create=False))
    made.write(out)
    console.print(f"{len(made.cells)} cells in {out}", highlight=False, markup=False, soft_wrap=True)


@app.command(
    epilog="""
[bold]Examples[/]

fastsample check results-store --baseline baselines/mine.json

fastsample check results-store --baseline baselines/mine.json --strict --summary summary.md --junit check.xml
"""
)
def check(
    store: Annotated[Path, _STORE],
    baseline: Annotated[Path, typer.Option(help="File written by fastsample baseline.", parser=path)],
    summary: Annotated[
        Path | None, typer.Option(help="Markdown file to write.", parser=path, callback=writable)
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="JUnit XML file to write.", parser=path, callback=writable)] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail where numbers got better, too.")] = False,
) -> None:
    """Fail where a sampler got worse than its baseline.

    Exit code 0: nothing got worse; 1: a regression; 2: not comparable, or no baseline. --strict is for changes that
    should not move the numbers at all.
    """
    from fastsample.datasets.files import write_atomically
    from fastsample.results import gate
    from fastsample.results.baseline import Baseline
    from fastsample.results.forms.sheet import to_rich, write
    from fastsample.results.store import Store

    findings = gate.check(Store(store, create=False), Baseline.read(baseline), strict=strict)
    sheet = gate.sheet_of(findings)
    console.print(to_rich(sheet))
    if summary:
        text = f"### fastsample check\n\n{write(sheet, 'markdown')}"
        write_atomically(summary, lambda stream: stream.write(text.encode()))
    if junit:
        write_atomically(junit, lambda stream: stream.write(gate.to_junit(findings)))
    raise typer.Exit(gate.exit_code(findings))
