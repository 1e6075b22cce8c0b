"""NCSN++, DDPM++ and DDPM with the parameter names of score_sde (arXiv 2011.13456) and of RectifiedFlow (2209.03003).

Their checkpoints hold one flat list of modules, so the order of construction is the order of the keys and
of the averaged weights.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastsample.models.networks.attention import attend
from fastsample.models.networks.edm_blocks import Conv, group_norm
from fastsample.models.networks.embeddings import sinusoidal

__all__ = ["NCSNpp"]

_EPS = 1e-6  # of every GroupNorm


class _Fourier(nn.Module):
    """[sin, cos] of 2 pi W t; W belongs to the checkpoint, but not to the averaged weights."""

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.randn(channels) * scale, requires_grad=False)

    def forward(self, t: Tensor) -> Tensor:
        angle = t[:, None] * (2 * math.pi * self.W)
        return torch.cat([angle.sin(), angle.cos()], dim=1)


class _NIN(nn.Module):
    """1x1 convolution with a matrix [in, out]."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.W = nn.Parameter(nn.init.xavier_uniform_(torch.empty(cin, cout)))
        self.b = nn.Parameter(torch.zeros(cout))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.W.T[:, :, None, None], self.b)


class _Resnet(nn.Module):
    """Residual block; `plain` is DDPM's, with 32 groups, a NIN shortcut and no rescaling."""

    def __init__(
        self,
        cin: int,
        cout: int,
        emb: int,
        dropout: float,
        scale: float,
        plain: bool,
        up: bool = False,
        down: bool = False,
        taps: Sequence[float] = (1, 1),
    ) -> None:
        super().__init__()
        self.dropout, self.scale = dropout, scale
        self.GroupNorm_0 = _norm(cin, plain)
        self.Conv_0 = Conv(cin, cout, 3, up=up, down=down, taps=taps, stored_filter=False)
        self.Dense_0 = nn.Linear(emb, cout)
        self.GroupNorm_1 = _norm(cout, plain)
        self.Conv_1 = Conv(cout, cout, 3)
        self.Conv_2 = self.NIN_0 = None
        if plain and cin != cout:
            self.NIN_0 = _NIN(cin, cout)
        elif cin != cout or up or down:
            self.Conv_2 = Conv(cin, cout, 1, up=up, down=down, taps=taps, stored_filter=False)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.Conv_0(F.silu(self.GroupNorm_0(x)))
        h = h + self.Dense_0(F.silu(emb))[:, :, None, None]
        h = self.Conv_1(F.dropout(F.silu(self.GroupNorm_1(h)), self.dropout, self.training))
        shortcut = self.Conv_2 or self.NIN_0
        return ((x if shortcut is None else shortcut(x)) + h) * self.scale


class _Attention(nn.Module):
    """Single-head self-attention over pixels."""

    def __init__(self, channels: int, scale: float, plain: bool) -> None:
        super().__init__()
        self.scale = scale
        self.GroupNorm_0 = _norm(channels, plain)
        self.NIN_0, self.NIN_1, self.NIN_2, self.NIN_3 = (_NIN(channels, channels) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.GroupNorm_0(x)
        q, k, v = (layer(h).flatten(2).mT[:, None] for layer in (self.NIN_0, self.NIN_1, self.NIN_2))
        a = attend(q, k, v)[:, 0].mT.reshape(x.shape)
        return (x + self.NIN_3(a)) * self.scale


class _Combine(nn.Module):
    """The input pyramid joins the features, by sum or by concatenation, after a 1x1 convolution."""

    def __init__(self, cin: int, cout: int, method: str) -> None:
        super().__init__()
        self.method = method
        self.Conv_0 = Conv(cin, cout, 1)

    def forward(self, pyramid: Tensor, h: Tensor) -> Tensor:
        pyramid = self.Conv_0(pyramid)
        return torch.cat([pyramid, h], dim=1) if self.method == "cat" else pyramid + h


def _norm(channels: int, plain: bool) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=_EPS) if plain else group_norm(channels, _EPS)


def _named(**modules: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(modules))


def _strided(cin: int, cout: int) -> nn.Sequential:
    """DDPM's halving convolution, padded at the right and the bottom only."""
    return _named(pad=nn.ZeroPad2d((0, 1, 0, 1)), Conv_0=nn.Conv2d(cin, cout, 3, stride=2))


