"""Public networks as `NetworkDenoiser` calls them: the path, the prediction, and the way from samples to images.

Every checkpoint is sampled in the units it was trained in; `PublicNetwork.decode` makes images of the samples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from fastsample.models.checkpoints import CheckpointError
from fastsample.models.convention import Convention
from fastsample.models.denoiser import Denoiser, NetworkDenoiser, Prediction
from fastsample.models.networks.edm_precond import edm_coefficients
from fastsample.models.path import DiscreteVP, Path
from fastsample.models.public.card_tables import Time
from fastsample.models.public.cards import Card, card_named
from fastsample.models.public.conversion import Converted, open_converted
from fastsample.models.public.fetch import fetch
from fastsample.models.public.known import conflict, identity
from fastsample.models.public.manifest import given_before

__all__ = ["PublicModel", "PublicNetwork", "fetch_all", "integrable", "path_of", "public_model"]

_SIGMA_DATA = 0.5
_DECODED_AT_ONCE = 8  # 512x512 images take gigabytes each in the decoder
_LAMBDA_MIN = -5.1
_RF_START = 1e-3
_PREDICTIONS: Mapping[str, Prediction] = {
    "x0": "x0", "edm-F": "x0", "eps": "eps", "score": "eps", "velocity": "velocity", "v": "v",
}  # fmt: skip
# What on a card decides numbers; the rest says where the file is and what is known of it.
_DECIDING = {
    "layout", "entry", "member", "rename", "network", "first_stage", "first_stage_range", "latent_shift",
    "latent_scale", "path", "time", "output", "output_sign", "data_range", "labels", "guided_channels",
}  # fmt: skip


class PublicNetwork(nn.Module):
    """A network with its card's conventions taken away: called as (x, t, labels), it returns a `Prediction`.

    t [batch] is what the network takes where the card's time is linear in the path's, and the path's own sigma where
    it is logarithmic. What the network returns becomes

        eps         its first channels (learned variances follow them; arXiv 2102.09672, section 3.1)
        velocity    output_sign times it: -1 where its time runs from data to noise
        v           alpha eps - sigma x0 (arXiv 2202.00512), output_sign times it
        eps         -sigma score (arXiv 2011.13456). The discrete VE networks know whole noise levels only, so
                    their label is rounded, and sigma is that of the label
        x0          c_skip x + c_out F(c_in x) for EDM's raw network F (arXiv 2206.00364, table 1, sigma_data 0.5)

    Args:
        card: of the model.
        network: called as network(x, label) or network(x, label, classes).
        first_stage: the autoencoder of a latent model.
        latent_scale: of the latents, where the file says it and not the card.
        classifier: of noisy images, called as classifier(x, label); returns logits [batch, classes].
    """

    def __init__(
        self,
        card: Card,
        network: nn.Module,
        first_stage: nn.Module | None = None,
        latent_scale: float | None = None,
        classifier: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.network, self.first_stage, self.classifier = network, first_stage, classifier
        self.conditional = card.labels.kind != "none"
        self.output, self.sign, self.time = card.output, card.output_sign, card.time
        self.image_range = card.first_stage_range if card.data_range == "latent" else card.data_range
        self.scale, self.shift = card.latent_scale or (latent_scale or 1.0,), card.latent_shift

    def forward(self, x: Tensor, t: Tensor, classes: Tensor | None = None, guide: float | Tensor = 0.0) -> Tensor:
        """The prediction, in the shape of x [batch, channels, height, width].

        It is for `classes` where the network is conditional; `guide` times the gradient of the classifier's
        log p(classes | x, t) is subtracted from it; one number for all, or [batch, 1, 1, 1].
        """
        labels = [classes] if self.conditional and classes is not None else []
        if isinstance(guide, Tensor) or guide:
            return self(x, t, classes) - guide * self._gradient(x, t, classes)
        label = t if self.time.map == "linear" else self.time.scale * t.log() + self.time.shift
        sigma = t.reshape(-1, *[1] * (x.ndim - 1))
        if self.output == "edm-F":
            c_skip, c_out, c_in, _ = edm_coefficients(sigma, _SIGMA_DATA)
            return c_skip * x + c_out * self.network(c_in * x, label, *labels)
        if self.output == "score":
            if self.time.map == "log":
                label = label.round()
                sigma = ((label - self.time.shift) / self.time.scale).exp().reshape(sigma.shape)
            return -sigma * self.network(x, label, *labels)
        return self.sign * self.network(x, label, *labels)[:, : x.shape[1]]

    def _gradient(self, x: Tensor, label: Tensor, classes: Tensor | None) -> Tensor:
        if self.classifier is None or classes is None:
            raise ValueError("classifier guidance needs a classifier, and classes to ask it for")
        # Sampling runs in inference mode, whose tensors autograd refuses: the clones are ordinary ones.
        with torch.inference_mode(False), torch.enable_grad():
            x, label, classes = x.clone().requires_grad_(), label.clone(), classes.clone()
            log_p = self.classifier(x, label).log_softmax(1).gather(1, classes[:, None])
            return torch.autograd.grad(log_p.sum(), x)[0]

    @property
    def units(self) -> tuple[Any, ...]:
        """What numbers in its samples mean: two networks whose units are equal can be asked at one x."""
        digest = hashlib.sha256()
        for value in [] if self.first_stage is None else self.first_stage.state_dict().values():
            digest.update(value.cpu().numpy().tobytes())
        return self.image_range, self.scale, self.shift, digest.hexdigest() if self.first_stage else ""

    def decode(self, x: Tensor) -> Tensor:
        """Images [batch, 3, height, width], about in [-1, 1] and not clipped, of samples."""
        images = x if self.first_stage is None else self._decoded(self.first_stage, x)
        return 2 * images - 1 if self.image_range == "[0,1]" else images

    def _decoded(self, first_stage: nn.Module, x: Tensor) -> Tensor:
        dtype = next(first_stage.parameters()).dtype
        scale, shift = (
            torch.tensor(values, dtype=dtype, device=x.device).reshape(-1, 1, 1) for values in (self.scale, self.shift)
        )
        parts = (x.to(dtype) / scale + shift).split(_DECODED_AT_ONCE)
        return torch.cat([first_stage.decode(part) for part in parts])  # type: ignore[operator]


@dataclass(frozen=True)
class PublicModel:
    """What is known of a public checkpoint, beside its network.

    Attributes:
        card: of the model.
        path: the path it was trained on.
        sha256: of the file that the weights were in.
        conditions: a hash of what beside that file decides numbers: the card, the files of a first stage and of a
            classifier, and the scale of its guidance.
        num_classes: classes that samples are drawn for; 0 for none.
        classifier_scale: of classifier guidance; 0 for none.
        classifier_sha256: of the published file of the classifier that guides; "" for none.
        id: the card's, with the first digits of the weights' hash where they are not the known ones.
        weights: how well the weights are known, in words.
    """

    card: Card
    path: Path
    sha256: str
    conditions: str
    num_classes: int
    classifier_scale: float = 0.0
    classifier_sha256: str = ""
    id: str = ""
    weights: str = ""

    def denoiser(
        self, module: nn.Module | None, labels: Tensor | None, guidance: float, precision: str | None
    ) -> Denoiser:
        """The denoiser of its network, or of a wrapper of that, for class indices int64 [batch].

        Raises:
            CheckpointError: for classifier-free guidance of a network that was not trained without labels, or beside
                classifier guidance.
        """
        card, given, null = self.card, labels, None
        if guidance and not card.labels.null:
            raise CheckpointError(f"{card.id} was not trained without labels: classifier-free guidance needs that")
        if labels is not None and card.labels.kind == "one-hot":
            given = nn.functional.one_hot(labels, card.labels.classes).float()
            null = torch.zeros_like(given)
        elif labels is not None:
            null = torch.full_like(labels, card.labels.classes)
        if guidance and self.classifier_scale:
            raise CheckpointError("classifier-free and classifier guidance exclude each other")
        time = (card.time.scale, card.time.shift) if card.time.map == "linear" else (1.0, 0.0)
        assert module is not None
        return NetworkDenoiser(
            module, Convention(self.path, _PREDICTIONS[card.output], *time), labels=given,
            guidance=guidance, null_labels=null, guided_channels=card.guided_channels,
            classifier_scale=self.classifier_scale, precision=precision,
        )  # fmt: skip


def path_of(card: Card) -> Path:
    """The path of a card on the interval that its network can be integrated on.

    Tables of the cosine schedule start at lambda = -5.1, where DPM-Solver's code clips them (arXiv 2206.00927): beyond
    it alpha falls too fast to be integrated. Rectified flows start at t = 0.001, the least time they were trained
    on (arXiv 2209.03003); some divide by it. Networks of eps start where lambda is finite: at alpha = 0 eps says
    nothing more than x.

    Raises:
        CheckpointError: for a card that cannot be sampled: an autoencoder or a classifier.
    """
    if card.path is None:
        what = "the first stage of latent models" if card.output == "image" else "a classifier that guides others"
        raise CheckpointError(f"{card.id} is {what} and cannot be sampled by itself")
    knows_sigma = card.path.name == "edm" and (card.time.map == "log" or card.time == Time())
    if card.output in ("score", "edm-F") and not knows_sigma:
        raise CheckpointError(f"{card.id}: output {card.output} needs the path edm, and sigma or its logarithm as time")
    path = card.path.build()
    if card.path.name == "flow" and card.network.name == "NCSNpp":
        return path.between(_RF_START, path.t_data)
    return integrable(path, _PREDICTIONS[card.output], cosine=card.path.schedule == "cosine")


def integrable(path: Path, prediction: Prediction, *, cosine: bool = False) -> Path:
    """A path on the interval that a network of that prediction can be integrated on; see `path_of`.

    Args:
        cosine: its betas are of the cosine schedule.
    """
    if isinstance(path, DiscreteVP) and cosine and path.betas[-1] < 1:
        return path.between(path.t_of_lam(_LAMBDA_MIN), path.t_data)
    if prediction == "eps":
        return path.between(path.t_finite, path.t_data)
    return path


def fetch_all(
    card: Card,
    home: FilePath,
    console: Console | None = None,
    checkpoint: FilePath | None = None,
    digits: str = "",
) -> list[FilePath]:
    """The converted files of a card: its own, and that of its first stage.

    Its own is made from `checkpoint` if that is given, or was made from the file whose sha256 begins with `digits`.

    Raises:
        DownloadError: when a file cannot be had, or is not the known one.
        CheckpointError: when it cannot be read, or does not fit its network.
    """
    files = [given_before(card, home, digits) if digits else fetch(card, home, console, checkpoint)]
    if isinstance(card.first_stage, str):
        files.append(fetch(card_named(card.first_stage), home, console))
    return files


def public_model(
    card: Card,
    home: FilePath,
    console: Console | None = None,
    checkpoint: FilePath | None = None,
    classifier_scale: float = 0.0,
    digits: str = "",
) -> tuple[PublicModel, PublicNetwork]:
    """The model of a card, guided by its classifier if there is a scale; what is not in `home` yet is fetched first.

    The network is in float32 and eval mode, on the CPU.

    Raises:
        CheckpointError: as `path_of` and `fetch_all`, or for guidance by a classifier that the card does not name.
    """
    path, guide = path_of(card), _classifier_card(card) if classifier_scale else None
    opened = [open_converted(file) for file in fetch_all(card, home, console, checkpoint, digits)]
    model = opened[0]
    sha256 = model.manifest.source_sha256
    first_stage = _first_stage(opened)
    facts = card.model_dump_json(include=_DECIDING) + "".join(one.manifest.source_sha256 for one in opened[1:])
    facts += code.told if (code := card.network.code) else ""
    classes, classifier, classifier_sha256 = card.labels.classes, None, ""
    if guide:
        found = open_converted(fetch(guide, home, console))
        classes, classifier = guide.network.config["out_channels"], found.network
        classifier_sha256 = found.manifest.source_sha256
        facts += f"{classifier_sha256} {classifier_scale}"
    network = PublicNetwork(card, model.network, first_stage, model.latent_scale, classifier).eval()
    if console and not (checkpoint or digits) and (told := conflict(card, sha256, home)):
        console.print(told, style="yellow", markup=False, highlight=False, soft_wrap=True)
    known = PublicModel(
        card, path, sha256, hashlib.sha256(facts.encode()).hexdigest()[:12],
        classes, classifier_scale, classifier_sha256, *identity(card, sha256, home),
    )  # fmt: skip
    return known, network


def _classifier_card(card: Card) -> Card:
    if not card.classifier:
        raise CheckpointError(f"{card.id} has no classifier, which classifier guidance needs")
    guide = card_named(card.classifier)
    if guide.output != "logits" or guide.time != card.time:
        raise CheckpointError(f"{guide.id} is no classifier of noisy images at the times of {card.id}")
    return guide


def _first_stage(opened: list[Converted]) -> nn.Module | None:
    return opened[1].network if len(opened) > 1 else opened[0].first_stage
