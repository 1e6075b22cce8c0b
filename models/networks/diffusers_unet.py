"""UNet2DModel of diffusers, with its parameter names and every argument that decides its output, or a refusal.

It is the U-Net of DDPM (arXiv 2006.11239) with options; with those of google/ddpm-* it is `DDPMUNet`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastsample.models.networks.attention import attend
from fastsample.models.networks.embeddings import sinusoidal

__all__ = ["DiffusersUNet", "current_names"]

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu, "swish": F.silu, "mish": F.mish, "gelu": F.gelu, "relu": F.relu
}  # fmt: skip
_OLD_NAMES = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


@dataclass(frozen=True)
class _Style:
    """What all blocks of a network have in common."""

    emb: int
    groups: int
    eps: float
    act: str
    scaled: bool
    head_dim: int | None
    dropout: float

    def norm(self, channels: int, groups: int = 0) -> nn.GroupNorm:
        return nn.GroupNorm(groups or self.groups, channels, eps=self.eps)


class _Resnet(nn.Module):
    """Residual block; the time embedding is added, or scales and shifts (arXiv 2105.05233). The sum is over `over`."""

    def __init__(self, cin: int, cout: int, style: _Style, over: float = 1.0) -> None:
        super().__init__()
        self.act, self.scaled, self.dropout, self.over = _ACTIVATIONS[style.act], style.scaled, style.dropout, over
        self.norm1, self.conv1 = style.norm(cin), nn.Conv2d(cin, cout, 3, padding=1)
        self.time_emb_proj = nn.Linear(style.emb, cout * (2 if style.scaled else 1))
        self.norm2, self.conv2 = style.norm(cout), nn.Conv2d(cout, cout, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(cin, cout, 1) if cin != cout else None

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv1(self.act(self.norm1(x)))
        t = self.time_emb_proj(self.act(emb))[:, :, None, None]
        if self.scaled:
            scale, shift = t.chunk(2, dim=1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + t)
        h = self.conv2(F.dropout(self.act(h), self.dropout, self.training))
        return ((x if self.conv_shortcut is None else self.conv_shortcut(x)) + h) / self.over


class _Attention(nn.Module):
    """Self-attention over pixels, with a norm of `groups` groups before it, or none for 0."""

    def __init__(self, channels: int, style: _Style, groups: int, over: float = 1.0) -> None:
        super().__init__()
        self.heads, self.over = channels // (style.head_dim or channels), over
        inner = self.heads * (style.head_dim or channels)
        if not inner:
            raise ValueError(f"attention_head_dim {style.head_dim} is more than the {channels} channels of a block")
        self.group_norm = style.norm(channels, groups) if groups else None
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, inner) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(inner, channels)])

    def forward(self, x: Tensor) -> Tensor:
        h = (x if self.group_norm is None else self.group_norm(x)).flatten(2).mT
        layers = self.to_q, self.to_k, self.to_v
        q, k, v = (layer(h).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer in layers)
        h = self.to_out[0](attend(q, k, v).transpose(1, 2).flatten(2))
        return (x + h.mT.reshape(x.shape)) / self.over


class _Downsample(nn.Module):
    """Halving by a 3x3 convolution; padding 0 is one pixel at the right and the bottom."""

    def __init__(self, channels: int, padding: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x if self.conv.padding[0] else F.pad(x, (0, 1, 0, 1)))
        return out


class _Upsample(nn.Module):
    """Doubling by nearest neighbours, then a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


