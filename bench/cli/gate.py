"""Commands that guard a build: a baseline, and the check against it."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastsample.bench.cli.words import console, path, writable

if TYPE_CHECKING:
    from fastsample.results.baseline import Baseline
    from fastsample.results.store import Store

__all__ = ["app"]

app = typer.Typer()

_STORE = typer.Argument(help="Folder written by bench --out.", parser=path)


@app.command(
    epilog="""
[bold]Examples[/]

fastsample baseline results-store -o baselines/mine.json

fastsample baseline results-store -o baselines/mine.json --accept
"""
)
def baseline(
    store: Annotated[Path, _STORE],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="JSON file to write, for your repository.", parser=path, callback=writable),
    ],
    accept: Annotated[
        bool, typer.Option("--accept", help="Take an intended change into the file; all else in it stays.")
    ] = False,
) -> None:
    """Keep the numbers of a store, with their errors, for later checks.

    With --accept the numbers of the file that check would not pass are replaced, cells that it does not have come to
    it, and each old and new number is told.
    """
    from fastsample.results.baseline import Baseline, baseline_of
    from fastsample.results.store import Store

    if accept:
        _accept(Store(store, create=False), Baseline.read(out), out)
        return
    made = baseline_of(Store(store, create=False))
    made.write(out)
    console.print(f"{len(made.cells)} cells in {out}", highlight=False, markup=False, soft_wrap=True)


def _accept(store: Store, old: Baseline, file: Path) -> None:
    """Write the baseline with what changed, and say what that is."""
    from fastsample.results.storage.accepting import accept

    accepted = accept(old, store)
    lines = [
        f"{cell}, {metric}: {'new' if before is None else f'{before:.6g}'} -> {now:.6g}"
        for cell, metric, before, now in accepted.changed
    ]
    lines += [f"{cell}, {metric} stays: {why}" for cell, metric, why in accepted.missing]
    if accepted.changed:
        accepted.baseline.write(file)
        lines.append(f"{len(accepted.changed)} numbers changed in {file}, {accepted.kept} are as they were")
    else:
        lines.append(f"nothing changed: {file} is as it was, {accepted.kept} numbers")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


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
    everything: Annotated[bool, typer.Option("--all", help="Show what passes, too, and not only how many.")] = False,
    github: Annotated[
        bool | None,
        typer.Option("--github/--no-github", help=r"Annotations for GitHub. \[default: in GitHub Actions]"),
    ] = None,
) -> None:
    """Fail where a sampler got worse than its baseline.

    Exit code 0: nothing got worse; 1: a regression; 2: not comparable, or no baseline. --strict is for changes that
    should not move the numbers at all.
    """
    from fastsample.datasets.files import write_atomically
    from fastsample.results import gate
    from fastsample.results.baseline import Baseline
    from fastsample.results.forms import findings
    from fastsample.results.forms.sheet import to_rich, write
    from fastsample.results.store import Store

    found = gate.check(Store(store, create=False), Baseline.read(baseline), strict=strict)
    sheet, code = findings.sheet_of(found, folded=not everything), gate.exit_code(found)
    bare = [f"{sheet.caption} --all shows them." if code == 0 else sheet.caption, *(note for _, note in sheet.notes)]
    if sheet.frame.empty:
        console.print("\n".join(bare), highlight=False, markup=False, soft_wrap=True)
    else:
        console.print(to_rich(sheet))
    if os.environ.get("GITHUB_ACTIONS") == "true" if github is None else github:
        root = os.environ.get("GITHUB_WORKSPACE") or os.curdir
        for line in findings.github_lines(found, Path(os.path.relpath(baseline, root)).as_posix()):
            typer.echo(line)
    if summary:
        table = "\n\n".join([sheet.caption, *bare[1:]]) if sheet.frame.empty else write(sheet, "markdown")
        text = f"### fastsample check\n\n{table}\n"
        if not everything and any(one.verdict == "pass" for one in found):
            passed = [one for one in found if one.verdict == "pass"]
            rows = write(replace(findings.sheet_of(passed), caption=""), "markdown")
            text += f"\n<details><summary>{len(passed)} unchanged</summary>\n\n{rows}\n</details>\n"
        write_atomically(summary, lambda stream: stream.write(text.encode()))
    if junit:
        write_atomically(junit, lambda stream: stream.write(findings.to_junit(found)))
    words = shlex.join(["fastsample", "baseline", str(store), "-o", str(baseline)])
    advice = []
    if any(one.verdict in gate.FAILING | gate.UNJUDGED and not one.missing for one in found):
        advice.append(f"If this is intended: {words} --accept")
    if any(one.missing for one in found):
        measure = shlex.join(["bench", "--out", str(store)])
        advice.append(f"What is missing: measure it with {measure}, or, for a baseline without it: {words}")
    for line in advice:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(code)
