"""Building blocks of the U-Nets of EDM (arXiv 2206.00364), with the parameter names of its checkpoints."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastsample.models.networks.attention import attend

__all__ = ["Block", "Conv", "Linear", "group_norm"]


class Linear(nn.Linear):
    """nn.Linear with Xavier-uniform weights and zero bias."""

    def reset_parameters(self) -> None:
        nn.init.xavier_uniform_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class Conv(nn.Module):
    """Convolution with optional FIR resampling by two; `kernel` 0 only resamples.

    With `fused`, the convolution comes before the decimating filter, with no padding between the two.
    The filter is stored in the state dict unless `stored_filter` is False.
    """

    weight: Tensor
    bias: Tensor | None
    resample_filter: Tensor

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel: int,
        *,
        up: bool = False,
        down: bool = False,
        taps: Sequence[float] = (1, 1),
        fused: bool = False,
        gain: float = 1.0,
        stored_filter: bool = True,
    ) -> None:
        super().__init__()
        self.out_channels, self.kernel, self.up, self.down, self.fused = cout, kernel, up, down, fused
        self.box = tuple(taps) == (1, 1)
        self.filter_pad = (len(taps) - 1) // 2
        self.register_parameter("weight", nn.Parameter(torch.empty(cout, cin, kernel, kernel)) if kernel else None)
        self.register_parameter("bias", nn.Parameter(torch.zeros(cout)) if kernel else None)
        if kernel:
            nn.init.xavier_uniform_(self.weight, gain)
        row = torch.tensor(taps, dtype=torch.float32)
        taps_2d = (row[:, None] * row)[None, None] / row.sum() ** 2 if up or down else None
        self.register_buffer("resample_filter", taps_2d, persistent=stored_filter)

    def _fir(self, x: Tensor, pad: int) -> Tensor:
        """Resample by two. The box filter has library kernels that are far faster than a grouped convolution."""
        channels = x.shape[1]
        if self.up:
            if self.box:
                return F.interpolate(x, scale_factor=2.0, mode="nearest")
            taps = (4 * self.resample_filter).to(x.dtype).expand(channels, 1, -1, -1)
            return F.conv_transpose2d(x, taps, groups=channels, stride=2, padding=pad)
        if self.box:
            return F.avg_pool2d(x, 2, padding=pad)
        taps = self.resample_filter.to(x.dtype).expand(channels, 1, -1, -1)
        return F.conv2d(x, taps, groups=channels, stride=2, padding=pad)

    def forward(self, x: Tensor) -> Tensor:
        if self.fused:
            x = F.conv2d(x, self.weight, self.bias, padding=self.kernel // 2 + self.filter_pad)
            return self._fir(x, 0)
        if self.up or self.down:
            x = self._fir(x, self.filter_pad)
        return F.conv2d(x, self.weight, self.bias, padding=self.kernel // 2) if self.kernel else x


def group_norm(channels: int, eps: float) -> nn.GroupNorm:
    """GroupNorm with at most 32 groups of at least four channels."""
    return nn.GroupNorm(min(32, channels // 4), channels, eps=eps)


class Block(nn.Module):
    """Residual block with an embedding, optional resampling and optional self-attention.

    Args:
        cin, cout: channels in and out.
        emb: size of the embedding.
        attention: attend after the convolutions.
        up, down: resample by two on the way, with the filter `taps`.
        adaptive_scale: the embedding scales and shifts the second normalisation instead of being added before it.
        head_channels: channels per attention head, None for a single head; a block narrower than
            one head does not attend.
        skip_scale: factor of every sum of two branches.
        resample_proj: the skip path has a 1x1 convolution wherever it resamples.
        eps: of every GroupNorm.
    """

    def __init__(
        self,
        cin: int,
        cout: int,
        emb: int,
        *,
        attention: bool = False,
        up: bool = False,
        down: bool = False,
        taps: Sequence[float] = (1, 1),
        dropout: float = 0.0,
        adaptive_scale: bool,
        head_channels: int | None,
        skip_scale: float,
        resample_proj: bool,
        eps: float,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.dropout = cin, cout, dropout
        self.adaptive_scale, self.skip_scale = adaptive_scale, skip_scale
        self.heads = 0 if not attention else cout // head_channels if head_channels else 1
        self.norm0 = group_norm(cin, eps)
        self.conv0 = Conv(cin, cout, 3, up=up, down=down, taps=taps)
        self.affine = Linear(emb, 2 * cout if adaptive_scale else cout)
        self.norm1 = group_norm(cout, eps)
        self.conv1 = Conv(cout, cout, 3, gain=1e-5)
        kernel = 1 if cin != cout or resample_proj else 0
        self.skip = Conv(cin, cout, kernel, up=up, down=down, taps=taps) if up or down or cin != cout else None
        self.norm2 = group_norm(cout, eps) if self.heads else None
        self.qkv = Conv(cout, 3 * cout, 1, gain=math.sqrt(0.2)) if self.heads else None
        self.proj = Conv(cout, cout, 1, gain=1e-5) if self.heads else None

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv0(F.silu(self.norm0(x)))
        emb = self.affine(emb)[:, :, None, None]
        if self.adaptive_scale:
            scale, shift = emb.chunk(2, dim=1)
            h = F.silu(torch.addcmul(shift, self.norm1(h), scale + 1))
        else:
            h = F.silu(self.norm1(h + emb))
        h = self.conv1(F.dropout(h, self.dropout, self.training))
        x = (h + (x if self.skip is None else self.skip(x))) * self.skip_scale
        if self.norm2 is None or self.qkv is None or self.proj is None:
            return x
        # Channels of qkv run as (head, channel, {q, k, v}); SDPA wants [batch, heads, tokens, channels].
        q, k, v = self.qkv(self.norm2(x)).flatten(2).unflatten(1, (self.heads, -1, 3)).permute(3, 0, 1, 4, 2)
        a = attend(q, k, v).mT.reshape(x.shape)
        return (x + self.proj(a)) * self.skip_scale
