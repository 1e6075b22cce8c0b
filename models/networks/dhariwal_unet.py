"""DhariwalUNet: the U-Net of ADM (arXiv 2105.05233) in the form and with the parameter names of EDM (arXiv 2206.00364).

No preconditioning is applied: the network is called with the noise label itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastsample.models.networks.edm_blocks import Block, Conv, Linear, group_norm
from fastsample.models.networks.embeddings import sinusoidal

__all__ = ["DhariwalUNet"]

_EPS = 1e-5  # of every GroupNorm


class DhariwalUNet(nn.Module):
    """The U-Net of EDM's ImageNet-64 checkpoints.

    Args:
        img_resolution: side of the square images in pixels.
        in_channels, out_channels: colour channels in and out.
        label_dim: number of classes, 0 for an unconditional network.
        augment_dim: size of the augmentation vector, 0 for none.
        model_channels: base width.
        channel_mult: width of each level in units of `model_channels`; the levels halve the resolution.
        channel_mult_emb: size of the embedding in units of `model_channels`.
        num_blocks: residual blocks per level (one more in the decoder).
        attn_resolutions: resolutions in pixels at which blocks attend, with 64 channels per head.
        dropout: probability, in training mode.
        label_dropout: probability of replacing a class label by zeros, in training mode.
    """

    def __init__(
        self,
        img_resolution: int,
        in_channels: int,
        out_channels: int,
        label_dim: int = 0,
        augment_dim: int = 0,
        model_channels: int = 192,
        channel_mult: Sequence[int] = (1, 2, 3, 4),
        channel_mult_emb: int = 4,
        num_blocks: int = 3,
        attn_resolutions: Sequence[int] = (32, 16, 8),
        dropout: float = 0.10,
        label_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.model_channels, self.label_dim, self.label_dropout = model_channels, label_dim, label_dropout
        emb = model_channels * channel_mult_emb
        self.map_augment = Linear(augment_dim, model_channels, bias=False) if augment_dim else None
        self.map_layer0, self.map_layer1 = Linear(model_channels, emb), Linear(emb, emb)
        self.map_label = Linear(label_dim, emb, bias=False) if label_dim else None

        def block(cin: int, cout: int, *, attention: bool = False, up: bool = False, down: bool = False) -> Block:
            return Block(
                cin, cout, emb, attention=attention, up=up, down=down, dropout=dropout, eps=_EPS,
                adaptive_scale=True, head_channels=64, skip_scale=1.0, resample_proj=False,
            )  # fmt: skip

        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        width, skips = in_channels, []
        for level, mult in enumerate(channel_mult):
            res = img_resolution >> level
            if level == 0:
                cin, width = width, model_channels * mult
                self.enc[f"{res}x{res}_conv"] = Conv(cin, width, 3)
            else:
                self.enc[f"{res}x{res}_down"] = block(width, width, down=True)
            skips.append(width)
            for index in range(num_blocks):
                cin, width = width, model_channels * mult
                self.enc[f"{res}x{res}_block{index}"] = block(cin, width, attention=res in attn_resolutions)
                skips.append(width)
        for level, mult in reversed(list(enumerate(channel_mult))):
            res = img_resolution >> level
            if level == len(channel_mult) - 1:
                self.dec[f"{res}x{res}_in0"] = block(width, width, attention=True)
                self.dec[f"{res}x{res}_in1"] = block(width, width)
            else:
                self.dec[f"{res}x{res}_up"] = block(width, width, up=True)
            for index in range(num_blocks + 1):
                cin, width = width + skips.pop(), model_channels * mult
                self.dec[f"{res}x{res}_block{index}"] = block(cin, width, attention=res in attn_resolutions)
        self.out_norm = group_norm(width, _EPS)
        self.out_conv = Conv(width, out_channels, 3, gain=1e-5)

    def forward(
        self,
        x: Tensor,
        noise_labels: Tensor,
        class_labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
    ) -> Tensor:
        """The network's output, [batch, out_channels, R, R].

        Args:
            x: images [batch, in_channels, R, R].
            noise_labels: [batch], float; never rounded.
            class_labels: [batch, label_dim] one-hot rows (zeros for no class); None means zeros.
            augment_labels: [batch, augment_dim]; None means zeros.
        """
        emb = sinusoidal(noise_labels, self.model_channels)
        if self.map_augment is not None and augment_labels is not None:
            emb = emb + self.map_augment(augment_labels)
        emb = self.map_layer1(F.silu(self.map_layer0(emb)))
        if self.map_label is not None and class_labels is not None:
            if self.training and self.label_dropout:
                class_labels = class_labels * (torch.rand(len(x), 1, device=x.device) >= self.label_dropout)
            emb = emb + self.map_label(class_labels)
        emb = F.silu(emb)

        skips: list[Tensor] = []
        for layer in self.enc.values():
            x = layer(x, emb) if isinstance(layer, Block) else layer(x)
            skips.append(x)
        for name, layer in self.dec.items():
            x = layer(torch.cat([x, skips.pop()], dim=1) if "block" in name else x, emb)
        return self.out_conv(F.silu(self.out_norm(x)))
