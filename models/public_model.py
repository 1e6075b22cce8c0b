"""Public networks as `NetworkDenoiser` calls them: the path, the prediction, and the way from samples to images.

Every checkpoint is sampled in the units it was trained in; `PublicNetwork.decode` makes images of the samples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath

import torch
from rich.console import Console
from torch import Tensor, nn

from fastsample.models.checkpoints import CheckpointError
from fastsample.models.conversion import Converted, fetch, open_converted
from fastsample.models.denoiser import Denoiser, NetworkDenoiser, Prediction
from fastsample.models.path import DiscreteVP, Path
from fastsample.models.public import Card, Network, Time, card_named

__all__ = ["PublicModel", "PublicNetwork", "fetch_all", "path_of", "public_model"]

_SIGMA_DATA = 0.5
_DECODED_AT_ONCE = 8  # 512x512 images take gigabytes each in the decoder
_LAMBDA_MIN = -5.1
_RF_START = 1e-3
_PREDICTIONS: Mapping[str, Prediction] = {
    "x0": "x0", "edm-F": "x0", "eps": "eps", "score": "eps", "velocity": "velocity",
}  # fmt: skip
# What on a card decides numbers; the rest says where the file is and what is known of it.
_DECIDING = {
    "layout", "entry", "member", "rename", "network", "first_stage", "latent_shift", "latent_scale", "path", "time",
    "output", "output_sign", "data_range", "labels", "guided_channels",
}  # fmt: skip


class PublicNetwork(nn.Module):
    """A network with its card's conventions taken away: called as (x, t, labels), it returns a `Prediction`.

    t [batch] is what the network takes where the card's time is linear in the path's, and the path's own sigma where
    it is logarithmic. What the network returns becomes

        eps         its first channels (learned variances follow them; arXiv 2102.09672, section 3.1)
        velocity    output_sign times it: -1 where its time runs from data to noise
        eps         -sigma score (arXiv 2011.13456). The discrete VE networks know whole noise levels only, so
                    their label is rounded, and sigma is that of the label
        x0          c_skip x + c_out F(c_in x) for EDM's raw network F (arXiv 2206.00364, table 1, sigma_data 0.5)

    Args:
        card: of the model.
        network: called as network(x, label) or network(x, label, classes).
        first_stage: the autoencoder of a latent model.
        latent_scale: of the latents, where the file says it and not the card.
    """

    def __init__(
        self, card: Card, network: nn.Module, first_stage: nn.Module | None = None, latent_scale: float | None = None
    ) -> None:
        super().__init__()
        self.network, self.first_stage = network, first_stage
        self.output, self.sign, self.time, self.data_range = card.output, card.output_sign, card.time, card.data_range
        self.scale, self.shift = card.latent_scale or (latent_scale or 1.0,), card.latent_shift

    def forward(self, x: Tensor, t: Tensor, *labels: Tensor) -> Tensor:
        """The prediction, in the shape of x [batch, channels, height, width]."""
        label = t if self.time.map == "linear" else self.time.scale * t.log() + self.time.shift
        sigma = t.reshape(-1, *[1] * (x.ndim - 1))
        if self.output == "edm-F":
            total = sigma**2 + _SIGMA_DATA**2
            out = self.network(x / total.sqrt(), label, *labels)
            return _SIGMA_DATA**2 / total * x + sigma * _SIGMA_DATA / total.sqrt() * out
        if self.output == "score":
            if self.time.map == "log":
                label = label.round()
                sigma = ((label - self.time.shift) / self.time.scale).exp().reshape(sigma.shape)
            return -sigma * self.network(x, label, *labels)
        return self.sign * self.network(x, label, *labels)[:, : x.shape[1]]

    def decode(self, x: Tensor) -> Tensor:
        """Images [batch, 3, height, width], about in [-1, 1] and not clipped, of samples."""
        if self.data_range == "[0,1]":
            return 2 * x - 1
        if self.first_stage is None:
            return x
        dtype = next(self.first_stage.parameters()).dtype
        scale, shift = (
            torch.tensor(values, dtype=dtype, device=x.device).reshape(-1, 1, 1) for values in (self.scale, self.shift)
        )
        parts = (x.to(dtype) / scale + shift).split(_DECODED_AT_ONCE)
        return torch.cat([self.first_stage.decode(part) for part in parts])  # type: ignore[operator]


@dataclass(frozen=True)
class PublicModel:
    """A public checkpoint, ready to be sampled.

    Attributes:
        card: of the model.
        network: in float32 and eval mode, on the CPU.
        path: the path it was trained on.
        sha256: of the published file.
        conditions: a hash of what beside that file decides numbers: the card, and the file of a first stage.
    """

    card: Card
    network: PublicNetwork
    path: Path
    sha256: str
    conditions: str

    def denoiser(
        self, module: nn.Module | None, labels: Tensor | None, guidance: float, autocast: torch.dtype | None
    ) -> Denoiser:
        """The denoiser of `network`, or of a wrapper of it given as `module`, for class indices int64 [batch].

        Raises:
            CheckpointError: for guidance of a network that was not trained without labels.
        """
        card, given, null = self.card, labels, None
        if guidance and not card.labels.null:
            raise CheckpointError(f"{card.id} was not trained without labels: classifier-free guidance needs that")
        if labels is not None and card.labels.kind == "one-hot":
            given = nn.functional.one_hot(labels, card.labels.classes).float()
            null = torch.zeros_like(given)
        elif labels is not None:
            null = torch.full_like(labels, card.labels.classes)
        linear = card.time.map == "linear"
        return NetworkDenoiser(
            module or self.network, self.path, _PREDICTIONS[card.output],
            time_scale=card.time.scale if linear else 1.0, time_shift=card.time.shift if linear else 0.0,
            labels=given, guidance=guidance, null_labels=null, guided_channels=card.guided_channels, autocast=autocast,
        )  # fmt: skip


def path_of(card: Card) -> Path:
    """The path of a card on the interval that its network can be integrated on.

    Tables of the cosine schedule start at lambda = -5.1, where DPM-Solver's code clips them (arXiv 2206.00927): beyond
    it alpha falls too fast to be integrated. Rectified flows start at t = 0.001, the least time they were trained
    on (arXiv 2209.03003); some divide by it.

    Raises:
        CheckpointError: for a card that cannot be sampled: an autoencoder, or a model on the sub-VP path.
    """
    if card.path is None:
        raise CheckpointError(f"{card.id} is the first stage of latent models and cannot be sampled by itself")
    knows_sigma = card.path.name == "edm" and (card.time.map == "log" or card.time == Time())
    if card.output in ("score", "edm-F") and not knows_sigma:
        raise CheckpointError(f"{card.id}: output {card.output} needs the path edm, and sigma or its logarithm as time")
    path = card.path.build()
    if isinstance(path, DiscreteVP) and card.path.schedule == "cosine":
        return path.between(path.t_of_lam(_LAMBDA_MIN), path.t_data)
    if card.path.name == "flow" and card.network.name == "NCSNpp":
        return path.between(_RF_START, path.t_data)
    return path


def fetch_all(
    card: Card, home: FilePath, console: Console | None = None, checkpoint: FilePath | None = None
) -> list[FilePath]:
    """The converted files of a card: its own, made from `checkpoint` if that is given, and that of its first stage.

    Raises:
        DownloadError: when a file cannot be had, or is not the known one.
        CheckpointError: when it cannot be read, or does not fit its network.
    """
    files = [fetch(card, home, console, checkpoint)]
    if isinstance(card.first_stage, str):
        files.append(fetch(card_named(card.first_stage), home, console))
    return files


def public_model(
    card: Card, home: FilePath, console: Console | None = None, checkpoint: FilePath | None = None
) -> PublicModel:
    """The model of a card; what is not in `home` yet is fetched and converted first.

    Raises:
        CheckpointError: as `path_of` and `fetch_all`, or for a file that was converted for another network.
    """
    path = path_of(card)
    opened = [open_converted(file) for file in fetch_all(card, home, console, checkpoint)]
    model = opened[0]
    if (model.manifest.network, model.manifest.first_stage) != (card.network, _own_first_stage(card)):
        raise CheckpointError(f"{card.id} was converted when its card named another network: remove its file in {home}")
    network = PublicNetwork(card, model.network, _first_stage(opened), model.latent_scale).eval()
    facts = card.model_dump_json(include=_DECIDING) + "".join(one.manifest.source_sha256 for one in opened[1:])
    conditions = hashlib.sha256(facts.encode()).hexdigest()[:12]
    return PublicModel(card, network, path, model.manifest.source_sha256, conditions)


def _own_first_stage(card: Card) -> Network | None:
    return card.first_stage if isinstance(card.first_stage, Network) else None


def _first_stage(opened: list[Converted]) -> nn.Module | None:
    return opened[1].network if len(opened) > 1 else opened[0].first_stage
