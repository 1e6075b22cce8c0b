"""A model, whatever it comes from: what samples it, and what its samples are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from fastsample.models.convention import Convention
from fastsample.models.denoiser import Denoiser
from fastsample.models.held import Held
from fastsample.models.path import Path

__all__ = ["Model"]


@dataclass(frozen=True)
class Model:
    """A model ready to be sampled.

    Attributes:
        id: its name.
        title: one line for people.
        sha256: of its weights, for public models of the file they were in; "" where it has none.
        path: the path it was trained on.
        shape: of one sample, such as (3, 32, 32); of the latent, for latent models.
        image_shape: of what `decode` makes of one sample.
        data: the data set it models, or "analytic".
        num_classes: class labels it is conditioned on; 0 if none.
        held: its network in float32; None for exact models.
        make: makes a denoiser from (network, class indices int64 [batch] or None, guidance, precision as there).
        decode: makes images in [-1, 1] of samples; not clipped.
        conditions: a hash of what beside the weights decides the numbers; "" where nothing does.
        classifier: the classifier that guides it with each evaluation, its sha256 and the scale; "" where none does.
        weights: of public models, whether they are the published ones, in words.
        reference: of public models, what their card names as the reference set of their data; "none" for none.
        guide: the model that guides it, with its hashes; its negative prompt, or embedded guidance; "" for none.
        guided_within: (low, high) noise-to-signal ratios between which guidance acts; None for no limit.
        given: what commands call it, where its id is not enough: the file that it is in.
        prompts: of text-to-image models, which their labels stand for in turn.
        told: of diffusers pipelines, the same model with the prompts, negative prompt, embedded guidance, size and
            tiling of a protocol; see `Pipeline.told`.
        convention: of diffusers pipelines whose network any scheduler can call, what it takes and returns.
    """

    id: str
    title: str
    sha256: str
    path: Path
    shape: tuple[int, ...]
    image_shape: tuple[int, ...]
    data: str
    num_classes: int
    held: Held | None
    make: Callable[[torch.nn.Module | None, torch.Tensor | None, float, str | None], Denoiser]
    decode: Callable[[torch.Tensor], torch.Tensor] = lambda x: x
    conditions: str = ""
    classifier: str = ""
    weights: str = ""
    reference: str = ""
    guide: str = ""
    guided_within: tuple[float | None, float | None] = (None, None)
    given: str = ""
    prompts: tuple[str, ...] = ()
    told: Callable[..., Model] | None = None
    convention: Convention | None = None

    @property
    def exact(self) -> bool:
        """Whether it is analytic and has no network."""
        return self.held is None

    @property
    def network(self) -> torch.nn.Module | None:
        """Its network, opened if it is not; None for exact models.

        Raises:
            ValueError: as `open_model`, or when it is no longer the network that the model was opened with.
        """
        return self.held.network if self.held else None

    def release(self) -> None:
        """Let go of the network: it is opened again at its next need."""
        if self.held:
            self.held.release()
