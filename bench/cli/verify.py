"""`fastsample verify`: the proofs of `solvers.proofs.claims` as a table and a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track
from rich.table import Table

from fastsample.datasets.files import write_atomically
from fastsample.solvers.own import solver_named
from fastsample.solvers.proofs.claims import BUDGETS, FINER, PROBLEMS, Proof, claims, golden_summary, prove
from fastsample.solvers.proofs.golden import SHIPPED

__all__ = ["draw_orders", "proofs_of", "run_verification"]


@contextmanager
def _one_thread() -> Iterator[None]:
    """On tiny tensors threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@_one_thread()
def proofs_of(names: Sequence[str] | None, console: Console) -> list[Proof]:
    """Prove the claims of the solvers named, of all where None, with progress on the console.

    Raises:
        ValueError: for an unknown solver.
    """
    chosen = claims([solver_named(name) for name in names] if names else None)
    return [prove(claim) for claim in track(list(chosen), "orders", console=console, transient=True)]


@_one_thread()
def run_verification(names: tuple[str, ...] | None, golden: Path | None, picture: Path, console: Console) -> bool:
    """Prove the claims of the solvers named (all where None), print a table, write a picture; True if all hold.

    Raises:
        ValueError: for an unknown solver, or a golden folder that is not there.
    """
    proofs = proofs_of(names, console)
    table = Table(
        "solver",
        "claimed",
        *(f"order {name}" for name in PROBLEMS),
        "NFE made/asked",
        "table error",
        "holds",
        header_style="bold",
    )
    for proof in proofs:
        table.add_row(
            str(proof.claim), str(proof.claim.order), *(f"{proof.orders[name]:.2f}" for name in PROBLEMS),
            f"{proof.made}/{proof.asked}", "-" if proof.claim.solver.nonlinear else f"{proof.table_error:.0e}",
            "yes" if proof.holds else "[bold red]NO[/]",
        )  # fmt: skip
    console.print(table)
    draw_orders(proofs, picture)
    console.print(f"error against NFE: {picture}", style="dim", highlight=False)
    return all(proof.holds for proof in proofs) & _parity(golden, console)


def _parity(folder: Path | None, console: Console) -> bool:
    if folder is not None and not folder.is_dir():
        raise ValueError(f"{folder} is no folder of golden files")
    folder = folder or SHIPPED
    if not folder.is_dir():
        console.print("no golden files: parity is verified in a clone, or with --golden FOLDER", style="yellow")
        return True
    table = Table(
        "golden file", "cases", "failed", "max difference", header_style="bold", title="parity with official code"
    )
    summary = golden_summary(folder)
    if not summary:
        console.print(f"no golden cases in {folder}", style="yellow")
        return True
    for name, (count, failed, worst) in summary.items():
        table.add_row(name, str(count), f"[bold red]{failed}[/]" if failed else "0", f"{worst:.1e}")
    console.print(table)
    return not any(failed for _, failed, _ in summary.values())


def draw_orders(proofs: list[Proof], file: Path) -> None:
    """Write a log-log picture of RMS error against NFE, a panel per problem, a line per claim."""
    rows = -(-len(proofs) // 4)
    figure = Figure(figsize=(12, 6 + 0.14 * rows), layout="constrained")
    axes = figure.subplots(1, len(PROBLEMS), sharex=True, sharey=True)
    styles = ("-", "--", "-.", ":")
    for axis, name in zip(axes, PROBLEMS, strict=True):
        for index, proof in enumerate(proofs):
            nfe, error = zip(*proof.errors[name], strict=True)
            axis.loglog(nfe, error, styles[index // 10 % len(styles)], marker=".", label=str(proof.claim), lw=1)
        axis.set(title=name, xlabel="NFE")
        axis.set_xticks(BUDGETS + FINER, labels=[str(nfe) for nfe in BUDGETS + FINER])
        axis.minorticks_off()
        axis.grid(True, alpha=0.25)
    axes[0].set_ylabel("RMS error against the exact solution")
    figure.legend(*axes[0].get_legend_handles_labels(), fontsize=6, ncols=4, loc="outside lower center", frameon=False)
    try:
        form = file.suffix[1:].lower() or "png"
        write_atomically(file, lambda stream: figure.savefig(stream, dpi=130, format=form))
    except OSError as error:
        raise ValueError(f"cannot write {file}: {error.strerror}") from None
