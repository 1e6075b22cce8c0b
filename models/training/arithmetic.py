"""The arithmetic a training run uses on a device."""

from __future__ import annotations

import torch

__all__ = ["autocast_for"]


def autocast_for(device: str | torch.device) -> tuple[torch.autocast, str]:
    """(autocast context, its description): bfloat16 where the device computes in it natively, else float32.

    On a CPU that means AMX or AVX512-BF16; emulated bfloat16 is slower than float32.
    """
    kind = torch.device(device).type
    native = {"cuda": torch.cuda.is_bf16_supported, "cpu": torch.cpu._is_avx512_bf16_supported}.get(kind, bool)()
    return (
        torch.autocast(kind, dtype=torch.bfloat16, enabled=native),
        "bfloat16 autocast, float32 weights" if native else "float32",
    )
