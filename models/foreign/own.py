"""A network of one's own: what a function returns that `--model FILE.py:function` names.

    def model():
        return OwnModel(MyNetwork(), shape=(3, 32, 32), path="flow", prediction="velocity", data="cifar10")

The network is called as network(x, time) or network(x, time, labels), x [batch, *shape] and time [batch] in the dtype
of its parameters, and returns `prediction` in the shape of x. At t of the path

    time = time_scale * u + time_shift      u = t, sigma, sigma / alpha or its logarithm
    x is divided by `divided_by`            1, another number, or the root of d^2 alpha^2 + sigma^2
    sign * prediction is what it returns
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from fastsample.datasets.own.code import Code, fault
from fastsample.models.convention import Convention
from fastsample.models.denoiser import NetworkDenoiser, Prediction, column
from fastsample.models.path import Path, path_named

__all__ = [
    "OwnConvention",
    "OwnDenoiser",
    "OwnModel",
    "OwnModelError",
    "OwnNetwork",
    "Scale",
    "Time",
    "check",
    "own_model",
]

Time = Literal["t", "sigma", "nsr", "log-nsr"]
Scale = float | Literal["unit", "edm"]


class OwnModelError(ValueError):
    """A network of one's own that is not what it is said to be."""


@dataclass(frozen=True, kw_only=True)
class OwnConvention(Convention):
    """A convention of a network that was not made for this project.

    Attributes:
        time: u above: the path's t; its sigma; its noise-to-signal ratio sigma / alpha; or the logarithm of that.
        divided_by: what x is divided by before the network takes it: a number, or the standard deviation of x where
            that of the data is 1 ("unit") or 0.5 ("edm", c_in of arXiv 2206.00364).
        sign: -1 where the network returns the prediction with the other sign.
    """

    time: Time = "t"
    divided_by: Scale = 1.0
    sign: Literal[1, -1] = 1

    def label(self, t: float) -> float:
        """What the network is called with at t."""
        path = self.path
        if self.time in ("nsr", "log-nsr") and path.is_singular(t):
            t = path.t_finite
        match self.time:
            case "sigma":
                t = path.sigma(t)
            case "nsr":
                t = path.nsr(t)
            case "log-nsr":
                t = math.log(path.nsr(t))
        return super().label(t)

    def scale(self, t: float) -> float:
        """What x is divided by at t."""
        if isinstance(self.divided_by, str):
            return math.hypot(_OF_DATA[self.divided_by] * self.path.alpha(t), self.path.sigma(t))
        return self.divided_by

    def __str__(self) -> str:
        """As arguments of `OwnModel`; those that have their default are left out, but not path and prediction."""
        told = {name: getattr(self, name) for name in ("time_scale", "time_shift", "time", "divided_by", "sign")}
        kept = {name: value for name, value in told.items() if value != _DEFAULTS[name]}
        named = {"path": self.path.name, "prediction": self.prediction, **kept}
        return ", ".join(f"{name}={value!r}" for name, value in named.items())


_OF_DATA = {"unit": 1.0, "edm": 0.5}
_DEFAULTS = {field.name: field.default for field in fields(OwnConvention)}


class OwnDenoiser(NetworkDenoiser):
    """A network under an `OwnConvention`."""

    convention: OwnConvention

    def _guided(self, x: Tensor, times: Sequence[float], rows: list[int] | None = None) -> Tensor:
        scales = [self.convention.scale(t) for t in times]
        if set(scales) != {1.0}:
            x = x / (scales[0] if len(scales) == 1 else column(scales, x))
        f = super()._guided(x, times, rows)
        return f if self.convention.sign == 1 else -f


@dataclass(frozen=True)
class OwnModel:
    """A network with its convention.

    Attributes:
        network: a module, or any function of (x, time) or (x, time, labels); of a function no weights are known.
        shape: of one sample, without the batch: (3, 32, 32), (4, 64, 64), (1, 16000), (2,), ...
        path: of `fastsample.models.path`: a name, or a `Path` with constants and an interval of its own.
        prediction: x0, eps, velocity (dx/dt, t from noise to data on flow) or v (alpha eps - sigma x0).
        time, time_scale, time_shift: it is called with time_scale u + time_shift, u being the path's "t", its "sigma",
            sigma / alpha ("nsr") or the logarithm of that ("log-nsr").
        divided_by: what x is divided by before it is called: a number, or the standard deviation of x where that of the
            data is 1 ("unit") or 0.5 ("edm").
        sign: -1 where it returns the prediction with the other sign.
        classes: that it is conditioned on; 0 for none.
        labels: whether it takes classes as indices int64 [batch], or one-hot [batch, classes].
        null: it knows "no class", which guidance needs: the index `classes`, or zeros in one-hot.
        decode: makes images in [-1, 1], or whatever is to be looked at, of samples; a module or a function.
        data: the data set it models, as `list datasets` names it; "" where that is not known.
        title: one line for people.
        name: its id in tables; "" for the name of the function.
    """

    network: Callable[..., Tensor]
    shape: tuple[int, ...]
    path: str | Path = "flow"
    prediction: Prediction = "velocity"
    time: Time = "t"
    time_scale: float = 1.0
    time_shift: float = 0.0
    divided_by: Scale = 1.0
    sign: Literal[1, -1] = 1
    classes: int = 0
    labels: Literal["index", "one-hot"] = "index"
    null: bool = False
    decode: Callable[[Tensor], Tensor] | None = None
    data: str = ""
    title: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise OwnModelError(f"{name} is one of {', '.join(map(str, allowed))}, not {getattr(self, name)!r}")
        if not callable(self.network):
            raise OwnModelError(f"network is a function of (x, time), not {type(self.network).__name__}")
        if not self.shape or not all(isinstance(size, int) and size > 0 for size in self.shape):
            raise OwnModelError(f"shape is the sizes of one sample, such as (3, 32, 32), not {self.shape!r}")
        known = self.divided_by in _OF_DATA or (isinstance(self.divided_by, int | float) and self.divided_by > 0)
        if not known:
            raise OwnModelError(f"divided_by is a positive number, 'unit' or 'edm', not {self.divided_by!r}")
        if self.null and not self.classes:
            raise OwnModelError("null is for a network with classes")

    @property
    def convention(self) -> OwnConvention:
        """What its numbers mean."""
        return OwnConvention(
            path=path_named(self.path) if isinstance(self.path, str) else self.path, prediction=self.prediction,
            time_scale=self.time_scale, time_shift=self.time_shift, time=self.time, divided_by=self.divided_by,
            sign=self.sign,
        )  # fmt: skip


