"""SongUNet: the DDPM++ / NCSN++ U-Net in the form and with the parameter names of EDM (arXiv 2206.00364).

The architecture is that of Song et al. (arXiv 2011.13456); EDM's public checkpoints, and those of the flow
code bases that build on it, carry the parameter names used here, so each published configuration is this
class with other numbers. No preconditioning is applied: the network is called with the noise label itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastsample.models.networks.edm_blocks import Block, Conv, Linear, group_norm
from fastsample.models.networks.embeddings import Fourier, sinusoidal

__all__ = ["SongUNet"]

_EPS = 1e-6  # of every GroupNorm; PyTorch's default of 1e-5 is visible on faint inputs
_SKIP_SCALE = math.sqrt(0.5)  # keeps the variance of a sum of two unit-variance branches


class SongUNet(nn.Module):
    """The U-Net of DDPM++ (the defaults) and NCSN++ (`embedding_type="fourier"`, `encoder_type="residual"`,
    `channel_mult_noise=2`, `resample_filter=(1, 3, 3, 1)`).

    Args:
        img_resolution: side of the square images in pixels.
        in_channels, out_channels: colour channels in and out.
        label_dim: number of classes, 0 for an unconditional network.
        augment_dim: size of the augmentation vector, 0 for none.
        model_channels: base width.
        channel_mult: width of each level in units of `model_channels`; the levels halve the resolution.
        channel_mult_emb: size of the embedding in units of `model_channels`.
        num_blocks: residual blocks per level (one more in the decoder).
        attn_resolutions: resolutions in pixels at which blocks attend (in the decoder only the last of a level).
        dropout: probability, in training mode.
        label_dropout: probability of replacing a class label by zeros, in training mode.
        embedding_type: "positional" or "fourier".
        channel_mult_noise: size of the noise embedding in units of `model_channels`.
        encoder_type, decoder_type: "standard", "skip" or, for the encoder, "residual".
        resample_filter: taps of the FIR filter used for resampling.

    Raises:
        ValueError: for an unknown embedding, encoder or decoder type.
    """

    def __init__(
        self,
        img_resolution: int,
        in_channels: int,
        out_channels: int,
        label_dim: int = 0,
        augment_dim: int = 0,
        model_channels: int = 128,
        channel_mult: Sequence[int] = (1, 2, 2, 2),
        channel_mult_emb: int = 4,
        num_blocks: int = 4,
        attn_resolutions: Sequence[int] = (16,),
        dropout: float = 0.10,
        label_dropout: float = 0.0,
        embedding_type: str = "positional",
        channel_mult_noise: int = 1,
        encoder_type: str = "standard",
        decoder_type: str = "standard",
        resample_filter: Sequence[float] = (1, 1),
    ) -> None:
        super().__init__()
        for value, known in (
            (embedding_type, ("positional", "fourier")),
            (encoder_type, ("standard", "skip", "residual")),
            (decoder_type, ("standard", "skip")),
        ):
            if value not in known:
                raise ValueError(f"SongUNet: unknown type {value!r}; known: {', '.join(known)}")
        self.label_dim, self.label_dropout = label_dim, label_dropout
        emb = model_channels * channel_mult_emb
        self.noise_channels = noise = model_channels * channel_mult_noise
        taps = tuple(resample_filter)

        self.map_noise = Fourier(noise) if embedding_type == "fourier" else None
        self.map_label = Linear(label_dim, noise) if label_dim else None
        self.map_augment = Linear(augment_dim, noise, bias=False) if augment_dim else None
        self.map_layer0, self.map_layer1 = Linear(noise, emb), Linear(emb, emb)

        def block(cin: int, cout: int, *, attention: bool = False, up: bool = False, down: bool = False) -> Block:
            return Block(
                cin, cout, emb, attention=attention, up=up, down=down, taps=taps, dropout=dropout, eps=_EPS,
                adaptive_scale=False, head_channels=None, skip_scale=_SKIP_SCALE, resample_proj=True,
            )  # fmt: skip

        self.enc = nn.ModuleDict()
        skips: list[int] = []
        width, aux = model_channels, in_channels
        for level, mult in enumerate(channel_mult):
            res = img_resolution >> level
            name = f"{res}x{res}_"
            if level == 0:
                self.enc[name + "conv"] = Conv(in_channels, width, 3)
            else:
                self.enc[name + "down"] = block(width, width, down=True)
                if encoder_type == "skip":
                    self.enc[name + "aux_down"] = Conv(aux, aux, 0, down=True, taps=taps)
                    self.enc[name + "aux_skip"] = Conv(aux, width, 1)
                elif encoder_type == "residual":
                    self.enc[name + "aux_residual"] = Conv(aux, width, 3, down=True, taps=taps, fused=True)
                    aux = width
            skips.append(width)
            for index in range(num_blocks):
                cin, width = width, model_channels * mult
                self.enc[f"{name}block{index}"] = block(cin, width, attention=res in attn_resolutions)
                skips.append(width)

        self.dec = nn.ModuleDict()
        deepest = len(channel_mult) - 1
        for level, mult in reversed(list(enumerate(channel_mult))):
            res = img_resolution >> level
            name = f"{res}x{res}_"
            if level == deepest:
                self.dec[name + "in0"] = block(width, width, attention=True)
                self.dec[name + "in1"] = block(width, width)
            else:
                self.dec[name + "up"] = block(width, width, up=True)
            for index in range(num_blocks + 1):
                cin, width = width + skips.pop(), model_channels * mult
                attention = index == num_blocks and res in attn_resolutions
                self.dec[f"{name}block{index}"] = block(cin, width, attention=attention)
            if decoder_type == "skip" or level == 0:
                if decoder_type == "skip" and level < deepest:
                    self.dec[name + "aux_up"] = Conv(out_channels, out_channels, 0, up=True, taps=taps)
                self.dec[name + "aux_norm"] = group_norm(width, _EPS)
                self.dec[name + "aux_conv"] = Conv(width, out_channels, 3, gain=1e-5)

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
        if self.map_noise is None:
            emb = sinusoidal(noise_labels, self.noise_channels, endpoint=True, sin_first=True)
        else:
            emb = self.map_noise(noise_labels)
        if self.map_label is not None:
            if class_labels is None:
                class_labels = x.new_zeros(len(x), self.label_dim)
            if self.training and self.label_dropout:
                class_labels = class_labels * (torch.rand(len(x), 1, device=x.device) >= self.label_dropout)
            emb = emb + self.map_label(class_labels * math.sqrt(self.label_dim))
        if self.map_augment is not None and augment_labels is not None:
            emb = emb + self.map_augment(augment_labels)
        emb = F.silu(self.map_layer1(F.silu(self.map_layer0(emb))))

        skips: list[Tensor] = []
        aux = x
        for name, layer in self.enc.items():
            if name.endswith("aux_down"):
                aux = layer(aux)
            elif name.endswith("aux_skip"):
                x = skips[-1] = x + layer(aux)
            elif name.endswith("aux_residual"):
                x = skips[-1] = aux = (x + layer(aux)) * _SKIP_SCALE
            else:
                x = layer(x, emb) if isinstance(layer, Block) else layer(x)
                skips.append(x)

        out: Tensor | None = None
        for name, layer in self.dec.items():
            if name.endswith("aux_up"):
                out = layer(out)
            elif name.endswith("aux_norm"):
                normed = layer(x)
            elif name.endswith("aux_conv"):
                image = layer(F.silu(normed))
                out = image if out is None else out + image
            else:
                if "block" in name:
                    x = torch.cat([x, skips.pop()], dim=1)
                x = layer(x, emb)
        assert out is not None
        return out
