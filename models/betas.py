"""A noise schedule as the command line names it: betas by the name of their schedule, or in a file.

`scaled-linear:0.00085,0.012,1000` is Stable Diffusion's, `linear:0.0001,0.02,1000` DDPM's, `cosine:1000` iDDPM's.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from fastsample.datasets.files import read_small
from fastsample.datasets.home import expanded
from fastsample.datasets.text import text_of
from fastsample.models.analytic import ring_mixture
from fastsample.models.model import Model
from fastsample.models.path import DiscreteVP, zero_terminal_snr
from fastsample.models.public.card_tables import NoisePath

__all__ = ["model_of_betas", "path_of_betas"]

_KNOWN = "linear:FIRST,LAST,STEPS, scaled-linear:FIRST,LAST,STEPS, cosine:STEPS (each with ,zero-snr) or a file"


def path_of_betas(text: str) -> DiscreteVP:
    """The path of a table of N betas, from t = 1 to the first entry, t = 1/N.

    Args:
        text: a schedule with its numbers, `,zero-snr` behind them for one rescaled to a terminal SNR of zero
            (arXiv 2305.08891); or a file of betas, one a line or a JSON list.

    Raises:
        ValueError: for a text that is neither, or numbers that are no betas.
    """
    name, colon, rest = text.partition(":")
    schedule = name if name in ("linear", "scaled-linear", "cosine") else ""
    betas = _named(text, schedule, rest.split(",")) if colon and schedule else _from_file(text)
    if len(betas) < 2:
        raise ValueError(f"--betas {text}: a noise schedule has at least 2 betas, not {len(betas)}")
    try:
        return DiscreteVP(betas=betas, t_data=1 / len(betas))
    except ValueError as error:
        raise ValueError(f"--betas {text}: {error}") from None


def model_of_betas(text: str) -> Model:
    """An exact model on that path, for what is asked of a path alone: its samples mean nothing."""
    path = path_of_betas(text)
    return Model(f"betas {text}", "", "", path, (2,), (2,), "analytic", 0, None, lambda *_: ring_mixture(path))


def _named(text: str, schedule: str, words: list[str]) -> tuple[float, ...]:
    zero = words[-1].strip() == "zero-snr"
    words = words[:-1] if zero else words
    fields = ("steps",) if schedule == "cosine" else ("beta_first", "beta_last", "steps")
    if len(words) != len(fields):
        raise ValueError(f"--betas takes {_KNOWN}, not {text!r}")
    facts: dict[str, Any] = dict(zip(fields, map(str.strip, words), strict=True))
    try:
        betas = NoisePath(name="vp-discrete", schedule=schedule, **_numbers(facts)).betas()  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"--betas {text}: {first['loc'][0]}: {first['msg']}") from None
    except ValueError:
        raise ValueError(f"--betas takes {_KNOWN}, not {text!r}") from None
    return zero_terminal_snr(betas) if zero else betas


def _numbers(facts: dict[str, Any]) -> dict[str, Any]:
    return {field: int(word) if field == "steps" else float(word) for field, word in facts.items()}


def _from_file(text: str) -> tuple[float, ...]:
    file = expanded(text)
    try:
        content = text_of(read_small(file))
        values: Any = json.loads(content) if content.lstrip().startswith("[") else content.replace(",", " ").split()
        return tuple(float(value) for value in values)
    except FileNotFoundError:
        raise ValueError(f"--betas takes {_KNOWN}; there is no file {text!r}") from None
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"--betas {file}: {error}") from None