_CHOICES: dict[str, tuple[Any, ...]] = {
    "prediction": get_args(Prediction), "time": get_args(Time), "sign": (1, -1), "labels": ("index", "one-hot"),
}  # fmt: skip


class OwnNetwork(nn.Module):
    """The network of an `OwnModel`, and what decodes its samples, as one module that moves between devices."""

    def __init__(self, own: OwnModel) -> None:
        super().__init__()
        self.network, self.decoder = own.network, own.decode

    def forward(self, x: Tensor, time: Tensor, *labels: Tensor) -> Tensor:
        return self.network(x, time, *labels)

    def decode(self, x: Tensor) -> Tensor:
        """What samples are looked at as."""
        return x if self.decoder is None else self.decoder(x)

    @property
    def weights_sha256(self) -> str:
        """Of names, dtypes, shapes and bytes of all weights; of none where the network is a function."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def denoiser(
        self,
        own: OwnModel,
        convention: OwnConvention,
        module: nn.Module | None,
        classes: Tensor | None,
        guidance: float = 0.0,
        precision: str | None = None,
    ) -> OwnDenoiser:
        """The network, or a wrapper of it given as `module`, as a denoiser of samples of these classes.

        Raises:
            OwnModelError: for guidance of a network that knows no "no class".
        """
        if guidance and not own.null:
            raise OwnModelError("its network knows no missing class (null=True), which classifier-free guidance needs")
        given = null = None
        if classes is not None and own.labels == "one-hot":
            given = nn.functional.one_hot(classes, own.classes).float()
            null = torch.zeros_like(given)
        elif classes is not None:
            given, null = classes, torch.full_like(classes, own.classes)
        return OwnDenoiser(
            module or self, convention, labels=given, null_labels=null, guidance=guidance, precision=precision
        )


def own_model(code: Code) -> tuple[OwnModel, OwnNetwork]:
    """What a function of a user returns, with the network in float32 and eval mode; nothing is asked of it yet.

    Raises:
        OwnModelError: where it fails, or returns anything else than an `OwnModel`.
    """
    try:
        own = code.value() if callable(code.value) else code.value
        own = own if isinstance(own, OwnModel) else OwnModel(**own) if isinstance(own, dict) else own
    except Exception as error:  # of a user's code
        raise OwnModelError(f"{code.name} fails: {fault(error)}") from error
    if not isinstance(own, OwnModel):
        raise OwnModelError(
            f"{code.name} returns {type(own).__name__}, not an OwnModel of fastsample.models.foreign.own"
        )
    return own, OwnNetwork(own).float().eval().requires_grad_(False)


@torch.inference_mode()
def check(own: OwnModel, network: OwnNetwork) -> tuple[int, ...]:
    """Ask a network once at either end of its path; returns the shape of what its samples decode to.

    Raises:
        OwnModelError: where it cannot be called, returns another shape or dtype or numbers that are not finite, or does
            not heed the time.
    """
    denoiser = network.denoiser(own, own.convention, None, torch.zeros(1, dtype=torch.int64) if own.classes else None)
    like = next(network.parameters(), torch.zeros(()))
    x = torch.randn(1, *own.shape, generator=torch.Generator().manual_seed(0)).to(like)
    ends = own.convention.path.t_noise, own.convention.path.t_data
    first, last = (_answer(denoiser, x, t) for t in ends)
    if torch.equal(first, last):
        raise OwnModelError(
            f"the network does not heed the time: at {denoiser.convention.label(ends[0]):g} it returns what it does at "
            f"{denoiser.convention.label(ends[1]):g}"
        )
    try:
        return tuple(network.decode(x).shape[1:])
    except Exception as error:  # of a user's code
        raise OwnModelError(f"decode cannot be called on a sample {own.shape}: {fault(error)}") from error


def _answer(denoiser: OwnDenoiser, x: Tensor, t: float) -> Tensor:
    label = denoiser.convention.label(t)
    given = [] if denoiser.labels is None else [denoiser.labels.to(x.device)]
    called = f"network(x, time{', labels' if given else ''}) with x {tuple(x.shape)} and time {label:g}"
    try:
        f = denoiser.network(x, torch.full((1,), label, dtype=x.dtype, device=x.device), *given)
    except Exception as error:  # of a user's code
        raise OwnModelError(f"{called} fails: {fault(error)}") from error
    if not isinstance(f, Tensor):
        raise OwnModelError(f"{called} returns {type(f).__name__}, not a tensor in the shape of x")
    if f.shape != x.shape:
        raise OwnModelError(f"{called} returns {tuple(f.shape)}, not the shape of x")
    if f.dtype != x.dtype:
        raise OwnModelError(f"{called} returns {f.dtype}, not the dtype of x, {x.dtype}")
    if not f.isfinite().all():
        raise OwnModelError(f"{called} returns NaN or infinity")
    return f
