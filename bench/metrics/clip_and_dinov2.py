"""CLIP and DINOv2 as torch-fidelity has them, with weights that are read here, where it would run or fetch code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch_fidelity import FeatureExtractorBase, register_feature_extractor
from torch_fidelity.feature_extractor_clip import FeatureExtractorCLIP, build_model
from torch_fidelity.feature_extractor_dinov2 import MODEL_METADATA, FeatureExtractorDinoV2

from fastsample.bench.metrics.extractor_weights import CMMD, EDM2, weights_file
from fastsample.models.checkpoints import CheckpointError, check_fit
from fastsample.models.networks.dinov2 import DINOV2, DinoV2
from fastsample.models.public.file_kinds import torchscript
from fastsample.models.public.readers import read_weights

__all__ = ["READ_HERE"]


_CLIP_MEAN, _CLIP_DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def _file(name: str, given: str | None) -> Path:
    file = weights_file(name, Path(given) if given else None)
    assert file
    return file


class ClipExtractor(FeatureExtractorCLIP):  # type: ignore[misc]
    """torch-fidelity's CLIP, of OpenAI's TorchScript archive or of its state dict."""

    def __init__(
        self, name: str, features_list: list[str], feature_extractor_weights_path: str | None = None, **_: Any
    ) -> None:
        FeatureExtractorBase.__init__(self, name, features_list)
        file = _file(name, feature_extractor_weights_path)
        tensors = read_weights(file, "torchscript" if torchscript(file) else "state-dict").tensors
        self.feature_extractor_internal_dtype = torch.float32
        try:
            self.model = build_model(tensors, torch.float32)
        except (KeyError, IndexError, ValueError, ZeroDivisionError, AssertionError) as error:
            raise CheckpointError(f"{file} does not fit {name}: it lacks or has otherwise {error}") from error
        self.resolution = self.model.visual.input_resolution


class CmmdClipExtractor(ClipExtractor):
    """The embeddings of CMMD (arXiv 2401.09603): ViT-L/14 at 336x336, of unit length.

    Its code cuts out the middle square and resizes it with Pillow, to uint8 again; torch-fidelity's resizes as
    TensorFlow 1 did.
    """

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """([n, 768],) of images uint8 [n, 3, H, W]."""
        side = min(images.shape[2:])
        top, left = ((length - side) // 2 for length in images.shape[2:])
        squares = images[..., top : top + side, left : left + side].permute(0, 2, 3, 1).cpu().numpy()
        size = (self.resolution,) * 2
        resized = [np.asarray(Image.fromarray(one).resize(size, Image.Resampling.BICUBIC)) for one in squares]
        x = torch.from_numpy(np.stack(resized)).to(images.device).permute(0, 3, 1, 2).float() / 255
        mean, deviation = x.new_tensor(_CLIP_MEAN), x.new_tensor(_CLIP_DEVIATION)
        return (F.normalize(self.model.visual((x - mean.reshape(3, 1, 1)) / deviation.reshape(3, 1, 1))),)


class DinoV2Extractor(FeatureExtractorDinoV2):  # type: ignore[misc]
    """torch-fidelity's DINOv2, with the network that is here in place of the one of torch's hub."""

    hub = ""  # its name there; "" for the one that belongs to the extractor's

    def __init__(
        self, name: str, features_list: list[str], feature_extractor_weights_path: str | None = None, **_: Any
    ) -> None:
        FeatureExtractorBase.__init__(self, name, features_list)
        file = _file(name, feature_extractor_weights_path)
        variant = (self.hub or MODEL_METADATA[name]).removeprefix("dinov2_")
        with torch.device("meta"):
            self.model = DinoV2(*DINOV2[variant], gated=variant == "vitg14")
        tensors = read_weights(file, "state-dict").tensors
        check_fit(self.model, tensors, str(file))
        self.model.load_state_dict({key: tensor.float() for key, tensor in tensors.items()}, assign=True)
        self.feature_extractor_internal_dtype = torch.float32


class Edm2DinoV2Extractor(DinoV2Extractor):
    """EDM2's `fd_dinov2`: ViT-L/14 of images resized to 224x224 by antialiased bicubic interpolation.

    torch-fidelity's resizes as TensorFlow 1 did, without antialiasing, so that their features are others.
    """

    hub = "dinov2_vitl14"

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """([n, 1024],) of images uint8 [n, 3, H, W]."""
        x = F.interpolate(images.float(), (224, 224), mode="bicubic", antialias=True) / 255
        mean, deviation = x.new_tensor([0.485, 0.456, 0.406]), x.new_tensor([0.229, 0.224, 0.225])
        return (self.model((x - mean.reshape(3, 1, 1)) / deviation.reshape(3, 1, 1)),)


register_feature_extractor(CMMD, CmmdClipExtractor)
register_feature_extractor(EDM2, Edm2DinoV2Extractor)

# What stands in for torch-fidelity's classes.
READ_HERE = {FeatureExtractorCLIP: ClipExtractor, FeatureExtractorDinoV2: DinoV2Extractor}