class _Level(nn.Module):
    """The blocks of one resolution, each followed by attention if there is any, then the resampling."""

    def __init__(
        self,
        widths: Sequence[int],
        out: int,
        style: _Style,
        attend: bool,
        down: nn.Module | None = None,
        up: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(_Resnet(width, out, style) for width in widths)
        self.attentions = nn.ModuleList(_Attention(out, style, style.groups) for _ in widths if attend)
        self.downsamplers = nn.ModuleList([] if down is None else [down])
        self.upsamplers = nn.ModuleList([] if up is None else [up])

    def forward(
        self, x: Tensor, emb: Tensor, *, kept: list[Tensor] | None = None, joined: list[Tensor] | None = None
    ) -> Tensor:
        """What each block and the halving return is appended to `kept`; each block first joins the last of `joined`."""
        kept = [] if kept is None else kept
        for index, resnet in enumerate(self.resnets):
            x = resnet(x if joined is None else torch.cat([x, joined.pop()], dim=1), emb)
            x = self.attentions[index](x) if len(self.attentions) else x
            kept.append(x)
        for resample in (*self.downsamplers, *self.upsamplers):
            x = resample(x)
            kept.append(x)
        return x


class _Middle(nn.Module):
    def __init__(self, channels: int, style: _Style, over: float, attend: bool, groups: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(_Resnet(channels, channels, style, over) for _ in range(2))
        self.attentions = nn.ModuleList(_Attention(channels, style, groups, over) for _ in range(attend))

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        x = self.resnets[0](x, emb)
        for attention in self.attentions:
            x = attention(x)
        out: Tensor = self.resnets[1](x, emb)
        return out


class _TimeEmbedding(nn.Module):
    def __init__(self, channels: int, emb: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(channels, emb), nn.Linear(emb, emb)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear_2(F.silu(self.linear_1(x)))
        return out


class DiffusersUNet(nn.Module):
    """UNet2DModel with the arguments and the defaults of diffusers; those that it lacks are for `registry` to refuse.

    Raises:
        ValueError: for a combination that diffusers refuses too, or a kind of block that is not known here.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        out_channels: int = 3,
        center_input_sample: bool = False,
        time_embedding_dim: int | None = None,
        freq_shift: float = 0,
        flip_sin_to_cos: bool = True,
        down_block_types: Sequence[str] = ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        mid_block_type: str | None = "UNetMidBlock2D",
        up_block_types: Sequence[str] = ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        block_out_channels: Sequence[int] = (224, 448, 672, 896),
        layers_per_block: int = 2,
        mid_block_scale_factor: float = 1.0,
        downsample_padding: int = 1,
        dropout: float = 0.0,
        act_fn: str = "silu",
        attention_head_dim: int | None = 8,
        norm_num_groups: int = 32,
        attn_norm_num_groups: int | None = None,
        norm_eps: float = 1e-5,
        resnet_time_scale_shift: str = "default",
        add_attention: bool = True,
        num_class_embeds: int | None = None,
    ) -> None:
        super().__init__()
        widths = list(block_out_channels)
        _check("down_block_types", down_block_types, ("DownBlock2D", "AttnDownBlock2D"), len(widths))
        _check("up_block_types", up_block_types, ("UpBlock2D", "AttnUpBlock2D"), len(widths))
        _check("mid_block_type", [mid_block_type], ("UNetMidBlock2D", None), 1)
        _check("resnet_time_scale_shift", [resnet_time_scale_shift], ("default", "scale_shift"), 1)
        _check("act_fn", [act_fn.lower()], tuple(_ACTIVATIONS), 1)
        _check("downsample_padding", [downsample_padding], (0, 1), 1)
        if widths[0] % 2:
            raise ValueError(f"block_out_channels {widths[0]} of the first level is odd, which has no time embedding")
        emb, scaled = time_embedding_dim or 4 * widths[0], resnet_time_scale_shift == "scale_shift"
        style = _Style(emb, norm_num_groups, norm_eps, act_fn.lower(), scaled, attention_head_dim, dropout)
        self.center, self.sin_first, self.freq_shift = center_input_sample, not flip_sin_to_cos, freq_shift
        self.conv_in = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        self.time_embedding = _TimeEmbedding(widths[0], emb)
        self.class_embedding = None if num_class_embeds is None else nn.Embedding(num_class_embeds, emb)
        width, skips, last = widths[0], [widths[0]], len(widths) - 1
        self.down_blocks = nn.ModuleList()
        for level, (kind, out) in enumerate(zip(down_block_types, widths, strict=True)):
            before, width = [width] + [out] * (layers_per_block - 1), out
            down = _Downsample(out, downsample_padding) if level < last else None
            self.down_blocks.append(_Level(before, out, style, kind.startswith("Attn"), down=down))
            skips += [out] * (layers_per_block + (level < last))
        groups = attn_norm_num_groups or (0 if scaled else norm_num_groups)
        middle = _Middle(width, style, mid_block_scale_factor, add_attention, groups)
        self.mid_block = middle if mid_block_type else None
        self.up_blocks = nn.ModuleList()
        for level, (kind, out) in enumerate(zip(up_block_types, widths[::-1], strict=True)):
            before = [one + skips.pop() for one in [width] + [out] * layers_per_block]
            up = _Upsample(out) if level < last else None
            self.up_blocks.append(_Level(before, out, style, kind.startswith("Attn"), up=up))
            width = out
        self.conv_norm_out = style.norm(width)
        self.conv_out = nn.Conv2d(width, out_channels, 3, padding=1)

    def forward(self, x: Tensor, timesteps: Tensor, classes: Tensor | None = None) -> Tensor:
        """The prediction, [batch, out_channels, H, W].

        Args:
            x: images [batch, in_channels, H, W].
            timesteps: [batch], never rounded.
            classes: int64 [batch], of a network with `num_class_embeds`.
        """
        if (classes is None) != (self.class_embedding is None):
            raise ValueError("labels go with num_class_embeds in the network's configuration, and only with it")
        label = sinusoidal(timesteps, self.conv_in.out_channels, endpoint=self.freq_shift, sin_first=self.sin_first)
        emb = self.time_embedding(label)
        emb = emb if self.class_embedding is None else emb + self.class_embedding(classes)
        x = self.conv_in(2 * x - 1 if self.center else x)
        skips = [x]
        for level in self.down_blocks:
            x = level(x, emb, kept=skips)
        x = x if self.mid_block is None else self.mid_block(x, emb)
        for level in self.up_blocks:
            x = level(x, emb, joined=skips)
        out: Tensor = self.conv_out(F.silu(self.conv_norm_out(x)))
        return out


def _check(name: str, values: Sequence[object], known: Sequence[object], count: int) -> None:
    if len(values) != count:
        raise ValueError(f"{name} has {len(values)} entries for the {count} of block_out_channels")
    for value in values:
        if value not in known:
            raise ValueError(f"{name} {value!r} is not supported; known: {', '.join(map(repr, known))}")


def current_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under the names that diffusers gives since 0.13; it had others for attention before."""
    state = {}
    for name, tensor in tensors.items():
        for old, new in _OLD_NAMES.items():
            name = name.replace(old, new) if ".attentions." in name else name
        state[name] = tensor
    return state
