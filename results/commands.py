"""Commands that repeat a row of a store."""

from __future__ import annotations

import re
import shlex

from fastsample.datasets.names import number
from fastsample.results.comparable import STATED
from fastsample.results.metrics import metric_of
from fastsample.results.row import Row

__all__ = ["GIVEN", "SHAPE", "bench_command", "export_command", "sample_command"]

GIVEN = "model given as"  # of a row's protocol: what `--model` takes, where the id of the model is not enough
SHAPE = "shape of samples"  # of a row's protocol: where they are no images


def bench_command(row: Row) -> str:
    """The command that computes the row again, with all its metrics, into a store of its own.

    Of images from elsewhere the row does not tell where they lie.
    """
    kinds = dict.fromkeys(name.partition("@")[0] for name in row.metrics if name not in metric_of(name).summaries)
    words = ["--samples", str(row.samples), "--precision", row.precision, "--metrics", ",".join(kinds)]
    if STATED in row.protocol:
        given = ["--reference", row.reference] if row.reference else []
        given += ["--model", row.model] if row.model != row.reference else []
        name, count = row.solver.removesuffix(" (stated)"), str(row.samples)
        given += ["--name", name, "--nfe", str(row.nfe_asked), "--samples", count, "--metrics", ",".join(kinds)]
        return f"fastsample score IMAGES {shlex.join(given)} --out results-again"
    words += ["--uint8", row.uint8] if row.uint8 != "round" else []
    words += ["--reference", row.reference] if row.reference else []
    words += ["--reference-steps", str(row.reference_steps)] if row.reference_steps else []
    return f"{_command('bench', row)} {shlex.join(words)} --out results-again"


def sample_command(row: Row) -> str:
    """The command that draws images with the row's sampler, or writes an array of samples that are none."""
    return f"{_command('sample', row)} -o samples.{'npy' if SHAPE in row.protocol else 'png'}"


def export_command(row: Row) -> str:
    """The command that writes the row's sampler as a program of its own; for solvers with a coefficient table."""
    words = ["fastsample", "export", "--model", row.protocol.get(GIVEN, row.model), *_sampler(row)]
    if row.learned:  # it has a table for each guidance
        words += ["--guidance", number(row.guidance), *_guide(row)]
        words += ["--negative", row.negative] if row.negative else []
        words += _number(row, "embedded_guidance")
    return shlex.join(words) + " --to python"


def _sampler(row: Row) -> list[str]:
    if row.learned:  # its times are its own
        plain = re.fullmatch(r"[\w.-]*", str(row.options.get("transfer", "")))  # as a sentence holds it
        told = ",".join(f"{key}={value}" for key, value in row.options.items()) if plain else ""
        words = ["--solver", row.solver + (f":{told}" if told else ""), "--nfe", str(row.nfe_asked)]
        return words if plain else [*words, "--transfer"]
    words = ["--solver", row.sampler, "--nfe", str(row.nfe_asked)]
    # Adaptive solvers choose their times, and a predictor has its own.
    return words + ([] if row.adaptive or row.grid == "learned" else ["--grid", row.grid])


def _command(name: str, row: Row) -> str:
    words = ["fastsample", name, "--model", row.protocol.get(GIVEN, row.model), *_sampler(row), "--seed", str(row.seed)]
    words += ["--guidance", number(row.guidance), *_guide(row)] if row.guidance else []
    for option in ("prompts", "negative", "size"):
        words += [f"--{option}", getattr(row, option)] if getattr(row, option) else []
    words += [*_number(row, "embedded_guidance"), *(["--tiling"] if row.tiling else [])]
    words += ["--compile"] if row.compiled else []
    most = "" if row.threshold_max is None else f",{number(row.threshold_max)}"
    for option in ("t_end", "sigma_min", "sigma_max", "threshold"):
        words += _number(row, option, most if option == "threshold" else "")
    words += ["--classifier-scale", number(row.classifier_scale)] if row.classifier_scale else []
    return shlex.join(words + (["--labels", row.labels] if "labels" in row.protocol else []))


def _number(row: Row, option: str, more: str = "") -> list[str]:
    """A number of the row as an option, if it has it."""
    value = getattr(row, option)
    return [] if value is None else [f"--{option.replace('_', '-')}", number(value) + more]


def _guide(row: Row) -> list[str]:
    """What is told of its guidance beside the weight."""
    ends = ["" if end is None else number(end) for end in (row.guidance_low, row.guidance_high)]
    words = ["--guide", row.guide] if row.guide else []
    return words + (["--guidance-interval", ",".join(ends)] if any(ends) else [])
