"""CLIP score of text-to-image models: how well an image fits its prompt, by transformers' CLIP (the extra `diffusers`).

100 max(cos(image, prompt), 0), as torchmetrics has it (arXiv 2104.08718 has 2.5 for 100). Images are uint8, resized to
CLIP's side by antialiased bicubic interpolation of torch, and cropped in the middle.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from fastsample.bench.cells import Cell
from fastsample.bench.metrics.extractors import weights_sha256
from fastsample.bench.metrics.measure import Batch, Measure, measures
from fastsample.bench.metrics.moments import MetricUnavailable
from fastsample.datasets.levels import to_uint8
from fastsample.models.checkpoints import CheckpointError
from fastsample.models.foreign.diffusers_files import import_extra, snapshot

_HUB = "openai/clip-vit-large-patch14"
_FILES = ["config.json", "model.safetensors", "tokenizer*", "vocab.json", "merges.txt", "special_tokens_map.json"]
_MEAN, _DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@measures("clip-score")
class ClipScore(Measure):
    """The mean over samples of 100 max(cos, 0) between the embeddings of an image and of its prompt."""

    model: Any
    tokenizer: Any
    told = ""

    def why_not(self, cell: Cell) -> tuple[str, str]:
        return ("", "") if cell.model.prompts else (cell.model.id, "it has no prompts that images could be scored by")

    def open(self) -> str:
        kind = self.asked.metric.kind
        given = self.tools.weights.get(kind)
        try:
            folder = given if given and given.is_dir() else snapshot(str(given or _HUB), None, _FILES)
            self._load(Path(folder))
        except CheckpointError as error:
            raise (ValueError if given else MetricUnavailable)(
                f"{error}; --extractor-weights {kind}=FOLDER names a CLIP of transformers, or OWNER/NAME on the hub"
            ) from error
        self.told = f"100 max(cos, 0) by CLIP, sha256 {weights_sha256(self.model)}"
        return ""

    def _load(self, folder: Path) -> None:
        library = import_extra("transformers")
        try:
            model = library.CLIPModel.from_pretrained(str(folder), use_safetensors=True, local_files_only=True)
            self.tokenizer = library.CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
        except Exception as error:  # of many classes
            raise CheckpointError(f"{folder} is no CLIP: {' '.join(str(error).split())[:300]}") from error
        self.model = model.float().eval().requires_grad_(False).to(self.tools.sampler.device)

    def protocol(self, cell: Cell) -> dict[str, str]:
        return {self.asked.metric.kind: self.told}

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        which = self.tools.sampler.labels(batch.cell, list(batch.indices))
        assert which is not None
        prompts = [batch.cell.model.prompts[label] for label in which.tolist()]
        text = self.tokenizer(
            prompts, padding=True, truncation=True, max_length=self.model.config.text_config.max_position_embeddings,
            return_tensors="pt",
        ).to(self.model.device)  # fmt: skip
        found = self.model(**text, pixel_values=self._pixels(to_uint8(batch.images, batch.cell.protocol.uint8)))
        cosine = F.cosine_similarity(found.image_embeds, found.text_embeds)
        return {self.asked.metric.kind: np.asarray(100 * cosine.clamp(min=0).double().cpu().numpy())}

    def _pixels(self, images: Tensor) -> Tensor:
        """uint8 [n, 3, H, W] as CLIP takes them."""
        side = self.model.config.vision_config.image_size
        height, width = images.shape[2:]
        scale = side / min(height, width)
        size = round(scale * height), round(scale * width)
        x = F.interpolate(images.to(self.model.device).float() / 255, size, mode="bicubic", antialias=True)
        mean, deviation = (x.new_tensor(values).reshape(3, 1, 1) for values in (_MEAN, _DEVIATION))
        top, left = ((length - side) // 2 for length in size)
        return (x[..., top : top + side, left : left + side].clamp(0, 1) - mean) / deviation
