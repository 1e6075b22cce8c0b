"""The U-Net of improved and guided diffusion (iDDPM, arXiv 2102.09672; ADM, arXiv 2105.05233).

The flow models of torchcfm, OpenAI's consistency models and latent diffusion use the same network;
all share its parameter names. It is called with the time step itself, in whatever unit it was trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastsample.models.networks.embeddings import sinusoidal

__all__ = ["ADMUNet"]


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
        a = F.scaled_dot_product_attention(q, k, v).mT.flatten(1, 2)
        return (flat + self.proj_out(a)).reshape(x.shape)


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
        emb = 4 * model_channels
        self.time_embed = nn.Sequential(nn.Linear(model_channels, emb), nn.SiLU(), nn.Linear(emb, emb))
        if num_classes is not None:
            self.label_emb = nn.Embedding(num_classes, emb)

        def res(cin: int, cout: int, resample: _Resample | None = None) -> nn.Module:
            return _ResBlock(cin, cout, emb, dropout, use_scale_shift_norm, resample)

        def attend(channels: int, heads: int = num_heads) -> nn.Module:
            if num_head_channels != -1:
                heads = channels // num_head_channels
            return attention(channels, heads) if attention else _Attention(channels, heads, use_new_attention_order)

        def resample(channels: int, up: bool) -> nn.Module:
            if resblock_updown:
                return res(channels, channels, _Resample(channels, up, learned=False))
            return _Resample(channels, up, conv_resample)

        widths = [int(mult * model_channels) for mult in channel_mult]
        width = widths[0]
        self.input_blocks = nn.ModuleList([nn.ModuleList([nn.Conv2d(in_channels, width, 3, padding=1)])])
        skips = [width]
        for level, target in enumerate(widths):
            for _ in range(num_res_blocks):
                layers = [res(width, target)]
                width = target
                if 2**level in attention_resolutions:
                    layers.append(attend(width))
                self.input_blocks.append(nn.ModuleList(layers))
                skips.append(width)
            if level < len(widths) - 1:
                self.input_blocks.append(nn.ModuleList([resample(width, up=False)]))
                skips.append(width)
        self.middle_block = nn.ModuleList([res(width, width), attend(width), res(width, width)])
        self.output_blocks = nn.ModuleList()
        for level, target in reversed(list(enumerate(widths))):
            for index in range(num_res_blocks + 1):
                layers = [res(width + skips.pop(), target)]
                width = target
                if 2**level in attention_resolutions:
                    layers.append(attend(width, num_heads if num_heads_upsample == -1 else num_heads_upsample))
                if level and index == num_res_blocks:
                    layers.append(resample(width, up=True))
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

        def run(layers: nn.Module, h: Tensor) -> Tensor:
            for layer in layers.children():
                if isinstance(layer, _ResBlock):
                    h = layer(h, emb)
                else:
                    h = layer(h) if isinstance(layer, nn.Conv2d | _Resample) else layer(h, context)
            return h

        skips: list[Tensor] = []
        for layers in self.input_blocks:
            x = run(layers, x)
            skips.append(x)
        x = run(self.middle_block, x)
        for layers in self.output_blocks:
            x = run(layers, torch.cat([x, skips.pop()], dim=1))
        out: Tensor = self.out(x)
        return out
