"""Perceptual distances for training, in the form of LPIPS (arXiv 1801.03924): differences of unit-length features."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from fastsample.models.checkpoints import CheckpointError, ClassifierMetadata, check_fit, load_model
from fastsample.models.public.readers import read_weights

__all__ = ["TAPS", "FeatureDistance", "lpips_heads", "perceptual_named", "vgg16_features"]

_EPS = 1e-10
_VGG = "https://download.pytorch.org/models/vgg16-397923af.pth"
_HEADS = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-vgg16-lpips.pth"
_HEAD, _WIDTHS = "lin{}.model.1.weight", (64, 128, 256, 512, 512)
TAPS = (3, 8, 15, 22, 29)  # layers of VGG-16: the last activations before each pooling


class FeatureDistance(nn.Module):
    """Sum over the layers of a classifier of |f(a) - f(b)|^2, f of unit length over its channels, averaged over pixels.

    LPIPS without its learned weights per channel, on other features than VGG's: a substitute that needs no download.

    Args:
        classifier: with a method `maps`.
    """

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier.eval().requires_grad_(False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """[n] of images [n, channels, R, R] in [-1, 1]; differentiable in both."""
        total = a.new_zeros(len(a))
        for f, g in zip(self.classifier.maps(a), self.classifier.maps(b), strict=True):  # type: ignore[operator]
            total = total + (_unit(f) - _unit(g)).square().sum(1).mean((1, 2))
        return total

    def features(self, a: Tensor) -> Tensor:
        """[n, m] of images as above: the square distance of two is what `forward` returns."""
        maps = self.classifier.maps(a)  # type: ignore[operator]
        return torch.cat([(_unit(f) / f[0, 0].numel() ** 0.5).flatten(1) for f in maps], 1)


class _RfppLpips(nn.Module):
    """LPIPS as rfpp's loss has it, which is not LPIPS: VGG-16 at 224x224, average pooling in place of max pooling.

    Its files are looked for in torch's hub cache and read by `models.public.readers`; they are not fetched.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.features = vgg16_features(_published(_VGG))
        for name, layer in self.features.named_children():
            if isinstance(layer, nn.MaxPool2d):
                setattr(self.features, name, nn.AvgPool2d(2))
        for index, head in enumerate(lpips_heads(_published(_HEADS))):
            self.register_buffer(f"head{index}", head)
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).reshape(3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).reshape(3, 1, 1))
        self.eval().requires_grad_(False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """[n] of images [n, 3, R, R] in [-1, 1], which are not clamped."""
        total = a.new_zeros(len(a))
        for index, (f, g) in enumerate(zip(self._maps(a), self._maps(b), strict=True)):
            head = getattr(self, f"head{index}")
            total = total + ((_unit(f) - _unit(g)).square() * head).sum(1).mean((1, 2))
        return total

    def _maps(self, x: Tensor) -> list[Tensor]:
        mode = "area" if min(x.shape[2:]) > 224 else "bilinear"
        h, maps = F.interpolate((x - self.shift) / self.scale, (224, 224), mode=mode), []
        for index, layer in enumerate(self.features):
            h = layer(h)
            if index in TAPS:
                maps.append(h)
        return maps


def perceptual_named(name: str, device: str | torch.device = "cpu") -> nn.Module:
    """The distance of that name: "lpips", rfpp's, of files in torch's hub cache, or the id or file of a classifier.

    Raises:
        ValueError: for a model that is no classifier, or is not there.
    """
    if name == "lpips":
        return _RfppLpips().to(device)
    network, metadata, _ = load_model(name, device)
    if not isinstance(metadata, ClassifierMetadata):
        raise ValueError(f"perceptual {name}: it holds a {metadata.kind}, and features need a classifier")
    return FeatureDistance(network)


def vgg16_features(file: Path) -> nn.Sequential:
    """The layers of VGG-16 up to the last that LPIPS looks at, of torchvision's file.

    Raises:
        CheckpointError: for another file.
    """
    with torch.device("meta"):
        layers = torchvision.models.vgg16().features[: TAPS[-1] + 1]
    tensors = read_weights(file, "state-dict").tensors
    own = {name.removeprefix("features."): t.float() for name, t in tensors.items() if name.startswith("features.")}
    check_fit(layers, own, str(file))
    layers.load_state_dict(own, assign=True)
    return layers


def lpips_heads(file: Path) -> list[Tensor]:
    """The learned weights [1, channels, 1, 1] of LPIPS v0.1 for each of VGG-16's `TAPS`.

    Raises:
        CheckpointError: for another file.
    """
    tensors = read_weights(file, "state-dict").tensors
    for index, width in enumerate(_WIDTHS):
        name = _HEAD.format(index)
        if name not in tensors or tensors[name].shape != (1, width, 1, 1):
            raise CheckpointError(f"{file} has no weights of {width} channels under {name}")
    return [tensors[_HEAD.format(index)].float() for index in range(len(_WIDTHS))]


def _published(url: str) -> Path:
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not file.is_file():
        raise CheckpointError(f"LPIPS needs {file}, which is not there: fetch {url}")
    return file


def _unit(f: Tensor) -> Tensor:
    return f / (f.square().sum(1, keepdim=True) + _EPS).sqrt()
