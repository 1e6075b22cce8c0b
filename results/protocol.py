"""What decides a number beside the model and the sampler."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["MOST_STEPS", "Protocol"]

MOST_STEPS = 10_000  # evaluations of a solution


class Protocol(BaseModel):
    """What is asked for beside model, sampler, noise and metrics: fields of a request, of a cell and of its row.

    Attributes:
        precision: of the state and the network; bf16 and fp16 autocast the network over a float32 state.
        guidance: classifier-free guidance weight w of (1 + w) conditional - w unconditional.
        classifier_scale: of guidance by the classifier that a public model's card names; 0 for none.
        labels: of class-conditional models, `random` (uniform) or `balanced` (sample i is of class i modulo classes).
        reference_steps: of the reference solutions of PSNR and truncation, if not the usual number: a table that was
            learned from these is judged by finer ones.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    precision: Literal["float32", "float64", "bf16", "fp16"] = "float32"
    guidance: float = 0.0
    classifier_scale: float = Field(default=0.0, ge=0)
    labels: Literal["random", "balanced"] = "random"
    reference_steps: int | None = Field(default=None, ge=20, le=MOST_STEPS)

    @property
    def asked(self) -> Protocol:
        """These fields alone."""
        return Protocol(**{name: getattr(self, name) for name in Protocol.model_fields})
