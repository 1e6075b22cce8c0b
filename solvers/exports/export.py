"""Solvers that leave the benchmark, as files that other programs read; and tables read back."""

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
from fastsample.solvers.exports.sigma_files import SIGMA_FORMATS, sigma_file
from fastsample.solvers.exports.torch_file import PREDICTIONS, to_python
from fastsample.solvers.learned.shelf import add_table
from fastsample.solvers.table_file import TableFile, read_table

__all__ = ["SUFFIXES", "export", "import_table"]

SUFFIXES = {
    "json": ".json", "python": ".py", "diffusers": "", "diffusers-config": "-config", "sigmas": ".txt",
    "k-diffusion": "-k-diffusion.py", "comfyui": "-comfyui.py", "a1111": "-a1111.py",
}  # fmt: skip

_THEIRS = {ours: theirs for theirs, (ours, _) in PREDICTION_TYPES.items()}  # in diffusers


def export(
    file: TableFile,
    to: str,
    out: Path | None = None,
    prediction: str | None = None,
    convention: Convention | None = None,
) -> tuple[Path, str]:
    """Write a solver for other programs; (what was written, what is to be known of it).

    Args:
        file: the table.
        to: json (the table file), python (one module of torch code), diffusers (a folder for
            `TableScheduler.from_pretrained`), diffusers-config (a folder for one of diffusers' own schedulers), or a
            format of `sigma_file`.
        out: file or folder; by default SOLVER-MODEL-NFE in the current folder.
        prediction: what the network there returns, x0, eps, velocity or v; by default the table's coordinate for
            python, and for diffusers that of `convention`, or eps on VP paths and the velocity on the linear path. A
            json has none, and neither have formats of sigmas: these programs make the data prediction themselves.
        convention: what the network of the diffusers pipeline takes and returns, where that is known.

    Raises:
        ValueError: for an unknown format, a prediction that the path does not allow, a path that the format has no
            timesteps or sigmas for, a solver that none of the program's own is, or where diffusers is not installed.
    """
    if to not in SUFFIXES:
        raise ValueError(nearest(to, list(SUFFIXES), "format"))
    if prediction and prediction not in PREDICTIONS:
        raise ValueError(nearest(prediction, list(PREDICTIONS), "prediction"))
    if prediction and to == "json":
        raise ValueError("a table file keeps its own coordinate: leave --prediction out")
    if prediction and to in SIGMA_FORMATS:
        raise ValueError(f"a model is called for its data prediction there, so {to} has no --prediction: leave it out")
    wanted = cast(Prediction | None, prediction)
    belongs = re.sub("[/:]", "_", file.model or file.noise_path.name)
    out = out or Path(f"{file.solver}-{belongs}-{file.nfe}{SUFFIXES[to]}")
    if to.startswith("diffusers"):
        return out, _to_diffusers(file, to, out, wanted, convention)
    told = ""
    if to in SIGMA_FORMATS:
        text, seen = sigma_file(file, to)
        told = seen.told
    else:
        text = file.to_json() if to == "json" else to_python(file, wanted)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, lambda stream: stream.write(text.encode()))
    return out, told


def _to_diffusers(
    file: TableFile, to: str, out: Path, prediction: Prediction | None, convention: Convention | None
) -> str:
    """Write a folder with a scheduler; what is to be known of it."""
    if out.is_file():
        raise ValueError(f"{out} is a file, and this format is a folder")
    try:
        from fastsample.solvers.exports.diffusers import TableScheduler
        from fastsample.solvers.exports.diffusers_config import own_scheduler
    except ImportError:
        raise ValueError("this format needs diffusers: pip install diffusers") from None
    have = prediction or (cast(Prediction, convention.prediction) if convention else None)
    kind = _THEIRS[have] if have else None
    if to == "diffusers-config":
        found = own_scheduler(file, kind)
        found.scheduler.save_pretrained(out)
        return found.told
    scale, shift = (convention.time_scale, convention.time_shift) if convention else (None, None)
    TableScheduler(file, prediction_type=kind, time_scale=scale, time_shift=shift).save_pretrained(out)
    return ""


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
    return file, add_table(file)
