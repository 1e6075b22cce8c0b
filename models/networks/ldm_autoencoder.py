"""First stages of latent diffusion (arXiv 2112.10752): the KL autoencoder (Stability's too) and the VQ one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastsample.models.networks.ddpm_unet import Downsample, Level, Middle, Upsample, norm

__all__ = ["AutoencoderKL", "AutoencoderVQ"]

_Levels = Sequence[tuple[int, bool]]  # (width, attention) from the highest resolution to the lowest


class _Encoder(nn.Module):
    def __init__(self, cin: int, cout: int, width: int, levels: _Levels, blocks: int, dropout: float) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(cin, width, 3, padding=1)
        self.down = nn.ModuleList()
        for index, (out, attend) in enumerate(levels):
            widths, width = [width] + [out] * (blocks - 1), out
            down = Downsample(width) if index < len(levels) - 1 else None
            self.down.append(Level(widths, width, 0, attend, dropout, downsample=down))
        self.mid = Middle(width, 0, dropout)
        self.norm_out, self.conv_out = norm(width), nn.Conv2d(width, cout, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        out: Tensor = self.conv_out(F.silu(self.norm_out(self.mid(x))))
        return out


class _Decoder(nn.Module):
    def __init__(self, cin: int, cout: int, levels: _Levels, blocks: int, dropout: float) -> None:
        super().__init__()
        width = levels[-1][0]
        self.conv_in = nn.Conv2d(cin, width, 3, padding=1)
        self.mid = Middle(width, 0, dropout)
        up: list[nn.Module] = []
        for index, (out, attend) in reversed(list(enumerate(levels))):
            widths, width = [width] + [out] * blocks, out
            up.insert(0, Level(widths, width, 0, attend, dropout, upsample=Upsample(width) if index else None))
        self.up = nn.ModuleList(up)
        self.norm_out, self.conv_out = norm(width), nn.Conv2d(width, cout, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid(self.conv_in(x))
        for level in reversed(self.up):
            x = level(x)
        out: Tensor = self.conv_out(F.silu(self.norm_out(x)))
        return out


class _FirstStage(nn.Module):
    """Encoder, latent, decoder; the argument names are those of the published configurations.

    Args:
        embed_dim: channels of the latent.
        z_channels: channels between encoder and latent.
        resolution: side of the square images in pixels; the latent is 2^(levels - 1) times smaller.
        in_channels, out_ch: colour channels in and out.
        ch: base width; widths are multiples of 32 channels.
        ch_mult: width of each level in units of `ch`.
        num_res_blocks: residual blocks per level (one more in the decoder).
        attn_resolutions: resolutions in pixels at which every block attends.
        dropout: probability, in training mode.
        moments: numbers that the encoder gives per latent channel.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        z_channels: int,
        resolution: int,
        in_channels: int,
        out_ch: int,
        ch: int,
        ch_mult: Sequence[int],
        num_res_blocks: int,
        attn_resolutions: Sequence[int],
        dropout: float = 0.0,
        moments: int,
    ) -> None:
        super().__init__()
        levels = [(ch * mult, resolution >> level in attn_resolutions) for level, mult in enumerate(ch_mult)]
        self.encoder = _Encoder(in_channels, moments * z_channels, ch, levels, num_res_blocks, dropout)
        self.decoder = _Decoder(z_channels, out_ch, levels, num_res_blocks, dropout)
        self.quant_conv = nn.Conv2d(moments * z_channels, moments * embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(embed_dim, z_channels, 1)

    def decode(self, z: Tensor) -> Tensor:
        """Images, about in [-1, 1] and not clipped, from unscaled latents [batch, embed_dim, h, w]."""
        out: Tensor = self.decoder(self.post_quant_conv(z))
        return out


class AutoencoderKL(_FirstStage):
    """The autoencoder with a Gaussian latent."""

    def __init__(self, **config: Any) -> None:
        super().__init__(**config, moments=2)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(mean, log variance) of the latents of images in [-1, 1], each [batch, embed_dim, h, w]."""
        mean, logvar = self.quant_conv(self.encoder(x)).chunk(2, dim=1)
        return mean, logvar.clamp(-30.0, 20.0)


class _Codebook(nn.Module):
    def __init__(self, codes: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codes, width)


class AutoencoderVQ(_FirstStage):
    """The autoencoder with a codebook of `n_embed` entries; diffusion runs on latents before they are quantised."""

    def __init__(self, *, n_embed: int, embed_dim: int, **config: Any) -> None:
        super().__init__(**config, embed_dim=embed_dim, moments=1)
        self.quantize = _Codebook(n_embed, embed_dim)

    def encode(self, x: Tensor) -> Tensor:
        """Latents [batch, embed_dim, h, w], not quantised, of images in [-1, 1]."""
        out: Tensor = self.quant_conv(self.encoder(x))
        return out

    def codes(self, z: Tensor) -> Tensor:
        """Index of the nearest code for each pixel of latents [batch, embed_dim, h, w]: int64 [batch, h, w]."""
        book = self.quantize.embedding.weight
        flat = z.movedim(1, -1).flatten(0, -2)
        # |z - e|^2 without |z|^2, which is the same for every code e.
        return torch.addmm(book.square().sum(1), flat, book.T, alpha=-2).argmin(1).reshape(len(z), *z.shape[2:])

    def quantized(self, z: Tensor) -> Tensor:
        """The nearest codes in place of latents [batch, embed_dim, h, w]."""
        out: Tensor = self.quantize.embedding(self.codes(z)).movedim(-1, 1)
        return out

    def decode(self, z: Tensor, quantize: bool = True) -> Tensor:
        """Images, about in [-1, 1] and not clipped, from latents [batch, embed_dim, h, w]; quantised first or not."""
        return super().decode(self.quantized(z) if quantize else z)
