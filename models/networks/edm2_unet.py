"""The magnitude-preserving U-Net of EDM2 with its preconditioning (arXiv 2312.02696)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastsample.models.networks.attention import attend
from fastsample.models.networks.edm_precond import edm_coefficients

__all__ = ["EDM2_PARTS", "EDM2Precond"]


def _normalized(x: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """x over its root mean square along `dim`, with 1e-4 added to the latter."""
    size = torch.linalg.vector_norm(x, dim=dim, keepdim=True, dtype=torch.float32)
    return x / torch.add(1e-4, size, alpha=math.sqrt(size.numel() / x.numel())).to(x.dtype)


def _mp_silu(x: Tensor) -> Tensor:
    """SiLU over its root mean square for unit normal input (eq. 81)."""
    return F.silu(x) / 0.596


def _mp_sum(a: Tensor, b: Tensor, t: float) -> Tensor:
    """(1 - t) a + t b at unit variance (eq. 88)."""
    return a.lerp(b, t) / math.hypot(1 - t, t)


def _mp_cat(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Concatenation of channels that keeps the magnitude, with share t for b (eq. 103)."""
    scale = math.sqrt((a.shape[1] + b.shape[1]) / ((1 - t) ** 2 + t**2))
    return torch.cat([scale * (1 - t) / math.sqrt(a.shape[1]) * a, scale * t / math.sqrt(b.shape[1]) * b], dim=1)


