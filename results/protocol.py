"""What decides a number beside the model and the sampler."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

__all__ = ["ALTERING", "MOST_STEPS", "Protocol"]

ALTERING = (
    "t_end", "sigma_min", "sigma_max", "threshold", "threshold_max", "guide", "guidance_low", "guidance_high",
    "negative", "embedded_guidance", "size", "tiling", "compiled",
)  # fmt: skip
MOST_STEPS = 10_000  # evaluations of a solution


class Protocol(BaseModel):
    """What is asked for beside model, sampler, noise and metrics: fields of a request, of a cell and of its row.

    Attributes:
        precision: of the network: float64; float32, without TF32; or tf32, bf16 or fp16 over a state in float32.
        guidance: weight w of (1 + w) cond - w uncond, or with a guide of (1 + w) own - w guide.
        guide: another model that stands where classifier-free guidance has the network without a class.
        guidance_low, guidance_high: guidance acts where low < sigma / alpha <= high alone (arXiv 2404.07724).
        classifier_scale: of guidance by the classifier that a public model's card names; 0 for none.
        labels: of class-conditional models: `random` (uniform), `balanced` (sample i is of class i modulo classes), or
            classes such as `3` or `3,7`, which samples take in turn; of text-to-image models the same of prompts, and
            `balanced` in the place of `random`.
        prompts: of text-to-image models: a file, or "" for those of the package; a fact of the row has their hash.
        negative: what stands there for no prompt in classifier-free guidance; "" for the pipeline's own.
        embedded_guidance: that networks distilled from guidance take as an input, as Flux does; None for the usual one.
        size: of images of text-to-image models in pixels, `SIDE` or `WIDTHxHEIGHT`; "" for the usual one.
        tiling: latents are decoded in overlapping tiles.
        compiled: the network is fused by torch.compile, with channels last, which moves the last bits.
        t_end: time of the model's path at which solvers stop, if not the usual one.
        sigma_min, sigma_max: the same for both ends, as noise-to-signal ratios sigma / alpha.
        threshold: quantile of dynamic thresholding of the data prediction (arXiv 2205.11487, section 2.3), if wanted.
        threshold_max: what |x0| is clipped to at most there.
        uint8: how images become uint8: `round` to the nearest level, or `floor`.
        reference: the set that images are compared with, if not the model's own: the id of a published one, a file of
            statistics, a data set, or folder:PATH.
        reference_steps: of the reference solutions of PSNR and truncation, if not the usual number: a table that was
            learned from these is judged by finer ones.
        preset: the protocol of a paper that the others are taken from, as far as they are its; it decides nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    precision: Literal["float64", "float32", "tf32", "bf16", "fp16"] = "float32"
    guidance: float = 0.0
    guide: str = ""
    guidance_low: float | None = Field(default=None, ge=0)
    guidance_high: float | None = Field(default=None, gt=0)
    classifier_scale: float = Field(default=0.0, ge=0)
    labels: str = "random"
    prompts: str = ""
    negative: str = ""
    embedded_guidance: float | None = Field(default=None, ge=0)
    size: str = ""
    tiling: bool = False
    compiled: bool = False
    t_end: float | None = None
    sigma_min: float | None = Field(default=None, gt=0)
    sigma_max: float | None = Field(default=None, gt=0)
    threshold: float | None = Field(default=None, gt=0, le=1)
    threshold_max: float | None = Field(default=None, ge=1)
    uint8: Literal["round", "floor"] = "round"
    reference: str = ""
    reference_steps: int | None = Field(default=None, ge=20, le=MOST_STEPS)
    preset: str = ""

    @field_validator("labels", mode="before")
    @classmethod
    def _drawn_or_listed(cls, value: Any) -> str:
        many = value if isinstance(value, list | tuple) else str(value).split(",")
        found = [word for one in many if (word := str(one).strip())]
        if found in (["random"], ["balanced"]):
            return found[0]
        if not found or not all(word.isascii() and word.isdigit() for word in found):
            raise ValueError(f"random, balanced, or classes such as 3 or 3,7, not {str(value)[:60]!r}")
        classes = [int(word) for word in found]
        if len(set(classes)) < len(classes):
            raise ValueError(f"each class once, not {str(value)[:60]!r}")
        return ",".join(map(str, classes))

    @field_validator("guidance_low")
    @classmethod
    def _no_limit(cls, value: float | None) -> float | None:
        return value or None

    @model_validator(mode="after")
    def _consistent(self) -> Protocol:
        if self.t_end is not None and self.sigma_min is not None:
            raise ValueError("t_end and sigma_min are two names of one end: give one")
        if self.threshold_max is not None and self.threshold is None:
            raise ValueError("threshold_max is a part of dynamic thresholding: give its quantile too")
        if self.negative and not self.guidance:
            raise ValueError("a negative prompt does nothing without guidance: give --cfg S too")
        if self.guide and (self.prompts or self.negative):
            raise ValueError("a guide stands where a negative prompt would, and knows no prompts but the package's own")
        within = self.guidance_low is not None or self.guidance_high is not None
        if (self.guide or within) and not self.guidance:
            what = f"the guide {self.guide}" if self.guide else "an interval of guidance"
            raise ValueError(f"{what} does nothing without a weight: give --guidance W or --cfg S too")
        if self.guidance_high is not None and self.guidance_high <= (self.guidance_low or 0.0):
            raise ValueError("an interval of guidance is LO,HI with LO below HI")
        return self

    @property
    def altered(self) -> dict[str, float | str]:
        """What of it makes another model of a model, where not the usual: `ALTERING`."""
        found = {name: getattr(self, name) for name in ALTERING}
        return {name: value for name, value in found.items() if value not in (None, "") and value is not False}

    @property
    def asked(self) -> Protocol:
        """These fields alone."""
        return Protocol(**{name: getattr(self, name) for name in Protocol.model_fields})
