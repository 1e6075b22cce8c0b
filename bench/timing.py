"""How long a sampler takes when it runs alone, measured apart: shared calls and several workers leave it as it is.

The time of a sample is that of its network calls, each as long as the calls of this run take when they are warm, and
that of the arithmetic around them, measured without the network.
"""

from __future__ import annotations

import math
import time
from typing import Any

import torch

from fastsample.bench.tree import Tree
from fastsample.models.denoiser import Denoiser
from fastsample.models.path import Path
from fastsample.solvers.table import Table

__all__ = ["TimedNetwork", "arithmetic", "fitting", "power_below", "waited"]

_MOST = 1024  # samples of a network call; more do not make it faster


class TimedNetwork(torch.nn.Module):
    """A network that measures its own calls; the first, which warms it up, counts only where it is the only one.

    On a CUDA device the calls are bracketed by events, which are read only by `per_sample`.
    """

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network
        self._calls: list[tuple[int, Any, Any]] = []  # samples, begin and end in seconds or as events
        self._known = (0, 0.0)  # samples of calls that were read, and their seconds
        self._cold = True

    def forward(self, x: torch.Tensor, *args: Any, **options: Any) -> Any:
        begin = _mark(x)
        out = self.network(x, *args, **options)
        self._calls.append((len(x), begin, _mark(x)))
        return out

    def per_sample(self) -> float:
        """Seconds of one call for one sample, over all calls so far; 0 before the first."""
        if len(self._calls) > 1 and self._cold:
            self._calls, self._cold = self._calls[1:], False
        if self._calls and not isinstance(self._calls[-1][1], float):
            torch.cuda.synchronize()
        samples, seconds = (0, 0.0) if self._cold else self._known
        for count, begin, end in self._calls:
            samples += count
            seconds += end - begin if isinstance(begin, float) else begin.elapsed_time(end) / 1e3
        if not self._cold:
            self._known, self._calls = (samples, seconds), []
        return seconds / samples if samples else 0.0


def _mark(x: torch.Tensor) -> Any:
    if not x.is_cuda:
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def waited(device: torch.device) -> float:
    """The clock in seconds, when the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class _Answered(Denoiser):
    """Answers at once."""

    def __init__(self, path: Path, answer: torch.Tensor) -> None:
        super().__init__(path)
        self.answer = answer

    def _combine(self, x: Any, t: float, p: float, r: float) -> Any:
        return self.answer


def arithmetic(table: Table, path: Path, x: torch.Tensor) -> float:
    """Seconds for one sample of what a table does beside asking the model, on the device and in the batch of x."""
    tree, answered = Tree([table], x.dtype), _Answered(path, x)
    seconds = []
    for _ in range(2):  # the first warms it up
        begin = waited(x.device)
        for _ in tree.walk(answered, x, lambda _: x):
            pass
        seconds.append(waited(x.device) - begin)
    return seconds[-1] / len(x)


def fitting(denoiser: Denoiser, x: torch.Tensor) -> int:
    """How many samples a network call may have on a GPU: a power of two, so that it fills at most half of the memory.

    The memory of a call is measured on x [n, ...]; that of the card decides, and not what others leave of it, so that
    one card always computes in the same batches.
    """
    before = torch.cuda.memory_allocated(x.device)
    torch.cuda.reset_peak_memory_stats(x.device)
    denoiser.velocity(x, denoiser.path.t_data)
    needed = (torch.cuda.max_memory_allocated(x.device) - before) / len(x)
    return power_below(torch.cuda.get_device_properties(x.device).total_memory / 2 / max(1.0, needed))


def power_below(most: float) -> int:
    """The largest power of two that is at most so much, from 1 to `_MOST`."""
    return 2 ** int(math.log2(min(_MOST, max(1.0, most))))
