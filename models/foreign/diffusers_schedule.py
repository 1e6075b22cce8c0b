"""What a network of a diffusers pipeline takes and returns, from the configuration of its scheduler.

A scheduler of betas is a path of as many entries, whose network is called at N t - 1; a flow is the linear path, whose
network is called at N sigma and returns noise - data; schedulers of EDM and of the VE path know sigma itself. What a
scheduler does while sampling (spacing, shift, clipping) belongs to a solver and its grid, and not to the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastsample.models.checkpoints import CheckpointError
from fastsample.models.convention import Convention
from fastsample.models.denoiser import Prediction
from fastsample.models.foreign.diffusers_files import PipelineFolder
from fastsample.models.path import DiscreteVP, Edm, LinearFlow
from fastsample.models.public.model import integrable

__all__ = ["PREDICTION_TYPES", "Schedule", "schedule_of"]

# prediction_type of diffusers: our prediction, and its sign there (a flow network returns noise - data)
PREDICTION_TYPES: dict[str, tuple[Prediction, float]] = {
    "epsilon": ("eps", 1.0),
    "sample": ("x0", 1.0),
    "v_prediction": ("v", 1.0),
    "flow_prediction": ("velocity", -1.0),
}
_FLOW = {"FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"}
_EDM = {"EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"}
_VE = {"ScoreSdeVeScheduler"}
_BETAS = {
    "DDIMParallelScheduler", "DDIMScheduler", "DDPMParallelScheduler", "DDPMScheduler", "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler", "KDPM2DiscreteScheduler", "LMSDiscreteScheduler", "PNDMScheduler",
    "SASolverScheduler", "UniPCMultistepScheduler",
}  # fmt: skip


@dataclass(frozen=True)
class Schedule:
    """How a network is called.

    Attributes:
        convention: of what is made of its output.
        sign: its output times this is the prediction.
        sigma_data: of EDM's preconditioning, which is the pipeline's and not the network's; 0 for none.
        score: it returns the score at sigma, and its images are in [0, 1].
        grid: the shift of the times that its scheduler takes, as `--grid` takes it; "" for none.
    """

    convention: Convention
    sign: float = 1.0
    sigma_data: float = 0.0
    score: bool = False
    grid: str = ""


def schedule_of(folder: PipelineFolder) -> Schedule:
    """How the network of a pipeline is called.

    Raises:
        CheckpointError: for a scheduler or a prediction that is not known.
    """
    name, facts = folder.parts["scheduler"], folder.config("scheduler")
    if name not in _FLOW | _EDM | _VE | _BETAS:
        raise CheckpointError(f"{folder.id}: its scheduler is a {name}, and what its network returns is not known")
    config = folder.load("scheduler").config  # with the defaults of what is not in the file
    if name in _VE:
        return Schedule(_sigmas(config, "eps"), sign=-1.0, score=True)
    if name in _EDM:
        kind = _prediction(folder, config)[0]
        if kind not in ("eps", "v"):
            raise CheckpointError(f"{folder.id}: EDM's preconditioning is of epsilon or v_prediction, not {kind}")
        return Schedule(_sigmas(config, "x0"), sign=1.0 if kind == "eps" else -1.0, sigma_data=config["sigma_data"])
    steps = config["num_train_timesteps"]
    if name in _FLOW or config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction":
        shift = config.get("shift" if name in _FLOW else "flow_shift") or 1.0
        grid = "" if shift == 1 or facts.get("use_dynamic_shifting") else f"shift:s={shift:g}"
        return Schedule(Convention(LinearFlow(), "velocity", -float(steps), float(steps)), sign=-1.0, grid=grid)
    kind, sign = _prediction(folder, config)
    betas = tuple(folder.load("scheduler").betas.double().tolist())
    path = integrable(
        DiscreteVP(betas=betas, t_data=1 / steps), kind, cosine=config.get("beta_schedule") == "squaredcos_cap_v2"
    )
    return Schedule(Convention(path, kind, float(steps), -1.0), sign=sign)


def _prediction(folder: PipelineFolder, config: Mapping[str, Any]) -> tuple[Prediction, float]:
    name = config.get("prediction_type", "epsilon")
    if name not in PREDICTION_TYPES:
        raise CheckpointError(f"{folder.id}: unknown prediction_type {name!r}; known: {', '.join(PREDICTION_TYPES)}")
    return PREDICTION_TYPES[name]


def _sigmas(config: Mapping[str, Any], prediction: Prediction) -> Convention:
    low, high = float(config["sigma_min"]), float(config["sigma_max"])
    return Convention(Edm(t_noise=high, t_data=low, prior_std=high), prediction)
