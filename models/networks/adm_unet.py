"""The networks of improved and guided diffusion (iDDPM, arXiv 2102.09672; ADM, arXiv 2105.05233).

The flow models of torchcfm, OpenAI's consistency models and latent diffusion use the same U-Net;
all share its parameter names. It is called with the time step itself, in whatever unit it was trained on.
The classifier that guides ADM is the first half of that U-Net.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastsample.models.networks.attention import attend
from fastsample.models.networks.embeddings import sinusoidal

__all__ = ["ADMClassifier", "ADMUNet"]


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-5)


class _Resample(nn.Module):
    """Halving (3x3 convolution of stride 2 under the name `op`) or doubling (nearest, then `conv`).

    Without learned weights: 2x2 averages and nearest neighbours.
    """

    def __init__(self, channels: int, up: bool, learned: bool) -> None:
        super().__init__()
        self.up = up
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1) if learned and not up else None
        self.conv = nn.Conv2d(channels, channels, 3, padding=1) if learned and up else None

    def forward(self, x: Tensor) -> Tensor:
        if self.up:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            return x if self.conv is None else self.conv(x)
        return F.avg_pool2d(x, 2) if self.op is None else self.op(x)


class _ResBlock(nn.Module):
    def __init__(
        self, cin: int, cout: int, emb: int, dropout: float, scale_shift: bool, resample: _Resample | None = None
    ) -> None:
        super().__init__()
        self.scale_shift, self.resample = scale_shift, resample
        self.in_layers = nn.Sequential(_norm(cin), nn.SiLU(), nn.Conv2d(cin, cout, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb, 2 * cout if scale_shift else cout))
        self.out_layers = nn.Sequential(
            _norm(cout), nn.SiLU(), nn.Dropout(dropout), nn.Conv2d(cout, cout, 3, padding=1)
        )
        self.skip_connection = nn.Conv2d(cin, cout, 1) if cin != cout else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.in_layers[:2](x)
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = self.in_layers[2](h)
        emb = self.emb_layers(emb)[:, :, None, None]
        if self.scale_shift:
            scale, shift = emb.chunk(2, dim=1)
            h = self.out_layers[1:](self.out_layers[0](h) * (1 + scale) + shift)
        else:
            h = self.out_layers(h + emb)
        out: Tensor = self.skip_connection(x) + h
        return out


class _Attention(nn.Module):
    """Self-attention over pixels; `qkv` runs as (head, {q, k, v}, channel), or ({q, k, v}, head, channel) if `new`."""

    def __init__(self, channels: int, heads: int, new_order: bool) -> None:
        super().__init__()
        self.heads, self.new_order = heads, new_order
        self.norm = _norm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor, context: None = None) -> Tensor:
        flat = x.flatten(2)
        qkv = self.qkv(self.norm(flat))
        if self.new_order:
            qkv = qkv.unflatten(1, (3, self.heads, -1)).transpose(1, 2)
        else:
            qkv = qkv.unflatten(1, (self.heads, 3, -1))
        q, k, v = qkv.mT.unbind(2)
        a = attend(q, k, v).mT.flatten(1, 2)
        return (flat + self.proj_out(a)).reshape(x.shape)


class _AttentionPool(nn.Module):
    """What the mean over pixels, as one more token, sees of all tokens: [batch, cout] of [batch, channels, H, W]."""

    def __init__(self, side: int, channels: int, heads: int, cout: int) -> None:
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.randn(channels, side**2 + 1) / channels**0.5)
        self.qkv_proj = nn.Conv1d(channels, 3 * channels, 1)
        self.c_proj = nn.Conv1d(channels, cout, 1)

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.flatten(2)
        tokens = torch.cat([pixels.mean(2, keepdim=True), pixels], dim=2) + self.positional_embedding
        q, k, v = self.qkv_proj(tokens).unflatten(1, (3, self.heads, -1)).mT.unbind(1)
        pooled = attend(q[:, :, :1], k, v).mT.flatten(1, 2)
        out: Tensor = self.c_proj(pooled)[:, :, 0]
        return out


@dataclass
class _Blocks:
    """What the levels of a network are made of; its fields are arguments of `ADMUNet`."""

    emb: int
    dropout: float
    conv_resample: bool
    num_heads: int
    num_head_channels: int
    use_scale_shift_norm: bool
    resblock_updown: bool
    use_new_attention_order: bool
    attention: Callable[[int, int], nn.Module] | None = None

    def res(self, cin: int, cout: int, resample: _Resample | None = None) -> nn.Module:
        return _ResBlock(cin, cout, self.emb, self.dropout, self.use_scale_shift_norm, resample)

    def attend(self, channels: int, heads: int = -1) -> nn.Module:
        if self.num_head_channels != -1:
            heads = channels // self.num_head_channels
        elif heads == -1:
            heads = self.num_heads
        return (self.attention or self._plain)(channels, heads)

    def _plain(self, channels: int, heads: int) -> nn.Module:
        return _Attention(channels, heads, self.use_new_attention_order)

    def resample(self, channels: int, up: bool) -> nn.Module:
        if self.resblock_updown:
            return self.res(channels, channels, _Resample(channels, up, learned=False))
        return _Resample(channels, up, self.conv_resample)

    def encoder(
        self, in_channels: int, widths: Sequence[int], num_res_blocks: int, attention_resolutions: Sequence[int]
    ) -> tuple[nn.ModuleList, nn.ModuleList, list[int]]:
        """(blocks of the levels, blocks of the middle, widths of the outputs of the former)."""
        width = widths[0]
        blocks, skips = nn.ModuleList([nn.ModuleList([nn.Conv2d(in_channels, width, 3, padding=1)])]), [width]
        for level, target in enumerate(widths):
            for _ in range(num_res_blocks):
                layers = [self.res(width, target)]
                width = target
                if 2**level in attention_resolutions:
                    layers.append(self.attend(width))
                blocks.append(nn.ModuleList(layers))
                skips.append(width)
            if level < len(widths) - 1:
                blocks.append(nn.ModuleList([self.resample(width, up=False)]))
                skips.append(width)
        return blocks, nn.ModuleList([self.res(width, width), self.attend(width), self.res(width, width)]), skips


def _time_embed(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(channels, 4 * channels), nn.SiLU(), nn.Linear(4 * channels, 4 * channels))


def _run(layers: nn.Module, h: Tensor, emb: Tensor, context: Tensor | None = None) -> Tensor:
    for layer in layers.children():
        if isinstance(layer, _ResBlock):
            h = layer(h, emb)
        else:
            h = layer(h) if isinstance(layer, nn.Conv2d | _Resample) else layer(h, context)
    return h


class ADMUNet(nn.Module):
    """The U-Net of iDDPM, ADM, torchcfm and latent diffusion.

    Args:
        in_channels, out_channels: channels in and out (twice as many out where variances are learned).
        model_channels: base width; widths are multiples of 32 channels.
        num_res_blocks: residual blocks per level (one more in the decoder).
        attention_resolutions: factors of downsampling (1, 2, 4, ...) at which blocks attend.
        dropout: probability, in training mode.
        channel_mult: width of each level in units of `model_channels`; the levels halve the resolution.
        conv_resample: resample with learned convolutions.
        num_classes: number of classes, None for an unconditional network.
        num_heads: attention heads, where `num_head_channels` is -1.
        num_head_channels: channels per attention head, or -1.
        num_heads_upsample: attention heads in the decoder, -1 for the same number.
        use_scale_shift_norm: the embedding scales and shifts the second normalisation instead of being added.
        resblock_updown: resample inside residual blocks instead of between them.
        use_new_attention_order: heads inside q, k and v, instead of q, k and v inside heads.
        attention: makes the attention module, called as module(x, context), from (channels, heads);
            None for plain self-attention.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        model_channels: int,
        out_channels: int,
        num_res_blocks: int,
        attention_resolutions: Sequence[int],
        dropout: float = 0.0,
        channel_mult: Sequence[float] = (1, 2, 4, 8),
        conv_resample: bool = True,
        num_classes: int | None = None,
        num_heads: int = 1,
        num_head_channels: int = -1,
        num_heads_upsample: int = -1,
        use_scale_shift_norm: bool = False,
        resblock_updown: bool = False,
        use_new_attention_order: bool = False,
        attention: Callable[[int, int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.model_channels, self.num_classes = model_channels, num_classes
        self.time_embed = _time_embed(model_channels)
        if num_classes is not None:
            self.label_emb = nn.Embedding(num_classes, 4 * model_channels)
        make = _Blocks(
            4 * model_channels, dropout, conv_resample, num_heads, num_head_channels, use_scale_shift_norm,
            resblock_updown, use_new_attention_order, attention,
        )  # fmt: skip
        widths = [int(mult * model_channels) for mult in channel_mult]
        self.input_blocks, self.middle_block, skips = make.encoder(
            in_channels, widths, num_res_blocks, attention_resolutions
        )
        self.output_blocks, width = nn.ModuleList(), widths[-1]
        for level, target in reversed(list(enumerate(widths))):
            for index in range(num_res_blocks + 1):
                layers = [make.res(width + skips.pop(), target)]
                width = target
                if 2**level in attention_resolutions:
                    layers.append(make.attend(width, num_heads_upsample))
                if level and index == num_res_blocks:
                    layers.append(make.resample(width, up=True))
                self.output_blocks.append(nn.ModuleList(layers))
        self.out = nn.Sequential(_norm(width), nn.SiLU(), nn.Conv2d(width, out_channels, 3, padding=1))

    def forward(self, x: Tensor, timesteps: Tensor, y: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        """The network's output, [batch, out_channels, height, width].

        Args:
            x: images or latents [batch, in_channels, height, width].
            timesteps: [batch]; never rounded.
            y: class indices [batch], int64, for a class-conditional network.
            context: tokens [batch, tokens, context_dim] for a network with cross-attention.

        Raises:
            ValueError: when labels are given to an unconditional network, or not given to a conditional one.
        """
        if (y is None) != (self.num_classes is None):
            raise ValueError("this network needs class labels" if y is None else "this network takes no class labels")
        emb = self.time_embed(sinusoidal(timesteps, self.model_channels))
        if y is not None:
            emb = emb + self.label_emb(y)
        skips: list[Tensor] = []
        for layers in self.input_blocks:
            x = _run(layers, x, emb, context)
            skips.append(x)
        x = _run(self.middle_block, x, emb, context)
        for layers in self.output_blocks:
            x = _run(layers, torch.cat([x, skips.pop()], dim=1), emb, context)
        out: Tensor = self.out(x)
        return out


class ADMClassifier(nn.Module):
    """The classifier of noisy images that guides ADM: the first half of the U-Net, pooled by attention.

    Args:
        image_size: side of the images, in pixels.
        out_channels: number of classes.
        in_channels, model_channels, num_res_blocks, attention_resolutions, dropout, channel_mult, conv_resample,
            num_heads, num_head_channels, use_scale_shift_norm, resblock_updown, use_new_attention_order: as for
            `ADMUNet`; the pooling needs `num_head_channels`.
    """

    def __init__(
        self,
        *,
        image_size: int,
        in_channels: int,
        model_channels: int,
        out_channels: int,
        num_res_blocks: int,
        attention_resolutions: Sequence[int],
        num_head_channels: int,
        dropout: float = 0.0,
        channel_mult: Sequence[float] = (1, 2, 4, 8),
        conv_resample: bool = True,
        num_heads: int = 1,
        use_scale_shift_norm: bool = False,
        resblock_updown: bool = False,
        use_new_attention_order: bool = False,
    ) -> None:
        super().__init__()
        self.model_channels = model_channels
        self.time_embed = _time_embed(model_channels)
        make = _Blocks(
            4 * model_channels, dropout, conv_resample, num_heads, num_head_channels, use_scale_shift_norm,
            resblock_updown, use_new_attention_order,
        )  # fmt: skip
        widths = [int(mult * model_channels) for mult in channel_mult]
        self.input_blocks, self.middle_block, _ = make.encoder(
            in_channels, widths, num_res_blocks, attention_resolutions
        )
        width, side = widths[-1], image_size >> (len(widths) - 1)
        pool = _AttentionPool(side, width, width // num_head_channels, out_channels)
        self.out = nn.Sequential(_norm(width), nn.SiLU(), pool)

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        """Logits [batch, out_channels].

        Args:
            x: noisy images [batch, in_channels, image_size, image_size].
            timesteps: [batch]; never rounded.
        """
        emb = self.time_embed(sinusoidal(timesteps, self.model_channels))
        for layers in (*self.input_blocks, self.middle_block):
            x = _run(layers, x, emb)
        out: Tensor = self.out(x)
        return out