class _MPConv(nn.Module):
    """Convolution (linear with `kernel` 0) of weights normalised at each call, in training for good (eqs. 47, 66)."""

    settled = False

    def __init__(self, cin: int, cout: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(cout, cin, kernel, kernel) if kernel else torch.randn(cout, cin))

    def settle(self, dtype: torch.dtype) -> None:
        """Keep the weights as they are multiplied with, in that dtype; training is over."""
        with torch.no_grad():
            self.weight = nn.Parameter(self._scaled(1.0).to(dtype), requires_grad=False)
        self.settled = True

    def _scaled(self, gain: Tensor | float) -> Tensor:
        w = _normalized(self.weight.float(), self._rows)
        return w * (gain / math.sqrt(w[0].numel()))

    @property
    def _rows(self) -> tuple[int, ...]:
        return tuple(range(1, self.weight.ndim))

    def forward(self, x: Tensor, gain: Tensor | None = None) -> Tensor:
        if self.settled:
            out = self._product(x, self.weight)
            return out if gain is None else gain * out
        if self.training:
            with torch.no_grad():
                self.weight.copy_(_normalized(self.weight.float(), self._rows))
        return self._product(x, self._scaled(1.0 if gain is None else gain).to(x.dtype))

    @staticmethod
    def _product(x: Tensor, w: Tensor) -> Tensor:
        return x @ w.T if w.ndim == 2 else F.conv2d(x, w, padding=w.shape[-1] // 2)


class _MPFourier(nn.Module):
    """sqrt(2) cos(f t + p) with random frequencies and phases that belong to the checkpoint (eq. 75)."""

    freqs: Tensor
    phases: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("freqs", 2 * math.pi * torch.randn(channels))
        self.register_buffer("phases", 2 * math.pi * torch.rand(channels))

    def forward(self, t: Tensor) -> Tensor:
        angle = torch.addcmul(self.phases.float(), t.float()[:, None], self.freqs.float())
        return (angle.cos() * math.sqrt(2)).to(t.dtype)


class _Block(nn.Module):
    def __init__(
        self,
        cin: int,
        cout: int,
        emb: int,
        *,
        decoder: bool,
        attention: bool = False,
        up: bool = False,
        down: bool = False,
        dropout: float = 0.0,
        channels_per_head: int = 64,
        res_balance: float = 0.3,
        attn_balance: float = 0.3,
        clip_act: float | None = 256.0,
    ) -> None:
        super().__init__()
        self.decoder, self.up, self.down, self.dropout = decoder, up, down, dropout
        self.res_balance, self.attn_balance, self.clip_act = res_balance, attn_balance, clip_act
        self.heads = cout // channels_per_head if attention else 0
        self.emb_gain = nn.Parameter(torch.zeros([]))
        self.conv_res0 = _MPConv(cin if decoder else cout, cout, 3)
        self.emb_linear = _MPConv(emb, cout, 0)
        self.conv_res1 = _MPConv(cout, cout, 3)
        self.conv_skip = _MPConv(cin, cout, 1) if cin != cout else None
        self.attn_qkv = _MPConv(cout, 3 * cout, 1) if self.heads else None
        self.attn_proj = _MPConv(cout, cout, 1) if self.heads else None

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        if self.up:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        elif self.down:
            x = F.avg_pool2d(x, 2)
        if not self.decoder:
            x = _normalized(x if self.conv_skip is None else self.conv_skip(x), 1)
        h = self.conv_res0(_mp_silu(x))
        h = _mp_silu(h * (self.emb_linear(emb, self.emb_gain) + 1)[:, :, None, None])
        h = self.conv_res1(F.dropout(h, self.dropout, self.training))
        if self.decoder and self.conv_skip is not None:
            x = self.conv_skip(x)
        x = _mp_sum(x, h, self.res_balance)
        if self.attn_qkv is not None and self.attn_proj is not None:
            # Channels of qkv run as (head, channel, {q, k, v}); SDPA wants [batch, heads, tokens, channels].
            qkv = self.attn_qkv(x).flatten(2).unflatten(1, (self.heads, -1, 3))
            q, k, v = _normalized(qkv, 2).permute(3, 0, 1, 4, 2)
            a = attend(q, k, v).mT.reshape(x.shape)
            x = _mp_sum(x, self.attn_proj(a), self.attn_balance)
        return x if self.clip_act is None else x.clip(-self.clip_act, self.clip_act)


class _UNet(nn.Module):
    def __init__(
        self,
        img_resolution: int,
        img_channels: int,
        label_dim: int,
        model_channels: int = 192,
        channel_mult: Sequence[int] = (1, 2, 3, 4),
        channel_mult_noise: int | None = None,
        channel_mult_emb: int | None = None,
        num_blocks: int = 3,
        attn_resolutions: Sequence[int] = (16, 8),
        label_balance: float = 0.5,
        concat_balance: float = 0.5,
        **block_args: Any,
    ) -> None:
        super().__init__()
        self.label_dim, self.label_balance, self.concat_balance = label_dim, label_balance, concat_balance
        widths = [model_channels * mult for mult in channel_mult]
        noise = widths[0] if channel_mult_noise is None else model_channels * channel_mult_noise
        emb = max(widths) if channel_mult_emb is None else model_channels * channel_mult_emb
        self.out_gain = nn.Parameter(torch.zeros([]))
        self.emb_fourier, self.emb_noise = _MPFourier(noise), _MPConv(noise, emb, 0)
        self.emb_label = _MPConv(label_dim, emb, 0) if label_dim else None

        def block(cin: int, cout: int, **options: Any) -> _Block:
            return _Block(cin, cout, emb, **options, **block_args)

        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        width, skips = img_channels + 1, []
        for level, cout in enumerate(widths):
            res = img_resolution >> level
            if level == 0:
                cin, width = width, cout
                self.enc[f"{res}x{res}_conv"] = _MPConv(cin, width, 3)
            else:
                self.enc[f"{res}x{res}_down"] = block(width, width, decoder=False, down=True)
            skips.append(width)
            for index in range(num_blocks):
                cin, width = width, cout
                attention = res in attn_resolutions
                self.enc[f"{res}x{res}_block{index}"] = block(cin, width, decoder=False, attention=attention)
                skips.append(width)
        for level, cout in reversed(list(enumerate(widths))):
            res = img_resolution >> level
            if level == len(widths) - 1:
                self.dec[f"{res}x{res}_in0"] = block(width, width, decoder=True, attention=True)
                self.dec[f"{res}x{res}_in1"] = block(width, width, decoder=True)
            else:
                self.dec[f"{res}x{res}_up"] = block(width, width, decoder=True, up=True)
            for index in range(num_blocks + 1):
                cin, width = width + skips.pop(), cout
                attention = res in attn_resolutions
                self.dec[f"{res}x{res}_block{index}"] = block(cin, width, decoder=True, attention=attention)
        self.out_conv = _MPConv(width, img_channels, 3)

    def forward(self, x: Tensor, noise_labels: Tensor, class_labels: Tensor | None) -> Tensor:
        emb = self.emb_noise(self.emb_fourier(noise_labels))
        if self.emb_label is not None:
            if class_labels is None:
                class_labels = x.new_zeros(1, self.label_dim)
            label = self.emb_label(class_labels * math.sqrt(self.label_dim))
            emb = _mp_sum(emb, label.expand_as(emb), self.label_balance)
        emb = _mp_silu(emb)
        x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
        skips: list[Tensor] = []
        for layer in self.enc.values():
            x = layer(x, emb) if isinstance(layer, _Block) else layer(x)
            skips.append(x)
        for name, layer in self.dec.items():
            x = layer(_mp_cat(x, skips.pop(), self.concat_balance) if "block" in name else x, emb)
        out: Tensor = self.out_conv(x, self.out_gain)
        return out


class EDM2Precond(nn.Module):
    """EDM2's denoiser of data x = y + sigma n, on pixels or on standardised latents.

    Args:
        img_resolution: side of the square images or latents in pixels.
        img_channels: their channels.
        label_dim: number of classes, 0 for an unconditional network.
        sigma_data: standard deviation of the data.
        logvar_channels: width of the estimate of the training loss.
        unet_args: model_channels, channel_mult, channel_mult_noise, channel_mult_emb, num_blocks,
            attn_resolutions and dropout, as in SongUNet (None for the two embedding sizes stands for the
            first and the largest width); label_balance, concat_balance, res_balance, attn_balance, the
            shares of the new branch; channels_per_head; clip_act, a limit of activations.
    """

    def __init__(
        self,
        img_resolution: int,
        img_channels: int,
        label_dim: int,
        sigma_data: float = 0.5,
        logvar_channels: int = 128,
        **unet_args: Any,
    ) -> None:
        super().__init__()
        self.sigma_data = sigma_data
        self.unet = _UNet(img_resolution, img_channels, label_dim, **unet_args)
        self.logvar_fourier = _MPFourier(logvar_channels)
        self.logvar_linear = _MPConv(logvar_channels, 1, 0)

    def forward(self, x: Tensor, sigma: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """The denoised images D, [batch, channels, R, R].

        Args:
            x: noisy images [batch, channels, R, R].
            sigma: noise levels [batch].
            class_labels: [batch, label_dim] one-hot rows (zeros for no class); None means zeros.
        """
        c_skip, c_out, c_in, c_noise = edm_coefficients(sigma.reshape(-1, 1, 1, 1), self.sigma_data)
        return c_skip * x + c_out * self.unet(c_in * x, c_noise.flatten(), class_labels)

    def logvar(self, sigma: Tensor) -> Tensor:
        """Logarithm of the expected training loss at noise levels [batch] (eq. 21), as [batch]."""
        out: Tensor = self.logvar_linear(self.logvar_fourier(sigma.log() / 4)).flatten()
        return out


# The classes whose arguments EDM2Precond takes.
EDM2_PARTS = (EDM2Precond, _UNet, _Block)
