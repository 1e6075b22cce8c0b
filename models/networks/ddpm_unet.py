"""The U-Net of DDPM (arXiv 2006.11239) with the parameter names of DDIM's and pesser's PyTorch checkpoints."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastsample.models.networks.attention import attend
from fastsample.models.networks.embeddings import sinusoidal

__all__ = ["DDPMUNet", "Downsample", "Level", "Middle", "Upsample", "norm"]


def norm(channels: int) -> nn.GroupNorm:
    """The family's GroupNorm."""
    return nn.GroupNorm(32, channels, eps=1e-6)


class ResnetBlock(nn.Module):
    """Residual block; `emb` is the size of the time embedding that is added, 0 for none."""

    def __init__(self, cin: int, cout: int, emb: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.norm1, self.conv1 = norm(cin), nn.Conv2d(cin, cout, 3, padding=1)
        self.temb_proj = nn.Linear(emb, cout) if emb else None
        self.norm2, self.conv2 = norm(cout), nn.Conv2d(cout, cout, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(cin, cout, 1) if cin != cout else None

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        if self.temb_proj is not None and emb is not None:
            h = h + self.temb_proj(F.silu(emb))[:, :, None, None]
        h = self.conv2(F.dropout(F.silu(self.norm2(h)), self.dropout, self.training))
        return (x if self.nin_shortcut is None else self.nin_shortcut(x)) + h


class Attention(nn.Module):
    """Single-head self-attention over pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (layer(h).flatten(2).mT[:, None] for layer in (self.q, self.k, self.v))
        a = attend(q, k, v)[:, 0].mT.reshape(x.shape)
        return x + self.proj_out(a)


class Downsample(nn.Module):
    """Halving by a 3x3 convolution padded at the right and the bottom only, or by 2x2 averages."""

    def __init__(self, channels: int, learned: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2) if learned else None

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2) if self.conv is None else self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Doubling by nearest neighbours, then a 3x3 convolution if `learned`."""

    def __init__(self, channels: int, learned: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1) if learned else None

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return x if self.conv is None else self.conv(x)


class Level(nn.Module):
    """The blocks of one resolution, each followed by attention if there is any, then the resampling.

    Args:
        widths: channels into each block.
        out: channels out of each block.
        emb: size of the time embedding, 0 for none.
        attend: attend after each block.
        dropout: probability, in training mode.
        downsample, upsample: what follows the last block.
    """

    def __init__(
        self,
        widths: Sequence[int],
        out: int,
        emb: int,
        attend: bool,
        dropout: float,
        *,
        downsample: nn.Module | None = None,
        upsample: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResnetBlock(width, out, emb, dropout) for width in widths)
        self.attn = nn.ModuleList(Attention(out) for _ in widths if attend)
        self.downsample, self.upsample = downsample, upsample

    def forward(
        self,
        x: Tensor,
        emb: Tensor | None = None,
        *,
        kept: list[Tensor] | None = None,
        joined: list[Tensor] | None = None,
    ) -> Tensor:
        """All blocks and the resampling.

        What each of them returns is appended to `kept`; each block first joins the last element of
        `joined`, which it takes from the list, to its input.
        """
        kept = [] if kept is None else kept
        for index, block in enumerate(self.block):
            x = block(x if joined is None else torch.cat([x, joined.pop()], dim=1), emb)
            x = self.attn[index](x) if len(self.attn) else x
            kept.append(x)
        resample = self.downsample or self.upsample
        if resample is not None:
            x = resample(x)
            kept.append(x)
        return x


class Middle(nn.Module):
    """Block, attention, block at the lowest resolution."""

    def __init__(self, channels: int, emb: int, dropout: float) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels, emb, dropout)
        self.attn_1 = Attention(channels)
        self.block_2 = ResnetBlock(channels, channels, emb, dropout)

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        out: Tensor = self.block_2(self.attn_1(self.block_1(x, emb)), emb)
        return out


class _TimeEmbed(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.dense = nn.ModuleList([nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, 4 * channels)])

    def forward(self, t: Tensor) -> Tensor:
        emb = self.dense[0](sinusoidal(t, self.channels, endpoint=True, sin_first=True))
        out: Tensor = self.dense[1](F.silu(emb))
        return out


class DDPMUNet(nn.Module):
    """The noise predictor of DDPM; the argument names are those of DDIM's configurations.

    Args:
        resolution: side of the square images in pixels.
        in_channels, out_ch: colour channels in and out.
        ch: base width; widths are multiples of 32 channels.
        ch_mult: width of each level in units of `ch`; the levels halve the resolution.
        num_res_blocks: residual blocks per level (one more in the decoder).
        attn_resolutions: resolutions in pixels at which every block attends.
        dropout: probability, in training mode.
        resamp_with_conv: resample with learned convolutions.
    """

    def __init__(
        self,
        *,
        resolution: int,
        in_channels: int = 3,
        out_ch: int = 3,
        ch: int = 128,
        ch_mult: Sequence[int] = (1, 2, 2, 2),
        num_res_blocks: int = 2,
        attn_resolutions: Sequence[int] = (16,),
        dropout: float = 0.0,
        resamp_with_conv: bool = True,
    ) -> None:
        super().__init__()
        self.temb = _TimeEmbed(ch)
        self.conv_in = nn.Conv2d(in_channels, ch, 3, padding=1)
        self.down = nn.ModuleList()
        width, skips = ch, [ch]
        for level, mult in enumerate(ch_mult):
            widths, width, last = [width] + [ch * mult] * (num_res_blocks - 1), ch * mult, level == len(ch_mult) - 1
            down = None if last else Downsample(width, resamp_with_conv)
            attend = resolution >> level in attn_resolutions
            self.down.append(Level(widths, width, 4 * ch, attend, dropout, downsample=down))
            skips += [width] * (num_res_blocks if last else num_res_blocks + 1)
        self.mid = Middle(width, 4 * ch, dropout)
        up: list[nn.Module] = []
        for level, mult in reversed(list(enumerate(ch_mult))):
            widths = [before + skips.pop() for before in [width] + [ch * mult] * num_res_blocks]
            width = ch * mult
            resample = Upsample(width, resamp_with_conv) if level else None
            attend = resolution >> level in attn_resolutions
            up.insert(0, Level(widths, width, 4 * ch, attend, dropout, upsample=resample))
        self.up = nn.ModuleList(up)
        self.norm_out = norm(width)
        self.conv_out = nn.Conv2d(width, out_ch, 3, padding=1)

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        """The predicted noise, [batch, out_ch, R, R].

        Args:
            x: images [batch, in_channels, R, R].
            timesteps: [batch], 0 to 999 for the published networks; never rounded.
        """
        emb = self.temb(timesteps)
        x = self.conv_in(x)
        skips = [x]
        for level in self.down:
            x = level(x, emb, kept=skips)
        x = self.mid(x, emb)
        for level in reversed(self.up):
            x = level(x, emb, joined=skips)
        out: Tensor = self.conv_out(F.silu(self.norm_out(x)))
        return out
