"""How long the network itself takes, without a device sync inside the sampling loop."""

from __future__ import annotations

import time
from typing import Any

import torch

__all__ = ["TimedNetwork"]


class TimedNetwork(torch.nn.Module):
    """A network that adds up the time of its own calls.

    On a CUDA device the calls are bracketed by events, which are read only by `seconds()`.
    """

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network
        self._host = 0.0
        self._events: list[tuple[Any, Any]] = []

    def forward(self, x: torch.Tensor, *args: Any, **options: Any) -> Any:
        if x.is_cuda:
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            out = self.network(x, *args, **options)
            end.record()
            self._events.append((start, end))
            return out
        begin = time.perf_counter()
        out = self.network(x, *args, **options)
        self._host += time.perf_counter() - begin
        return out

    def seconds(self) -> float:
        """Seconds spent in the network since the last call of this method; waits for the device."""
        if self._events:
            torch.cuda.synchronize()
        total = self._host + sum(start.elapsed_time(end) for start, end in self._events) / 1e3
        self._host, self._events = 0.0, []
        return total
