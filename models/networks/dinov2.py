"""The vision transformers of DINOv2 (2304.07193) without registers, for their features: its names of weights.

They are for evaluation: there is no stochastic depth, and no patch is masked.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastsample.models.networks.attention import attend

__all__ = ["DINOV2", "DinoV2"]

# Width, depth and heads of each; the giant one has SwiGLU in place of two layers with GELU.
DINOV2 = {
    "vits14": (384, 12, 6), "vitb14": (768, 12, 12), "vitl14": (1024, 24, 16), "vitg14": (1536, 40, 24),
}  # fmt: skip
_PATCH = 14
_GRID = 37  # patches along a side of the images that it was trained on last


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(attend(q, k, v).transpose(1, 2).flatten(2))


class _Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class _SwiGLU(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = -(-int(4 * width * 2 / 3) // 8) * 8
        self.w12 = nn.Linear(width, 2 * hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.w12(x).chunk(2, -1)
        return self.w3(F.silu(gate) * value)


class _Scale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, gated: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = _Attention(width, heads)
        self.ls1 = _Scale(width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = _SwiGLU(width) if gated else _Mlp(width)
        self.ls2 = _Scale(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class DinoV2(nn.Module):
    """The class token of an image after the last norm.

    Args:
        width, depth, heads: as in `DINOV2`.
        gated: whether it has SwiGLU.
    """

    def __init__(self, width: int, depth: int, heads: int, gated: bool = False) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))  # of training; it is in the files
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + _GRID**2, width))
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, width, _PATCH, _PATCH)
        self.blocks = nn.ModuleList(_Block(width, heads, gated) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """[n, width] of images [n, 3, H, W] of ImageNet's mean and deviation, H and W multiples of 14."""
        x = self.patch_embed.proj(x)  # type: ignore[operator]
        positions = self._positions(*x.shape[2:])
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1) + positions
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 0]

    def _positions(self, height: int, width: int) -> Tensor:
        """[1, 1 + height * width, d]; between grids with a tenth of a patch more than there is, as in the original."""
        if (height, width) == (_GRID, _GRID):
            return self.pos_embed
        first, grid = self.pos_embed[:, :1], self.pos_embed[:, 1:].transpose(1, 2).unflatten(2, (_GRID, _GRID))
        factors = (height + 0.1) / _GRID, (width + 0.1) / _GRID
        return torch.cat([first, F.interpolate(grid, scale_factor=factors, mode="bicubic").flatten(2).mT], 1)
