"""DiT (arXiv 2212.09748) and SiT (arXiv 2401.08740): transformers over patches of a latent image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastsample.models.networks.attention import attend
from fastsample.models.networks.embeddings import sinusoidal

__all__ = ["DiT", "SiT"]

_FREQUENCIES = 256  # width of the sinusoidal embedding of the time


class _PatchEmbed(nn.Module):
    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).mT


class _TimeEmbed(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(_FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        out: Tensor = self.mlp(sinusoidal(t, _FREQUENCIES))
        return out


class _LabelEmbed(nn.Module):
    """A table of classes; its last row is "no class", which replaces labels at random in training."""

    def __init__(self, num_classes: int, width: int, dropout: float) -> None:
        super().__init__()
        self.num_classes, self.dropout = num_classes, dropout
        self.embedding_table = nn.Embedding(num_classes + (dropout > 0), width)

    def forward(self, y: Tensor) -> Tensor:
        if self.training and self.dropout:
            y = torch.where(torch.rand(len(y), device=y.device) < self.dropout, self.num_classes, y)
        out: Tensor = self.embedding_table(y)
        return out


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        out: Tensor = self.proj(attend(q, k, v).transpose(1, 2).flatten(2))
        return out


class _MLP(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x), approximate="tanh"))
        return out


def _modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Normalise [batch, tokens, width] without weights, then scale and shift each sample."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=1e-6), 1 + scale)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.attn, self.mlp = _Attention(width, heads), _MLP(width, int(width * mlp_ratio))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(emb)[:, None].chunk(6, dim=-1)
        x = x + gate1 * self.attn(_modulated(x, shift1, scale1))
        out: Tensor = x + gate2 * self.mlp(_modulated(x, shift2, scale2))
        return out


class _FinalLayer(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, out)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        out: Tensor = self.linear(_modulated(x, *self.adaLN_modulation(emb)[:, None].chunk(2, dim=-1)))
        return out


def _position_table(side: int, width: int) -> Tensor:
    """[1, side^2, width], row-major: [sin, cos] of the column, then [sin, cos] of the row."""
    omega = 10000.0 ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angle = torch.arange(side, dtype=torch.float64)[:, None] * omega
    one = torch.cat([angle.sin(), angle.cos()], dim=1)
    return torch.cat([one.repeat(side, 1), one.repeat_interleave(side, dim=0)], dim=1)[None].float()


class DiT(nn.Module):
    """Diffusion transformer with adaLN-Zero conditioning.

    Args:
        input_size: side of the square latent in pixels.
        patch_size: side of a patch in pixels.
        in_channels: channels of the latent.
        hidden_size, depth, num_heads, mlp_ratio: of the transformer.
        class_dropout_prob: probability of dropping a label in training; with 0 there is no "no class".
        num_classes: number of classes; as a label, it means "no class".
        learn_sigma: the network also returns variances.
    """

    def __init__(
        self,
        input_size: int = 32,
        patch_size: int = 2,
        in_channels: int = 4,
        hidden_size: int = 1152,
        depth: int = 28,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        class_dropout_prob: float = 0.1,
        num_classes: int = 1000,
        learn_sigma: bool = True,
    ) -> None:
        super().__init__()
        self.patch, self.in_channels = patch_size, in_channels
        out = 2 * in_channels if learn_sigma else in_channels
        table = _position_table(input_size // patch_size, hidden_size)
        self.pos_embed = nn.Parameter(table, requires_grad=False)
        self.x_embedder = _PatchEmbed(in_channels, hidden_size, patch_size)
        self.t_embedder = _TimeEmbed(hidden_size)
        self.y_embedder = _LabelEmbed(num_classes, hidden_size, class_dropout_prob)
        self.blocks = nn.ModuleList(_Block(hidden_size, num_heads, mlp_ratio) for _ in range(depth))
        self.final_layer = _FinalLayer(hidden_size, patch_size**2 * out)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """The network's output, [batch, in_channels, R, R], or twice the channels with variances.

        Args:
            x: latents [batch, in_channels, R, R].
            t: [batch], times as the network was trained on; never rounded.
            y: class indices [batch], int64.
        """
        tokens = self.x_embedder(x) + self.pos_embed
        emb = self.t_embedder(t) + self.y_embedder(y)
        for block in self.blocks:
            tokens = block(tokens, emb)
        side = x.shape[-1] // self.patch
        patches = self.final_layer(tokens, emb).unflatten(2, (self.patch, self.patch, -1)).unflatten(1, (side, side))
        out: Tensor = patches.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
        return out

    def forward_with_cfg(self, x: Tensor, t: Tensor, y: Tensor, cfg_scale: float, channels: int = 3) -> Tensor:
        """Classifier-free guidance as published: u + cfg_scale (c - u), on the first `channels` channels only.

        Args:
            x: latents [2 n, in_channels, R, R]; only the first n are used, for both halves of the result.
            t: [2 n].
            y: [2 n], the classes, then n times "no class".
            cfg_scale: 1 for no guidance; 1 + w for the weight w of `--guidance`.
            channels: 3 as published; the number of channels of the latent to guide all of it.
        """
        half = x[: len(x) // 2]
        out = self(torch.cat([half, half]), t, y)
        given, none = out[:, :channels].chunk(2)
        guided = none + cfg_scale * (given - none)
        return torch.cat([torch.cat([guided, guided]), out[:, channels:]], dim=1)


class SiT(DiT):
    """DiT trained as a flow; where the network also has variance channels, they are dropped."""

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return super().forward(x, t, y)[:, : self.in_channels]
