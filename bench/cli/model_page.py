"""The page docs/models.md: how a model, a solver, a metric, an extractor or a data set of a user's own comes in."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any

from fastsample.models.foreign.own import OwnModel
from fastsample.models.public.card_tables import Labels, NoisePath, Time
from fastsample.models.public.cards import Card

__all__ = ["model_page"]


def model_page() -> str:
    """The page, with the fields read off the classes."""
    own = {field.name: "" if field.default is dataclasses.MISSING else repr(field.default)
           for field in dataclasses.fields(OwnModel)}  # fmt: skip
    tables = {f"`[ID.{name}]`": table for name, table in (("path", NoisePath), ("time", Time), ("labels", Labels))}
    parts = "\n\n".join(f"{head}: {_said(table)}\n\n{_table(_fields(table), {})}" for head, table in tables.items())
    return _PAGE.format(own=_table(own, _told(OwnModel)), card=_table(_fields(Card), _told(Card)), parts=parts)


def _fields(model: Any) -> dict[str, str]:
    return {
        name: "" if field.is_required() else str(field.default.model_dump() if hasattr(field.default, "model_dump")
        else repr(field.default)) + (f" ({field.description})" if field.description else "")
        for name, field in model.model_fields.items()
    }  # fmt: skip


def _said(model: type) -> str:
    return " ".join((inspect.getdoc(model) or "").split())


def _told(model: type) -> dict[str, str]:
    """What the docstring says of attributes, by their names; those told together share a sentence."""
    text = (inspect.getdoc(model) or "").partition("Attributes:")[2]
    found: dict[str, str] = {}
    for names, said in re.findall(r"^    ([\w, ]+): (.*(?:\n {8}.*)*)", text, re.M):
        found |= dict.fromkeys(names.split(", "), " ".join(said.split()))
    return found


def _table(defaults: dict[str, str], told: dict[str, str]) -> str:
    lines = [
        f"| `{name}` | {default and f'`{default}`'} | {told.get(name, '')} |" for name, default in defaults.items()
    ]
    return "\n".join(
        ["| field | default | what it is |", "|---|---|---|", *(line.replace("\n", " ") for line in lines)]
    )


_PAGE = """# Models of your own, and other parts

Written by `make docs`; the fields are those of the code.

Python that you name is run, with all that you may do: it is your own code. Nothing is run of a file below
FASTSAMPLE_HOME, where what is downloaded lies, and no class is imported for a card that lies there. A card of
somebody else may name a class: read it before you use it.

## A network: `--model FILE.py:NAME`

`NAME` is a function without arguments that returns an `OwnModel` (or a dict of its fields); `package.module:NAME` is
one of a package that can be imported. `bench`, `sample`, `distill`, `explain`, `export` and `models test` take it;
`table`, `check`, `recommend` and `report` show its rows. The id in tables is the file's name without its folder, or
`name`. A row keeps the sha256 of the weights (`checkpoint_sha256`), that of the file (`weights`), a hash of the
convention (`model card`), and what `--model` took (`model given as`). A change of the file makes another model:
finished cells are computed again, and learned tables are not found. What the file imports is not hashed, but for the
weights.

{own}

`fastsample models test FILE.py:NAME` asks, before hours are spent: shape, finite answers at both ends, x0 near x
where there is hardly any noise, whether samples depend on one another, speed, memory, and whether the convention
fits; if not, which one does.

## An installed package

Entry points of the groups `fastsample.models`, `fastsample.solvers`, `fastsample.metrics`, `fastsample.extractors` and
`fastsample.datasets` offer the same by a name alone:

```toml
[project.entry-points."fastsample.models"]
my-flow = "my_package.models:flow"
```

## A solver: `--solver FILE.py:NAME[:OPTION=VALUE,...][@GRID]`

A function of (denoiser, x, times) as in `solvers/`, which only adds vectors and multiplies them with numbers. Options
are its keyword-only arguments. Under `@register(NAME, Facts(...))` it has those facts; without, what it asks for and
its evaluations a step are seen in a run on a number, and its order counts as 1.

## A metric: `--metrics FILE.py:NAME`

A function of some of `images`, `reference_images` (what samples and the reference solutions of the same noise decode
to), `states` and `references` (the same as the model has them). It returns a number for each sample, whose mean
stands in tables with its interval; or an array with a line for each sample, of which its attribute `estimate` makes
an `Estimate` of `fastsample.results.statistics`, or a number. Its attributes `title`, `unit`, `higher` and `digits`
are kept in the row, so that tables need the file no more.

## An extractor, a data set

`--metrics fd[FILE.py:NAME]`: a function that returns a network, or a function, of uint8 images [n, 3, H, W]; that
returns features [n, d], or (features, logits). `--reference FILE.py:NAME`, `data="FILE.py:NAME"` and `train flow
--dataset FILE.py:NAME`: a function of (split, path) that returns an `ImageDataset` or `StreamedImages` of
`fastsample.datasets.image_set`.

## Waveforms and other shapes

A shape may be anything: `(1, 16000)`, `(4, 64, 64)`, `(2,)`. `snr` is the signal-to-noise ratio in dB, as BNS reports
it of audio; `truncation`, `curvature` and `straightness` say the same of every shape, and `psnr` takes what is no
image as it is, with R = 4. Metrics in features and pictures of samples are of images, and say so.

## A card: `--model FILE.toml#ID`

A file of weights with a network that is known here, or `module:Class` of your own, which is imported and called with
`config`. One table of the TOML file is one model; `like = "ID"` takes over what is not said from another card.

{card}

{parts}
"""
