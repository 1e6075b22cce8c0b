"""Attention as every network here computes it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["attend"]


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(channels)) v of tensors [batch, heads, tokens, channels].

    torch's fused kernels take only tensors whose channels lie side by side in memory; for others it falls back, in
    silence, on one that writes all products [batch, heads, tokens, tokens].
    """
    q, k, v = (t if t.stride(-1) == 1 else t.contiguous() for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v)
