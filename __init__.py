"""fastsample from Python: what the commands do, as functions that return tensors and frames.

    import fastsample as fs

    rows = fs.sweep(model="cifar10-tiny-flow", solver=["flow-solver", "ddim"], nfe=[5, 10], samples=64)
    print(rows[["solver", "nfe", "metrics.psnr"]])

Each function imports what it needs when it is called, so that the import costs nothing; see docs/python.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from fastsample.bench.cli.words import Screen
    from fastsample.models.catalogue import Model
    from fastsample.results.store import Store
    from fastsample.solvers.spec import Spec

__version__: str

__all__ = ["__version__", "open_model", "open_store", "sample", "sampler", "sweep", "verify"]


def __getattr__(name: str) -> str:
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version

    return version("fastsample")


def __dir__() -> list[str]:
    return __all__


def open_model(name: str, *, checkpoint: Path | str | None = None, classifier_scale: float = 0.0) -> Model:
    """The model that `--model NAME` means; public ones are fetched at the first use.

    Args:
        name: an id of `fastsample list models`, a .safetensors file, or a .toml card.
        checkpoint: a file with the weights of a public model, instead of a download.
        classifier_scale: of guidance by the classifier of a public model; 0 for none.

    Raises:
        ValueError: for an unknown name (the message offers the nearest), or a model that cannot be had.
    """
    from fastsample.models.catalogue import open_model

    file = Path(checkpoint) if checkpoint else None
    return open_model(name, console=_screen(), checkpoint=file, classifier_scale=classifier_scale)


def sampler(text: str) -> Spec:
    """The sampler of a sentence NAME:OPTION=VALUE,...@GRID, such as `scire:order=3@karras`.

    Raises:
        ValueError: for an unknown solver, option or grid, or a value that it cannot have.
    """
    from fastsample.solvers.spec import Spec

    return Spec.parse(text)


def sample(
    model: Model | str,
    sampler: Spec | str = "scire",
    nfe: int = 10,
    samples: int = 16,
    seed: int = 0,
    *,
    labels: str | Sequence[int] = "random",
    guidance: float = 0.0,
    transfer: bool = False,
    batch_size: int | None = None,
    device: str = "auto",
) -> Tensor:
    """Samples of a model: float32 [samples, ...] on the CPU; images are in [-1, 1], not clipped.

    Sample i is the same however many there are, and the same as in `sweep` and `fastsample bench`.

    Args:
        model: of `open_model`, or its name.
        sampler: of `sampler`, or its sentence.
        nfe: function evaluations to spend.
        labels: of class-conditional models: `random`, `balanced`, or classes in turn.
        guidance: weight w of (1 + w) cond - w uncond.
        transfer: a learned solver may take another model's table.
        batch_size: samples of a network call.
        device: `auto`, `cpu`, `cuda`, ...

    Raises:
        ValueError: for what is unknown or cannot be carried out.
    """
    import torch

    from fastsample.bench.drawing import drawn
    from fastsample.bench.request import read_request

    opened = open_model(model) if isinstance(model, str) else model
    request = read_request(
        None, model=opened.id, solver=str(sampler), nfe=nfe, samples=max(samples, 2), seed=seed, labels=labels,
        guidance=guidance, transfer=transfer, batch_size=batch_size, device=device,
    )  # fmt: skip
    return torch.cat(list(drawn(opened, request)))[:samples].float()


def sweep(
    *,
    model: str | Sequence[str] | None = None,
    solver: str | Sequence[str] | None = None,
    nfe: int | Sequence[int] | None = None,
    grid: str | Sequence[str] | None = None,
    protocol: str | None = None,
    samples: int | None = None,
    psnr_samples: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    seeds: int | None = None,
    device: str | None = None,
    precision: Literal["float64", "float32", "tf32", "bf16", "fp16"] | None = None,
    guidance: float | None = None,
    cfg: float | None = None,
    guide: str | None = None,
    guidance_interval: tuple[float | None, float | None] | None = None,
    classifier_scale: float | None = None,
    labels: str | Sequence[int] | None = None,
    prompts: str | None = None,
    negative: str | None = None,
    embedded_guidance: float | None = None,
    size: str | None = None,
    tiling: bool | None = None,
    compiled: bool | None = None,
    checkpoint: Path | str | None = None,
    t_end: float | None = None,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    threshold: float | str | None = None,
    uint8: Literal["round", "floor"] | None = None,
    reference: str | None = None,
    reference_steps: int | None = None,
    transfer: bool | None = None,
    metrics: str | Sequence[str] | None = None,
    keep: Literal["", "features", "images"] | None = None,
    save_samples: Literal["", "png", "npz"] | None = None,
    out: Path | str | None = None,
    config: Path | str | None = None,
    extractor_weights: Mapping[str, Path | str] | None = None,
) -> pd.DataFrame:
    """Sample every (model, solver, grid, NFE), measure, and return one row per cell.

    The keywords are the options of `fastsample bench`, with its defaults: `fastsample bench --help` says what each is.
    Finished cells of the store are not computed again.

    Returns:
        The rows of this request, with columns such as `model`, `solver`, `nfe`, `metrics.psnr` and `seconds.network`.
        A cell that failed has none, and a warning says why.

    Raises:
        ValueError: for what is unknown or cannot be carried out.
        RuntimeError: where every cell failed.
    """
    given = dict(locals())
    import warnings

    from fastsample.bench.request import read_request
    from fastsample.bench.sweep import prepare, swept
    from fastsample.results.row import frame_of

    file, files = (given.pop(name) for name in ("config", "extractor_weights"))
    request = read_request(Path(file) if file else None, **given)
    screen = _screen()
    ready = prepare(request, screen, {name: Path(weights) for name, weights in (files or {}).items()})
    rows = swept(request, ready, screen)
    if not rows:
        raise RuntimeError(f"no row: {'; '.join(ready.failures)}")
    for failure in ready.failures:
        warnings.warn(f"no row: {failure}", stacklevel=2)
    return frame_of(rows)


def open_store(folder: Path | str) -> Store:
    """The store in a folder that `bench` or `sweep` has written; `.frame()` has all its rows.

    Raises:
        ValueError: for a folder that is no store.
    """
    from fastsample.results.store import Store

    return Store(Path(folder).expanduser(), create=False)


def verify(solver: str | Sequence[str] | None = None) -> pd.DataFrame:
    """Prove solvers on exact mixtures, all where None is named, as `fastsample verify` does.

    Returns:
        One row for each solver and variant: the order `claimed`, those measured, NFE `made` and `asked`, the
        `table_error`, and whether all of it `holds`.

    Raises:
        ValueError: for an unknown solver.
    """
    import pandas as pd
    from rich.text import Text

    from fastsample.bench.cli.verify import proofs_of

    with _screen().status("orders") as status:
        proofs = proofs_of([solver] if isinstance(solver, str) else solver, lambda line: status.update(Text(line)))
    return pd.DataFrame([
        {"solver": str(proof.claim), "claimed": proof.claim.order}
        | {f"order.{name}": order for name, order in proof.orders.items()}
        | {"made": proof.made, "asked": proof.asked, "table_error": proof.table_error, "holds": proof.holds}
        for proof in proofs
    ])  # fmt: skip


def _screen() -> Screen:
    """Progress and notes, on a terminal alone."""
    import sys

    from fastsample.bench.cli.words import Screen

    return Screen(stderr=True, quiet=not (sys.stderr and sys.stderr.isatty()))
