"""The files of weights that torch-fidelity's extractors were published with, and where they are on this machine.

torch-fidelity fetches what it does not find, and opens it as a file that may run anything; here nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch_fidelity.feature_extractor_clip import MODEL_METADATA as CLIP
from torch_fidelity.feature_extractor_clip import MODEL_URLS
from torch_fidelity.feature_extractor_dinov2 import MODEL_METADATA as DINOV2

from fastsample.results.metrics import CMMD, INCEPTION, LPIPS, SPATIAL

__all__ = [
    "CMMD",
    "EDM2",
    "INCEPTION",
    "LPIPS",
    "PUBLISHED",
    "SHARED",
    "SPATIAL",
    "TRUNK",
    "WeightsFile",
    "files_of",
    "given_file",
    "weights_file",
]

EDM2 = "dinov2-edm2"

TRUNK = "vgg16"  # the extractor on whose file LPIPS stands

# Extractors that see with the weights of another, otherwise.
SHARED = {SPATIAL: INCEPTION, EDM2: "dinov2-vit-l-14", CMMD: "clip-vit-l-14-336px"}


class WeightsFile(NamedTuple):
    """A published file: its name in torch's hub cache, its address, and its sha256, or what is known of its beginning.

    Of one of whose sha256 nothing is known, no file here counts as the published one.
    """

    name: str
    url: str
    sha256: str


_RELEASE = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
_DINOV2_SHA256 = {
    "dinov2-vit-s-14": "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
    "dinov2-vit-b-14": "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
    "dinov2-vit-l-14": "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
}

PUBLISHED = {
    INCEPTION: WeightsFile(
        "weights-inception-2015-12-05-6726825d.pth",
        f"{_RELEASE}weights-inception-2015-12-05-6726825d.pth",
        "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    ),
    "vgg16": WeightsFile(
        "vgg16-397923af.pth", "https://download.pytorch.org/models/vgg16-397923af.pth", "397923af"
    ),
    LPIPS: WeightsFile(
        "weights-vgg16-lpips.pth",
        f"{_RELEASE}weights-vgg16-lpips.pth",
        "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
    ),
    **{
        name: WeightsFile(f"{name}-{facts['hash']}.pt", MODEL_URLS[name], facts["hash"])
        for name, facts in CLIP.items()
    },
    **{
        name: WeightsFile(
            f"{hub}_pretrain.pth",
            f"https://dl.fbaipublicfiles.com/dinov2/{hub}/{hub}_pretrain.pth",
            _DINOV2_SHA256.get(name, ""),
        )
        for name, hub in DINOV2.items()
    },
}  # fmt: skip
PUBLISHED |= {name: PUBLISHED[other] for name, other in SHARED.items()}


def files_of(name: str) -> tuple[str, ...]:
    """The names under which the files of an extractor, or of LPIPS, can be given."""
    return (name, TRUNK) if name == LPIPS else (name, SHARED.get(name, name))


def given_file(name: str, given: Mapping[str, Path]) -> Path | None:
    """The file that is given for an extractor, by its name or by that of the one whose weights it shares."""
    return given.get(name) or given.get(SHARED.get(name, name))


def weights_file(name: str, given: Path | None = None) -> Path | None:
    """The file of an extractor's weights: the one that is given, else the published one in torch's hub cache.

    None where none is given and the extractor, which is not torch-fidelity's, finds its own.

    Raises:
        FileNotFoundError: if it is not there; it is not fetched.
    """
    if name not in PUBLISHED:
        return given
    published = PUBLISHED[name]
    file = given or Path(torch.hub.get_dir()) / "checkpoints" / published.name
    if file.exists():
        return file
    if INCEPTION in files_of(name):
        raise FileNotFoundError(
            f"the Inception-v3 weights are not at {file}; put torch-fidelity's {published.name} there or give "
            "--inception-weights FILE"
        )
    raise FileNotFoundError(
        f"the weights of {name} are not at {file}; put {published.url} there or give --extractor-weights {name}=FILE"
    )
