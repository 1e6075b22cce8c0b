"""Diffusers pipelines as models: opened, told what they are to show, and asked.

`open_pipeline` reads a folder; `Pipeline.told` says prompts, size, what guides and how to decode, and changes nothing
else, so that one network and one set of embeddings serve all of them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fastsample.models.checkpoints import CheckpointError, check_shape
from fastsample.models.denoiser import Denoiser, NetworkDenoiser
from fastsample.models.foreign.diffusers_files import PipelineFolder, open_folder
from fastsample.models.foreign.diffusers_network import PipelineNetwork
from fastsample.models.foreign.diffusers_schedule import Schedule, schedule_of
from fastsample.models.foreign.text import Texts, encoded, prompts_of, sha256_of_prompts

__all__ = ["Pipeline", "open_pipeline"]

_EMBEDDED = 3.5  # the guidance that Flux's pipeline embeds by default


@dataclass(frozen=True)
class Pipeline:
    """A pipeline, ready to be sampled.

    Attributes:
        folder: it was read from.
        schedule: of its scheduler.
        network, first_stage: its parts; None for a model of pixels.
        prompts, negative, embedded, size, tiled: as it was told.
        kept: embeddings of prompts so far.
    """

    folder: PipelineFolder
    schedule: Schedule
    network: Any
    first_stage: Any
    size: tuple[int, int]
    prompts: tuple[str, ...] = ()
    negative: str | None = None
    embedded: float | None = None
    tiled: bool = False
    kept: dict[str, tuple[Tensor, ...]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """One line for people."""
        height, width = self.size
        grid = f", its scheduler's times: --grid {self.schedule.grid} --t-end 1" if self.schedule.grid else ""
        return f"{self.folder.pipeline} of {width}x{height} images{grid}"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample: (channels, height, width)."""
        factor, channels = _factor(self.first_stage), self.network.config["in_channels"]
        channels //= 4 if self.folder.pipeline == "FluxPipeline" else 1
        return (channels, *(side // factor for side in self.size))

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Of one image."""
        channels = self.shape[0] if self.first_stage is None else self.first_stage.config["out_channels"]
        return (channels, *self.size)

    @property
    def num_classes(self) -> int:
        """Labels: one for each prompt, or the network's classes."""
        return len(self.prompts) or self._classes

    @property
    def _classes(self) -> int:
        config = self.network.config
        known = config.get("num_embeds_ada_norm" if self.folder.pipeline == "DiTPipeline" else "num_class_embeds")
        return known or 0

    @property
    def guide(self) -> str:
        """What guides it beside its prompts; "" where nothing was said."""
        told = [f"negative prompt {self.negative!r}"] if self.negative else []
        told += [f"embedded guidance {self.embedded:g}"] if self.embedded is not None else []
        return ", ".join(told)

    @property
    def conditions(self) -> str:
        """A hash of what beside the files decides the numbers."""
        facts = [self.guide, self.size, self.tiled, sha256_of_prompts(self.prompts) if self.prompts else ""]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]

    def module(self) -> PipelineNetwork:
        """Its network, with its first stage."""
        texts = None
        if self.prompts:
            empty = bool(self.folder.facts.get("force_zeros_for_empty_prompt", True))
            texts = Texts(
                self.prompts, self.negative, partial(encoded, self.folder, self.network),
                empty=self.folder.pipeline == "StableDiffusionXLPipeline" and empty, kept=self.kept,
            )  # fmt: skip
        return PipelineNetwork(
            self.folder.pipeline, self.network, self.first_stage, self.schedule, texts=texts, size=self.size,
            embedded=self.embedded, tiled=self.tiled, sha256=self.folder.sha256,
        ).eval()  # fmt: skip

    def told(
        self, prompts: str = "", negative: str = "", embedded: float | None = None, size: str = "", tiled: bool = False
    ) -> Pipeline:
        """The same with what a protocol says of it.

        Args:
            prompts: file of `prompts_of`.
            negative: text that guidance leads away from; "" for the pipeline's own.
            embedded: guidance that a distilled network takes as an input; None for its usual one.
            size: of images in pixels, `SIDE` or `WIDTHxHEIGHT`; "" for the usual one.
            tiled: decode in overlapping tiles, which takes less memory and changes images a little.

        Raises:
            CheckpointError: for what this pipeline has no use for.
        """
        takes_text, name = bool(self.folder.kind.texts), self.folder.id
        if (prompts or negative) and not takes_text:
            raise CheckpointError(f"{name} takes no text: leave --prompts and --negative out")
        embeds = bool(self.network.config.get("guidance_embeds"))
        if embedded is not None and not embeds:
            raise CheckpointError(f"{name} has no embedded guidance: leave --embedded-guidance out; --cfg guides it")
        if tiled and self.first_stage is None:
            raise CheckpointError(f"{name} is a model of pixels and decodes nothing: leave --tiling out")
        return replace(
            self,
            prompts=prompts_of(prompts) if takes_text else (),
            negative=negative or None,
            embedded=(_EMBEDDED if embedded is None else embedded) if embeds else None,
            size=self._sized(size) if size else self.size,
            tiled=tiled,
        )

    def _sized(self, text: str) -> tuple[int, int]:
        found = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text)
        if not found or not int(found[1]) or not int(found[2] or found[1]):
            raise CheckpointError(f"--size is SIDE or WIDTHxHEIGHT in pixels, as 512 or 768x512, not {text[:60]!r}")
        size = int(found[2] or found[1]), int(found[1])
        if not self.folder.kind.texts:
            height, width = self.size
            raise CheckpointError(f"images of {self.folder.id} are {width}x{height}: leave --size out")
        patch = {"FluxPipeline": 2, "StableDiffusion3Pipeline": self.network.config.get("patch_size")}
        step = _factor(self.first_stage) * patch.get(self.folder.pipeline, 1)
        if any(side % step for side in size):
            raise CheckpointError(f"--size {text}: sides of images of {self.folder.id} are multiples of {step}")
        check_shape((3, *size))
        return size

    def denoiser(self, module: nn.Module, labels: Tensor | None, guidance: float, precision: str | None) -> Denoiser:
        """The denoiser of `module()`, or of a wrapper of it, for labels int64 [batch]; prompts are encoded by now.

        Raises:
            CheckpointError: for guidance of a network that was not trained without labels.
        """
        null = None
        if guidance and labels is not None:
            if not self.prompts and self.folder.pipeline != "DiTPipeline":
                told = f"{self.folder.id} was not trained without labels: classifier-free guidance needs that"
                raise CheckpointError(told)
            null = torch.full_like(labels, self.num_classes)
        return NetworkDenoiser(
            module, self.schedule.convention, labels=labels, guidance=guidance, null_labels=null, precision=precision
        )  # fmt: skip


