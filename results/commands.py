"""Commands that repeat a row of a store."""

from __future__ import annotations

import shlex
from typing import Any

from fastsample.results.store import Row

__all__ = ["bench_command", "classifier_scale_of", "export_command", "labels_of", "number", "sample_command"]


def bench_command(row: Row) -> str:
    """The command that computes the row again, with all its metrics, into a store of its own."""
    kinds = dict.fromkeys(name.partition("@")[0] for name in row.metrics if not name.startswith("psnr_"))
    words = ["--samples", str(row.samples), "--precision", row.precision, "--metrics", ",".join(kinds)]
    words += ["--reference-steps", steps] if (steps := row.protocol.get("reference steps")) else []
    return f"{_command('bench', row)} {shlex.join(words)} --out results-again"


def sample_command(row: Row) -> str:
    """The command that draws images with the row's sampler."""
    return f"{_command('sample', row)} -o samples.png"


def export_command(row: Row) -> str:
    """The command that writes the row's sampler as a program of its own; for solvers with a coefficient table."""
    words = ["fastsample", "export", "--model", row.model, *_sampler(row)]
    if "table" in row.protocol:  # a learned solver has a table for each guidance
        words += ["--guidance", number(row.guidance)]
    return shlex.join(words) + " --to python"


def labels_of(row: Row) -> str:
    """How classes were drawn, as `--labels` takes it; the protocol has it in words."""
    told = row.protocol.get("labels", "")
    if told.startswith("classes "):
        return told.split()[1]
    return "balanced" if told.startswith("i modulo") else "random"


def classifier_scale_of(row: Row) -> float:
    """The scale of classifier guidance, 0 for none; the protocol ends with it."""
    return float(row.protocol.get("classifier guidance", "0").rpartition(" ")[2])


def _sampler(row: Row) -> list[str]:
    if "table" in row.protocol:  # a learned solver: it has no options, and its times are its own
        words = ["--solver", row.solver, "--nfe", str(row.nfe_asked)]
        return words + (["--transfer"] if "transfer" in row.options else [])
    options = ",".join(f"{key}={_text(value)}" for key, value in row.options.items())
    solver = f"{row.solver}:{options}" if options else row.solver
    words = ["--solver", solver, "--nfe", str(row.nfe_asked)]
    return words + ([] if row.nfe_max else ["--grid", row.grid])  # adaptive solvers choose their times


def number(value: float) -> str:
    """All digits of it, without a needless point."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _command(name: str, row: Row) -> str:
    words = ["fastsample", name, "--model", row.model, *_sampler(row), "--seed", str(row.seed)]
    words += ["--guidance", number(row.guidance)] if row.guidance else []
    words += ["--classifier-scale", number(scale)] if (scale := classifier_scale_of(row)) else []
    return shlex.join(words + (["--labels", labels_of(row)] if "labels" in row.protocol else []))