class NCSNpp(nn.Module):
    """The score networks of score_sde and the velocity networks of RectifiedFlow.

    The argument names are those of their configurations. Defaults are DDPM++; NCSN++ has `fir` and a
    Fourier embedding, with a residual input pyramid (32 pixels) or input and output skips (256 pixels).

    Args:
        image_size: side of the square images in pixels.
        num_channels: colour channels.
        centered: the data are in [-1, 1]; False: in [0, 1], and the network maps its input to [-1, 1].
        nf: base width.
        ch_mult: width of each level in units of `nf`; the levels halve the resolution.
        num_res_blocks: residual blocks per level (one more in the decoder).
        attn_resolutions: resolutions in pixels at which the network attends.
        dropout: probability, in training mode.
        resamp_with_conv: resample with learned convolutions (`plain` networks only).
        fir, fir_kernel: resample with this FIR filter of even length instead of averages and copies.
        skip_rescale: divide the sum of two branches by sqrt(2).
        progressive: "none" or "output_skip".
        progressive_input: "none", "input_skip" or "residual".
        progressive_combine: "sum" or "cat", how an input skip joins.
        embedding_type: "positional" in the time, or "fourier" in its logarithm.
        fourier_scale: standard deviation of the frequencies.
        scale_by_sigma: divide the output by the noise level: the time itself with "fourier", else sigmas[time].
        sigma_min, sigma_max, num_scales: the geometric table `sigmas`, from large to small.
        plain: the older DDPM architecture; it takes neither pyramids, FIR filters, Fourier embedding nor rescaling.

    Raises:
        ValueError: for an unknown progressive, combination or embedding type.
    """

    sigmas: Tensor

    def __init__(
        self,
        *,
        image_size: int,
        num_channels: int = 3,
        centered: bool = True,
        nf: int = 128,
        ch_mult: Sequence[int] = (1, 2, 2, 2),
        num_res_blocks: int = 4,
        attn_resolutions: Sequence[int] = (16,),
        dropout: float = 0.1,
        resamp_with_conv: bool = True,
        fir: bool = False,
        fir_kernel: Sequence[float] = (1, 3, 3, 1),
        skip_rescale: bool = True,
        progressive: str = "none",
        progressive_input: str = "none",
        progressive_combine: str = "sum",
        embedding_type: str = "positional",
        fourier_scale: float = 16.0,
        scale_by_sigma: bool = False,
        sigma_min: float = 0.01,
        sigma_max: float = 50.0,
        num_scales: int = 1000,
        plain: bool = False,
    ) -> None:
        super().__init__()
        for value, known in (
            (progressive, ("none", "output_skip")),
            (progressive_input, ("none", "input_skip", "residual")),
            (progressive_combine, ("sum", "cat")),
            (embedding_type, ("positional", "fourier")),
        ):
            if value not in known:
                raise ValueError(f"NCSNpp: unknown type {value!r}; known: {', '.join(known)}")
        if plain:
            progressive = progressive_input = "none"
            embedding_type, skip_rescale, fir = "positional", False, False
        self.nf, self.num_res_blocks, self.levels = nf, num_res_blocks, len(ch_mult)
        self.attends = [image_size >> level in attn_resolutions for level in range(self.levels)]
        self.centered, self.scale_by_sigma, self.fourier = centered, scale_by_sigma, embedding_type == "fourier"
        self.progressive, self.progressive_input, self.plain = progressive, progressive_input, plain
        self.scale = math.sqrt(0.5) if skip_rescale else 1.0
        taps = tuple(fir_kernel) if fir else (1, 1)
        emb = 4 * nf
        self.register_buffer(
            "sigmas", torch.tensor(np.exp(np.linspace(math.log(sigma_max), math.log(sigma_min), num_scales)))
        )
        self.pyramid_down = Conv(num_channels, num_channels, 0, down=True, taps=taps, stored_filter=False)
        self.pyramid_up = Conv(num_channels, num_channels, 0, up=True, taps=taps, stored_filter=False)

        def block(cin: int, cout: int, *, up: bool = False, down: bool = False) -> nn.Module:
            return _Resnet(cin, cout, emb, dropout, self.scale, plain, up=up, down=down, taps=taps)

        def resample(channels: int, *, up: bool) -> nn.Module:
            if not plain:
                return block(channels, channels, up=up, down=not up)
            if up or not resamp_with_conv:
                kernel = 3 if resamp_with_conv else 0
                return _named(Conv_0=Conv(channels, channels, kernel, up=up, down=not up, stored_filter=False))
            return _strided(channels, channels)

        layers: list[nn.Module] = [_Fourier(nf, fourier_scale)] if self.fourier else []
        layers += [nn.Linear(2 * nf if self.fourier else nf, emb), nn.Linear(emb, emb)]
        layers.append(Conv(num_channels, nf, 3))
        width, skips, pyramid = nf, [nf], num_channels
        for level, mult in enumerate(ch_mult):
            for _ in range(num_res_blocks):
                layers.append(block(width, nf * mult))
                width = nf * mult
                layers += [_Attention(width, self.scale, plain)] if self.attends[level] else []
                skips.append(width)
            if level < self.levels - 1:
                layers.append(resample(width, up=False))
                if progressive_input == "input_skip":
                    layers.append(_Combine(pyramid, width, progressive_combine))
                    width *= 2 if progressive_combine == "cat" else 1
                elif progressive_input == "residual":
                    fused = Conv(pyramid, width, 3, down=True, taps=taps, fused=True, stored_filter=False)
                    layers.append(_named(Conv2d_0=fused) if fir else _strided(pyramid, width))
                    pyramid = width
                skips.append(width)
        layers += [block(width, width), _Attention(width, self.scale, plain), block(width, width)]
        for level, mult in reversed(list(enumerate(ch_mult))):
            for _ in range(num_res_blocks + 1):
                layers.append(block(width + skips.pop(), nf * mult))
                width = nf * mult
            layers += [_Attention(width, self.scale, plain)] if self.attends[level] else []
            if progressive == "output_skip" or level == 0:
                layers += [_norm(width, plain), Conv(width, num_channels, 3)]
            if level:
                layers.append(resample(width, up=True))
        self.all_modules = nn.ModuleList(layers)

    def forward(self, x: Tensor, time_cond: Tensor) -> Tensor:
        """The network's output, [batch, channels, R, R], in the dtype of x.

        Args:
            x: images [batch, channels, R, R].
            time_cond: [batch], what the network was trained on (noise level, or scaled time); never rounded
                for the embedding.
        """
        # The modules are used in the order of the list.
        layers: Iterator[nn.Module] = iter(self.all_modules)
        emb = (
            next(layers)(time_cond.log())
            if self.fourier
            else sinusoidal(time_cond, self.nf, endpoint=True, sin_first=True)
        )
        emb = next(layers)(emb)
        emb = next(layers)(F.silu(emb))

        def resample(h: Tensor) -> Tensor:
            out: Tensor = next(layers)(h) if self.plain else next(layers)(h, emb)
            return out

        pyramid = x if self.centered else 2 * x - 1
        h = next(layers)(pyramid)
        skips = [h]
        for level in range(self.levels):
            for _ in range(self.num_res_blocks):
                h = next(layers)(h, emb)
                h = next(layers)(h) if self.attends[level] else h
                skips.append(h)
            if level < self.levels - 1:
                h = resample(h)
                if self.progressive_input == "input_skip":
                    pyramid = self.pyramid_down(pyramid)
                    h = next(layers)(pyramid, h)
                elif self.progressive_input == "residual":
                    h = pyramid = (next(layers)(pyramid) + h) * self.scale
                skips.append(h)
        h = next(layers)(h, emb)
        h = next(layers)(h)
        h = next(layers)(h, emb)
        out: Tensor | None = None
        for level in reversed(range(self.levels)):
            for _ in range(self.num_res_blocks + 1):
                h = next(layers)(torch.cat([h, skips.pop()], dim=1), emb)
            h = next(layers)(h) if self.attends[level] else h
            if self.progressive == "output_skip" or level == 0:
                image = F.silu(next(layers)(h))
                image = next(layers)(image)
                out = image if out is None else self.pyramid_up(out) + image
            h = resample(h) if level else h
        assert out is not None
        if self.scale_by_sigma:
            sigma = time_cond if self.fourier else self.sigmas[time_cond.long()].to(x.dtype)
            out = out / sigma.reshape(-1, 1, 1, 1)
        return out