def open_pipeline(name: str) -> Pipeline:
    """The pipeline of `diffusers:FOLDER`, or of a repository of the hub, with the prompts of the package.

    Raises:
        CheckpointError: for one that cannot be had or read, or that is of another kind than those known.
    """
    folder = open_folder(name)
    schedule, part = schedule_of(folder), folder.kind.network[0]
    first_stage = folder.load("vae") if folder.kind.latent else None
    network = folder.load(part)
    if network.config.get("time_cond_proj_dim") is not None:
        raise CheckpointError(f"{folder.id} is a consistency model, which no solver of an ODE samples")
    return Pipeline(folder, schedule, network, first_stage, _usual_size(folder, network, first_stage)).told()


def _factor(first_stage: Any) -> int:
    """Pixels on the side of one latent."""
    return 1 if first_stage is None else int(2 ** (len(first_stage.config["block_out_channels"]) - 1))


def _usual_size(folder: PipelineFolder, network: Any, first_stage: Any) -> tuple[int, int]:
    """Height and width in pixels: of the network's samples, or, of Flux, of its autoencoder's images."""
    if folder.pipeline == "FluxPipeline":
        found, factor = first_stage.config["sample_size"], 1
    else:
        found, factor = network.config["sample_size"], _factor(first_stage)
    if found is None:
        raise CheckpointError(f"{folder.id} does not say the size of its samples")
    sides: Sequence[int] = found if isinstance(found, list | tuple) else (found, found)
    return sides[0] * factor, sides[1] * factor
