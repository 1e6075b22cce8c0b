"""Prompts, and what the text encoders of a pipeline make of them: once for each prompt, before sampling.

Prompt i belongs to sample i, from the first on again where there are more samples. The encoders run in float32 on the
CPU, one prompt at a time, so that an embedding depends on its prompt alone; they are gone when sampling begins.
"""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastsample.datasets.files import read_small, warn_once
from fastsample.datasets.home import expanded
from fastsample.datasets.text import text_of
from fastsample.models.checkpoints import MOST_CLASSES, CheckpointError
from fastsample.models.foreign.diffusers_files import PipelineFolder, import_extra

__all__ = ["Texts", "encoded", "prompts_of", "sha256_of_prompts", "told_prompts"]

_LONGEST = 10_000  # characters of a prompt
# What classes of pipelines are made with beside their parts.
_ALSO: dict[str, dict[str, Any]] = {
    "StableDiffusionPipeline": {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False},
    "StableDiffusionXLPipeline": {"add_watermarker": False},
}


def prompts_of(file: str) -> tuple[str, ...]:
    """The prompts of a file, one a line, empty lines left out; the 64 that come with the package where it is "".

    Raises:
        CheckpointError: for a file that cannot be read, is not UTF-8 or has no prompt.
    """
    try:
        content = read_small(expanded(file)) if file else _own().read_bytes()
        found = tuple(line for one in text_of(content).splitlines() if (line := one.strip()))
    except OSError as error:
        raise CheckpointError(f"--prompts: {file} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise CheckpointError(f"--prompts: {file}: {error}") from None
    if not found:
        raise CheckpointError(f"--prompts: {file} has no prompt; it has one a line")
    if len(found) > MOST_CLASSES or max(map(len, found)) > _LONGEST:
        raise CheckpointError(f"--prompts: {file} has more than {MOST_CLASSES:,} lines, or one of over {_LONGEST:,}")
    return found


def _own() -> Path:
    return Path(str(files("fastsample.models.foreign") / "prompts.txt"))


def told_prompts(prompts: Sequence[str]) -> str:
    """How a row calls a list of prompts."""
    return f"{len(prompts)} prompts, sha256 {sha256_of_prompts(prompts)}"


def sha256_of_prompts(prompts: Sequence[str]) -> str:
    """Hash of a list of prompts, whatever its file is called."""
    return hashlib.sha256("\n".join(prompts).encode()).hexdigest()


@dataclass(frozen=True)
class Texts:
    """The prompts of a model and their embeddings.

    Attributes:
        prompts: label i of the model is the i-th; the label after the last is no prompt.
        negative: what stands there with guidance; None for what the pipeline takes where none is given.
        encode: makes the embeddings of some prompts, each a tuple of tensors without a batch.
        empty: zeros stand for no prompt where no negative one is given, as in SDXL; else that is "".
        kept: embeddings by prompt, of all lists of the pipeline.
    """

    prompts: tuple[str, ...]
    negative: str | None
    encode: Callable[[Sequence[str]], Iterator[tuple[Tensor, ...]]]
    empty: bool = False
    kept: dict[str, tuple[Tensor, ...]] = field(default_factory=dict)

    @property
    def _nothing(self) -> str | None:
        """The text that stands for no prompt; None for zeros."""
        return None if self.negative is None and self.empty else self.negative or ""

    def prepare(self, *, guided: bool) -> None:
        """Encode what is not encoded yet: the prompts, and with guidance what stands for none."""
        wanted = [*self.prompts, *([self._nothing] if guided and self._nothing is not None else [])]
        missing = [text for text in dict.fromkeys(wanted) if text not in self.kept]
        if missing:
            self.kept.update(zip(missing, self.encode(missing), strict=True))

    def of(self, labels: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        """The embeddings [batch, ...] of labels int64 [batch], in the dtype and on the device of x."""
        rows = [self._row(label) for label in labels.tolist()]
        return tuple(torch.stack(part).to(x) for part in zip(*rows, strict=True))

    def _row(self, label: int) -> tuple[Tensor, ...]:
        text = self.prompts[label] if label < len(self.prompts) else self._nothing
        if text is None:
            return tuple(torch.zeros_like(part) for part in self.kept[self.prompts[0]])
        return self.kept[text]


@torch.no_grad()
def encoded(folder: PipelineFolder, network: torch.nn.Module, prompts: Sequence[str]) -> Iterator[tuple[Tensor, ...]]:
    """The embeddings of prompts by the text encoders of a pipeline, as its own class makes them; then they are freed.

    Args:
        network: of the pipeline, which SD3's asks for a width where it has no T5.
    """
    kind, library = folder.kind, import_extra("diffusers")
    parts = {part: folder.load(part) if part in folder.parts else None for part in kind.texts}
    own: dict[str, Any] = {kind.network[0]: network if folder.pipeline == "StableDiffusion3Pipeline" else None}
    own |= _ALSO.get(folder.pipeline, {})
    pipeline = getattr(library, folder.pipeline)(scheduler=None, vae=None, **parts, **own)
    tokenizer = parts["tokenizer"]
    assert tokenizer
    if cut := sum(len(tokenizer(prompt).input_ids) > tokenizer.model_max_length for prompt in prompts):
        most = tokenizer.model_max_length
        warn_once(
            f"{cut} of {len(prompts)} prompts have more than the {most} tokens that CLIP reads, and are cut there"
        )
    given: dict[str, Any] = {} if folder.pipeline == "FluxPipeline" else {"do_classifier_free_guidance": False}
    if folder.pipeline == "StableDiffusion3Pipeline":
        given |= {"prompt_2": None, "prompt_3": None}
    try:
        for prompt in prompts:
            made = pipeline.encode_prompt(
                prompt=prompt, device=torch.device("cpu"), num_images_per_prompt=1, **given
            )  # fmt: skip
            # SD: (text, no negative); SDXL and SD3: (text, no negative, pooled, no negative); Flux: (text, pooled, ids)
            kept = made[:2] if folder.pipeline == "FluxPipeline" else made[::2]
            yield tuple(part[0].float().clone() for part in kept)
    finally:
        del pipeline, parts, tokenizer
        gc.collect()
