"""What a training run shares with its surroundings: arithmetic of the device, other processes, signals, a bar."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["agreed", "autocast_for", "process_group", "progress_bar", "stop_requests"]


def autocast_for(device: str | torch.device, precision: str = "auto") -> tuple[torch.autocast, str]:
    """(autocast context, its description): bfloat16, float16 or none.

    "auto" is bfloat16 where the device computes in it natively: on a CPU that means AMX or AVX512-BF16, on a CUDA
    device compute capability 8; emulated bfloat16 is slower than float32.
    """
    kind = torch.device(device).type
    native = {
        "cuda": lambda: torch.cuda.is_bf16_supported(including_emulation=False),
        "cpu": torch.cpu._is_avx512_bf16_supported,
    }.get(kind, bool)
    if precision == "auto":
        precision = "bf16" if native() else "float32"
    dtype, told = {
        "bf16": (torch.bfloat16, "bfloat16 autocast, float32 weights"),
        "fp16": (torch.float16, "float16 autocast with loss scaling, float32 weights"),
        "float32": (torch.bfloat16, "float32"),
    }[precision]
    return torch.autocast(kind, dtype=dtype, enabled=precision != "float32"), told


@contextmanager
def process_group(device: str) -> Iterator[tuple[int, int]]:
    """(rank, number of processes), joined to one group where torchrun started several."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1 or dist.is_initialized():
        yield (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        return
    if torch.device(device).type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.device(device).type == "cuda" else "gloo")
    try:
        yield dist.get_rank(), world
    finally:
        dist.destroy_process_group()


def agreed(loss: torch.Tensor, stop: bool) -> tuple[list[float], bool]:
    """(mean of `loss` [k] over the processes, whether any of them wants to stop)."""
    told = torch.cat([loss.detach().float().reshape(-1), loss.new_tensor([float(stop)], dtype=torch.float32)])
    if dist.is_initialized():
        dist.all_reduce(told)
        told[:-1] /= dist.get_world_size()
    *means, stops = told.tolist()
    return means, stops > 0


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, so that a run stops between two steps."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    kept = {number: signal.signal(number, lambda *_: event.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def progress_bar(shown: bool = True) -> Progress:
    """Share done, a text `told`, time left."""
    told = TextColumn("{task.percentage:>3.0f}%  {task.fields[told]}")
    return Progress(TextColumn("{task.description}"), BarColumn(), told, TimeRemainingColumn(), disable=not shown)
