"""A network that is in memory only while it is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

__all__ = ["Held"]


class Held:
    """Holds an opened network, lets go of it on request, and opens it again at its next need.

    Args:
        network: in eval mode; None for one that is opened at its first need.
        again: opens it; None for one that cannot be had twice, which is kept.
        parts: what it is made of, which is let go with it.
    """

    def __init__(
        self, network: nn.Module | None, again: Callable[[], nn.Module] | None = None, parts: Sequence[Held] = ()
    ) -> None:
        self._network, self.again, self._parts = network, again, parts

    @property
    def network(self) -> nn.Module:
        """The network; raises what `again` does."""
        if self._network is None:
            assert self.again
            self._network = self.again()
        return self._network

    def release(self) -> None:
        """Let go of the network."""
        if self.again:
            self._network = None
        for part in self._parts:
            part.release()
