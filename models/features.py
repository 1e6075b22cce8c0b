"""What a U-Net has in its narrowest layer at an evaluation, for solvers whose steps depend on it.

That layer is the last block of 8 x 8 pixels of an EDM encoder (`enc.8x8_block3`), or the last of the middle of an ADM
or latent-diffusion network (`middle_block`), as AMED reads them (arXiv 2312.00094).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fastsample.models.denoiser import Denoiser, NetworkDenoiser, Wrapped

if TYPE_CHECKING:
    import torch  # as in `models.denoiser`

__all__ = ["bottleneck", "narrowest"]

_LAYERS = (re.compile(r"(^|\.)enc\.8x8_block\d+$"), re.compile(r"(^|\.)middle_block\.\d+$"))


def narrowest(network: torch.nn.Module) -> str:
    """The name of that layer; "" where the network has none. Of a model and its guide it is the model's own."""
    names = [name for name, _ in network.named_modules()]
    for pattern in _LAYERS:
        found = [name for name in names if pattern.search(name)]
        if found:
            first = re.sub(r"\d+$", "", found[0])
            return [name for name in found if name.startswith(first)][-1]
    return ""


@contextmanager
def bottleneck(denoiser: Denoiser) -> Iterator[Callable[[], torch.Tensor | None]]:
    """Listens to that layer: what is returned gives its mean over channels [batch, pixels] at the first network call
    since it was asked last, which with classifier-free guidance is the conditional one; None where there was no call.

    Raises:
        ValueError: for a network that has no such layer, or whose layer is not heard (a compiled one).
    """
    while isinstance(denoiser, Wrapped):
        denoiser = denoiser.base
    if not isinstance(denoiser, NetworkDenoiser):
        yield lambda: None
        return
    network, calls = denoiser.network, list[bool]()
    if not (name := narrowest(network)):
        raise ValueError("its network has no 8 x 8 encoder block or middle block, whose output this solver reads")
    heard: list[torch.Tensor] = []

    def listen(_: object, __: object, output: torch.Tensor) -> None:
        if not heard:
            heard.append(output.detach().mean(1).flatten(1))

    def take() -> torch.Tensor | None:
        if calls and not heard:
            raise ValueError("the inner layers of this network cannot be listened to: leave --compile out")
        found = heard[0] if heard else None
        heard.clear()
        calls.clear()
        return found

    hooks = [
        network.get_submodule(name).register_forward_hook(listen),
        network.register_forward_hook(lambda *_: calls.append(True)),
    ]
    try:
        yield take
    finally:
        for hook in hooks:
            hook.remove()
