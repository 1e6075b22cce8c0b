"""Metrics of the distribution of samples, in the features of an extractor, against its reference set.

Inception score, KID, precision and recall are torch-fidelity's.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import torch

from fastsample.bench.cells import Cell
from fastsample.bench.metrics.extractors import refusal
from fastsample.bench.metrics.features import REFERENCES, Extractor
from fastsample.bench.metrics.frechet import extrapolate, features_distance, influence, too_few
from fastsample.bench.metrics.measure import Batch, Measure, Summary, Tools, measures
from fastsample.models.checkpoints import embedded_models, load_checkpoint, model_file
from fastsample.models.public.cards import cards
from fastsample.results.metrics import Asked
from fastsample.results.statistics import Estimate


@cache
def data_set(data: str) -> str:
    """The data set that a model's `data` names, as "cifar10-jpeg train" does; of a reflow's pairs the teacher's.

    "" where the teacher is not known here.
    """
    if not data.startswith("pairs of "):
        return data.partition(" ")[0]
    teacher = data.split()[2]
    if teacher in embedded_models():
        return data_set(load_checkpoint(model_file(teacher))[1].data)
    return cards()[teacher].data if teacher in cards() else ""


class _OfFeatures(Measure):
    """A metric for models of the reference set's data. The exact models have no data, and are compared with any."""

    compares = True  # with a reference set
    fewest = 0  # samples

    def __init__(self, asked: Asked, tools: Tools) -> None:
        super().__init__(asked, tools)
        self.name = asked.extractor  # as registered, without the digits of other weights

    @property
    def extractor(self) -> Extractor:
        return self.tools.extractor(self.name)

    def why_not(self, cell: Cell) -> tuple[str, str]:
        model, shape = cell.model, cell.model.image_shape
        if len(shape) != 3:
            return model.id, f"its samples are no images: their shape is {shape}"
        if reason := refusal(self.name, shape):
            return model.id, reason
        data = REFERENCES[self.name][0][0]
        if self.compares and model.network is not None and data_set(model.data) != data:
            return model.id, f"it is a model of {model.data}, and the reference set of {self.name} is {data}"
        if cell.samples < self.fewest:
            return f"{cell.samples} samples", f"it needs at least {self.fewest}"
        return "", ""

    def open(self) -> str:
        extractor = self.extractor
        self.asked = replace(self.asked, extractor=extractor.identity)
        told = f"{self.name}: the weights are not the published file; distances in them are fd[{extractor.identity}]"
        return told if extractor.weights else ""

    def protocol(self, cell: Cell) -> dict[str, str]:
        name = self.extractor.identity
        facts = {f"extractor[{name}]": self.extractor.sha256}
        return facts | ({f"reference[{name}]": self.extractor.reference_id} if self.compares else {})

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        features, logits = batch.features(self.name)
        return {f"features[{self.name}]": features, f"logits[{self.name}]": logits}

    def estimate(self, cell: Cell, arrays: dict[str, np.ndarray]) -> Summary:
        name = self.asked.name(cell.samples)
        found = self.of(arrays[f"features[{self.name}]"], arrays[f"logits[{self.name}]"])
        if isinstance(found, Estimate):
            return Summary({name: found.value}, {name: found})
        return Summary({name: found})

    def of(self, features: np.ndarray, logits: np.ndarray) -> Estimate | float:
        """The value of features [n, d] and logits [n, classes], with the effect of each sample where that is known."""
        raise NotImplementedError


@measures("fd", "fid")
class Distance(_OfFeatures):
    """Frechet distance."""

    def of(self, features: np.ndarray, logits: np.ndarray) -> Estimate:
        moments = self.extractor.moments
        return Estimate(features_distance(features, moments), (influence(features, moments),))


@measures("fd-inf", "fid-inf")
class Extrapolated(_OfFeatures):
    """Frechet distance of infinitely many samples."""

    def why_not(self, cell: Cell) -> tuple[str, str]:
        told = super().why_not(cell)
        if told[1] or self.name not in self.tools.extractors:
            return told
        return "", too_few(cell.samples, len(self.extractor.reference.mu))

    def of(self, features: np.ndarray, logits: np.ndarray) -> Estimate:
        return extrapolate(features, self.extractor.moments)


@measures("is")
class InceptionScore(_OfFeatures):
    """Inception score, the mean of ten parts."""

    compares, fewest = False, 10

    def of(self, features: np.ndarray, logits: np.ndarray) -> float:
        from torch_fidelity.metric_isc import isc_features_to_metric

        return float(isc_features_to_metric(torch.from_numpy(logits))["inception_score_mean"])


class _AgainstImages(_OfFeatures):
    def open(self) -> str:
        self.extractor.real_images  # noqa: B018 - raises where they are not here
        return super().open()


@measures("kid")
class KernelDistance(_AgainstImages):
    """KID, the mean over subsets."""

    def of(self, features: np.ndarray, logits: np.ndarray) -> float:
        from torch_fidelity.metric_kid import kid_features_to_metric

        pair = torch.from_numpy(features), torch.from_numpy(self.extractor.real_features)
        size = min(1000, *map(len, pair))
        result = kid_features_to_metric(*pair, kid_subset_size=size, verbose=False)
        return float(result["kernel_inception_distance_mean"])


@measures("precision", "recall")
class Manifolds(_AgainstImages):
    """Precision and recall of the manifolds of third neighbours."""

    fewest = 4

    def of(self, features: np.ndarray, logits: np.ndarray) -> float:
        return self.extractor.manifolds(features)[self.asked.metric.kind]
