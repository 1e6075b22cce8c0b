"""In what precision a network computes, over a state, times and preconditioning in float32 (float64 for float64).

float32   matrix products and convolutions in float32, whatever the process has set
tf32      these in TF32's 10 bits, on GPUs that have it
bf16      these under autocast in bfloat16, with weights that were cast once
fp16      the same in float16
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch  # as in `models.denoiser`
    from torch import nn

__all__ = ["computing", "half_dtype", "halved", "matmul", "whole_dtype"]


def half_dtype(precision: str | None) -> torch.dtype | None:
    """The dtype of the products of bf16 and fp16; None for the others."""
    import torch

    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision or "")


def whole_dtype(precision: str) -> torch.dtype:
    """The dtype of state, times and preconditioning."""
    import torch

    return torch.float64 if precision == "float64" else torch.float32


@contextmanager
def matmul(precision: Literal["float32", "tf32"]) -> Iterator[None]:
    """Matrix products and convolutions of float32 in that precision; what was set before comes back at the end.

    PyTorch leaves TF32 on for convolutions, and with it a difference of two outputs is noise below 1e-3 of their size.
    It is a setting of the process, so of all its threads.
    """
    from torch.backends import cuda, cudnn

    before = cuda.matmul.allow_tf32, cudnn.allow_tf32
    cuda.matmul.allow_tf32 = cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        cuda.matmul.allow_tf32, cudnn.allow_tf32 = before


@contextmanager
def computing(precision: str | None, device: torch.device) -> Iterator[None]:
    """A network's call in that precision; None is that of its weights, without TF32."""
    import torch

    half = half_dtype(precision)
    cast = torch.autocast(device.type, half) if half else nullcontext()
    with matmul("tf32" if precision == "tf32" else "float32"), cast:
        yield


def halved(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy with the weights of its convolutions and matrix products in half precision, for calls under autocast.

    Autocast casts a frozen weight at each call, but takes one of its own dtype as it is. Norms, embeddings, positions
    and buffers stay as they are, shared with the network. A module whose weights are not multiplied with as they are
    has a `settle(dtype)`.
    """
    from torch import nn

    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    copied = copy.deepcopy(network, shared)
    for module in copied.modules():
        if hasattr(module, "settle"):
            module.settle(dtype)  # type: ignore[operator]
        elif _multiplies(module):
            for name, value in list(module.named_parameters(recurse=False)):
                setattr(module, name, nn.Parameter(value.to(dtype), requires_grad=False))
    return copied


def _multiplies(module: nn.Module) -> bool:
    """Whether its own parameters are a matrix or a kernel, with a bias."""
    from torch import nn

    own = module.named_parameters(recurse=False)
    return not isinstance(module, nn.Embedding | nn.EmbeddingBag) and any(
        value.ndim > 1 and (name.endswith("weight") or name == "W") for name, value in own
    )
