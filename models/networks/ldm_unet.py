"""The U-Net of latent diffusion (arXiv 2112.10752): ADM's, with transformers at the places of attention where
the model is conditioned by cross-attention."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from fastsample.models.networks.adm_unet import ADMUNet
from fastsample.models.networks.attention import attend

__all__ = ["ClassTokenUNet", "ldm_unet"]


class _CrossAttention(nn.Module):
    def __init__(self, width: int, context_width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context_width, width, bias=False)
        self.to_v = nn.Linear(context_width, width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(width, width), nn.Dropout(dropout))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        q, k, v = (
            h.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for h in (self.to_q(x), self.to_k(context), self.to_v(context))
        )
        out: Tensor = self.to_out(attend(q, k, v).transpose(1, 2).flatten(2))
        return out


class _GEGLU(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * hidden)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        out: Tensor = value * F.gelu(gate)
        return out


class _FeedForward(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.net = nn.Sequential(_GEGLU(width, 4 * width), nn.Dropout(dropout), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


class _TransformerBlock(nn.Module):
    def __init__(self, width: int, context_width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.attn1 = _CrossAttention(width, width, heads, dropout)
        self.ff = _FeedForward(width, dropout)
        self.attn2 = _CrossAttention(width, context_width, heads, dropout)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        h = self.norm1(x)
        x = x + self.attn1(h, h)
        h = self.norm2(x)
        x = x + self.attn2(h, h if context is None else context)
        out: Tensor = x + self.ff(self.norm3(x))
        return out


class _SpatialTransformer(nn.Module):
    """Transformer blocks over the pixels of [batch, channels, height, width], added to their input."""

    def __init__(self, channels: int, heads: int, depth: int, context_width: int) -> None:
        super().__init__()
        width = channels // heads * heads
        self.norm = nn.GroupNorm(32, channels, eps=1e-6)
        self.proj_in = nn.Conv2d(channels, width, 1)
        self.transformer_blocks = nn.ModuleList(_TransformerBlock(width, context_width, heads) for _ in range(depth))
        self.proj_out = nn.Conv2d(width, channels, 1)

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        h = self.proj_in(self.norm(x))
        tokens = h.flatten(2).mT
        for block in self.transformer_blocks:
            tokens = block(tokens, context)
        out: Tensor = x + self.proj_out(tokens.mT.reshape(h.shape))
        return out


def ldm_unet(*, transformer_depth: int = 1, context_dim: int | None = None, **config: Any) -> ADMUNet:
    """The U-Net of a latent diffusion model.

    Args:
        transformer_depth: blocks per transformer.
        context_dim: width of the context tokens; None for plain self-attention.
        config: the arguments of ADMUNet.
    """
    if context_dim is None:
        return ADMUNet(**config)
    return ADMUNet(**config, attention=lambda c, heads: _SpatialTransformer(c, heads, transformer_depth, context_dim))


class ClassTokenUNet(nn.Module):
    """A U-Net with cross-attention whose context is one learned token per class, as in LDM's ImageNet models.

    Args:
        unet: made by `ldm_unet` with a `context_dim`.
        num_classes: rows of the embedding, the null class included where there is one (the last).
        context_dim: width of the tokens.
    """

    def __init__(self, unet: ADMUNet, num_classes: int, context_dim: int) -> None:
        super().__init__()
        self.unet = unet
        self.embedding = nn.Embedding(num_classes, context_dim)

    def forward(self, x: Tensor, timesteps: Tensor, y: Tensor) -> Tensor:
        """The network's output for latents x [batch, channels, height, width] and class indices y [batch]."""
        out: Tensor = self.unet(x, timesteps, context=self.embedding(y)[:, None])
        return out
