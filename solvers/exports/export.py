"""Solvers that leave the benchmark, as JSON, as torch code or as a diffusers scheduler; and tables read back."""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast

from pydantic import ValidationError

from fastsample.datasets.files import write_atomically
from fastsample.datasets.names import nearest
from fastsample.models.convention import Convention
from fastsample.models.denoiser import Prediction
from fastsample.models.foreign.diffusers_schedule import PREDICTION_TYPES
from fastsample.solvers.exports.torch_file import PREDICTIONS, to_python
from fastsample.solvers.learned.shelf import add_table
from fastsample.solvers.solver import solvers
from fastsample.solvers.table_file import TableFile, read_table

__all__ = ["SUFFIXES", "export", "import_table"]

SUFFIXES = {"json": ".json", "python": ".py", "diffusers": ""}


def export(
    file: TableFile,
    to: str,
    out: Path | None = None,
    prediction: str | None = None,
    convention: Convention | None = None,
) -> Path:
    """Write a solver for other programs.

    Args:
        file: the table.
        to: json (the table file), python (one module of torch code) or diffusers (a folder for
            `TableScheduler.from_pretrained`).
        out: file or folder; by default SOLVER-MODEL-NFE in the current folder.
        prediction: what the network there returns, x0, eps, velocity or v; by default the table's coordinate for
            python, and for diffusers that of `convention`, or eps on VP paths and the velocity on the linear path. A
            json has none.
        convention: what the network of the diffusers pipeline takes and returns, where that is known.

    Returns:
        What was written.

    Raises:
        ValueError: for an unknown format, a prediction that the path does not allow, a path that diffusers has no
            timesteps for, or where diffusers is not installed.
    """
    if to not in SUFFIXES:
        raise ValueError(nearest(to, list(SUFFIXES), "format"))
    if prediction and prediction not in PREDICTIONS:
        raise ValueError(nearest(prediction, list(PREDICTIONS), "prediction"))
    if prediction and to == "json":
        raise ValueError("a table file keeps its own coordinate: leave --prediction out")
    wanted = cast(Prediction | None, prediction)
    belongs = re.sub("[/:]", "_", file.model or file.noise_path.name)
    out = out or Path(f"{file.solver}-{belongs}-{file.nfe}{SUFFIXES[to]}")
    if to == "diffusers":
        if out.is_file():
            raise ValueError(f"{out} is a file, and this format is a folder")
        try:
            from fastsample.solvers.exports.diffusers import TableScheduler
        except ImportError:
            raise ValueError("this format needs diffusers: pip install diffusers") from None
        types = {ours: theirs for theirs, (ours, _) in PREDICTION_TYPES.items()}
        if convention is None:
            TableScheduler(file, prediction_type=types[wanted] if wanted else None).save_pretrained(out)
            return out
        TableScheduler(
            file, types[wanted or cast(Prediction, convention.prediction)], time_scale=convention.time_scale,
            time_shift=convention.time_shift,
        ).save_pretrained(out)  # fmt: skip
        return out
    out.parent.mkdir(parents=True, exist_ok=True)
    text = file.to_json() if to == "json" else to_python(file, wanted)
    write_atomically(out, lambda stream: stream.write(text.encode()))
    return out


def import_table(source: Path, name: str | None = None) -> tuple[TableFile, Path]:
    """Keep a table file as a solver that `bench` finds by name; (table, where it is kept).

    Args:
        source: a file that `export` or `distill` wrote.
        name: of the solver; by default the one that the file says.

    Raises:
        ValueError: for a file that is no table, or a name that a registered solver has.
    """
    file = read_table(source)
    if name:
        try:
            file = TableFile.model_validate(file.model_dump() | {"solver": name})
        except ValidationError:
            raise ValueError(f"{name!r} is no solver name: lower-case letters, digits, dots and hyphens") from None
    if file.solver in solvers():
        raise ValueError(f"{file.solver} is a solver of its own here: give the table another name with --name")
    return file, add_table(file)
