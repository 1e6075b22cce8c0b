"""`fastsample verify`: the proofs of `solvers.proofs.claims` as a table and a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from rich.console import Console

from fastsample.bench.cli.words import told
from fastsample.datasets.files import write_atomically
from fastsample.results.forms.looks import STYLE, colours
from fastsample.results.forms.screen import FittedTable
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
def proofs_of(names: Sequence[str] | None, tell: Callable[[str], None] = lambda _: None) -> list[Proof]:
    """Prove the claims of the solvers named, of all where None.

    Args:
        tell: called with a line of what is proven.

    Raises:
        ValueError: for an unknown solver.
    """
    chosen, proofs = list(claims([solver_named(name) for name in names] if names else None)), []
    for number, claim in enumerate(chosen, 1):
        tell(f"orders: {number} of {len(chosen)}, {claim}")
        proofs.append(prove(claim))
    return proofs


@_one_thread()
def run_verification(
    names: tuple[str, ...] | None, golden: Path | None, picture: Path | None, console: Console
) -> bool:
    """Prove the claims of the solvers named (all where None) and print a table; True if all hold.

    Args:
        picture: a file to draw the errors in, if one is wanted.

    Raises:
        ValueError: for an unknown solver, or a golden folder that is not there.
    """
    with told("orders") as tell:
        proofs = proofs_of(names, tell)
    table = FittedTable(
        "solver",
        "claimed",
        *(f"order {name}" for name in PROBLEMS),
        "NFE made/asked",
        "table error",
        "holds",
    )
    for proof in proofs:
        table.add_row(
            str(proof.claim), str(proof.claim.order), *(f"{proof.orders[name]:.2f}" for name in PROBLEMS),
            f"{proof.made}/{proof.asked}", "-" if proof.claim.solver.nonlinear else f"{proof.table_error:.0e}",
            "yes" if proof.holds else "[bold red]NO[/]",
        )  # fmt: skip
    console.print(table)
    if picture:
        draw_orders(proofs, picture)
        console.print(f"error against NFE: {picture}", style="dim", highlight=False)
    return all(proof.holds for proof in proofs) & _parity(golden, names, console)


def _parity(folder: Path | None, names: tuple[str, ...] | None, console: Console) -> bool:
    if folder is not None and not folder.is_dir():
        raise ValueError(f"{folder} is no folder of golden files")
    folder = folder or SHIPPED
    if not folder.is_dir():
        console.print("no golden files: parity is verified in a clone, or with --golden FOLDER", style="yellow")
        return True
    with told("parity") as tell:
        summary = golden_summary(folder, [solver_named(name).name for name in names or ()], tell)
    if not summary:
        why = f"no golden file is of {', '.join(names)}" if names else "no golden cases"
        console.print(f"{why}: {folder}", style="yellow", highlight=False, soft_wrap=True)
        return True
    table = FittedTable("golden file", "cases", "failed", "max difference", title="parity with official code")
    for name, (count, failed, worst) in summary.items():
        table.add_row(name, str(count), f"[bold red]{failed}[/]" if failed else "0", f"{worst:.1e}")
    console.print(table)
    return not any(failed for _, failed, _ in summary.values())


@rc_context(STYLE)
def draw_orders(proofs: list[Proof], file: Path) -> None:
    """Write log-log panels of RMS error against NFE: one for each family of solvers, a colour for each claim.

    Lines are whole on the first problem and dashed on the second.
    """
    families: dict[str, list[Proof]] = {}
    for proof in proofs:
        families.setdefault(proof.claim.solver.solve.__module__.rpartition(".")[2].replace("_", " "), []).append(proof)
    across = min(3, len(families))
    down = -(-len(families) // across)
    keys = [max(map(len, list(families.values())[i : i + across])) for i in range(0, len(families), across)]
    heights = [2.6 + 0.125 * count for count in keys]  # inches: of axes, and of the lines of their legend
    figure = Figure(figsize=(4.2 * across, 0.7 + sum(heights)), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True, height_ratios=heights)
    for axis in axes.flat[len(families) :]:
        axis.set_axis_off()
    for axis, (family, mine) in zip(axes.flat, families.items(), strict=False):
        for proof, colour in zip(mine, colours(len(mine)), strict=True):
            for name, line in zip(PROBLEMS, ("-", "--"), strict=True):
                nfe, error = zip(*proof.errors[name], strict=True)
                label = str(proof.claim) if line == "-" else None
                axis.loglog(nfe, error, line, marker=".", markersize=4, color=colour, label=label, lw=1)
        axis.set(title=family, xlabel="NFE")
        axis.set_xticks(BUDGETS + FINER, labels=[str(nfe) for nfe in BUDGETS + FINER], fontsize=7)
        axis.tick_params(labelbottom=True, labelleft=True)
        axis.minorticks_off()
        axis.legend(fontsize=6.5, loc="upper center", bbox_to_anchor=(0.5, -0.22), labelspacing=0.25)
    figure.suptitle(f"RMS error against the exact solution: on {' (whole lines) and '.join(PROBLEMS)} (dashed)")
    try:
        form = file.suffix[1:].lower() or "png"
        write_atomically(file, lambda stream: figure.savefig(stream, dpi=130, format=form))
    except OSError as error:
        raise ValueError(f"cannot write {file}: {error.strerror}") from None
