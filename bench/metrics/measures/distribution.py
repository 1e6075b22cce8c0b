"""Metrics of the distribution of samples, in the features of an extractor, against its reference set.

Inception score, KID, precision and recall are torch-fidelity's, CMMD is that of its authors.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from fastsample.bench.cells import Cell
from fastsample.bench.metrics.extractors import refusal
from fastsample.bench.metrics.features import Extractor
from fastsample.bench.metrics.frechet import extrapolate, features_distance, influence, too_few
from fastsample.bench.metrics.kernel import mmd
from fastsample.bench.metrics.measure import Batch, Measure, Summary, Tools, measures
from fastsample.bench.metrics.moments import MetricUnavailable
from fastsample.results.metrics import REAL, Asked
from fastsample.results.statistics import Estimate


class _OfFeatures(Measure):
    """A metric in the features of an extractor, against the reference set of the model's own data."""

    compares = True  # with a reference set
    fewest = 0  # samples

    def __init__(self, asked: Asked, tools: Tools) -> None:
        super().__init__(asked, tools)
        self.name = asked.extractor  # as registered, without the digits of other weights

    def seen(self, cell: Cell) -> Extractor:
        """The extractor with the reference set of the cell's samples."""
        return self.tools.judge(self.name, cell)

    def why_not(self, cell: Cell) -> tuple[str, str]:
        model, shape = cell.model, cell.model.image_shape
        if len(shape) != 3:
            return model.id, f"its samples are no images: their shape is {shape}"
        if reason := refusal(self.name, shape):
            return model.id, reason
        if cell.samples < self.fewest:
            return f"{cell.samples} samples", f"it needs at least {self.fewest}"
        if not self.compares:
            return "", ""
        try:
            reference = self.tools.reference_of(self.name, cell)
        except MetricUnavailable as error:
            return model.id, str(error)
        if self.asked.metric.elsewhere and not reference.standard:
            other = f"{self.asked.metric.elsewhere}[{self.name}]"
            return model.id, f"its reference set {reference.id} is lossy, and a distance to it is no FID but {other}"
        if self.name in self.tools.extractors:  # what only the opened one knows
            try:
                self.ready(self.seen(cell), cell)
            except MetricUnavailable as error:
                return "", str(error)
        return "", ""

    def ready(self, judge: Extractor, cell: Cell) -> None:
        """Raise MetricUnavailable unless it can be computed with this judge."""

    def open(self) -> str:
        extractor = self.tools.extractor(self.name)
        self.asked = replace(self.asked, extractor=extractor.identity)
        metric = self.asked.metric
        kind = metric.kind if metric.extractor and not metric.elsewhere else "fd"
        told = f"{self.name}: the weights are not the published file; distances in them are"
        return f"{told} {kind}[{extractor.identity}]" if extractor.weights else ""

    def protocol(self, cell: Cell) -> dict[str, str]:
        extractor = self.tools.extractor(self.name)
        facts = {f"extractor[{extractor.identity}]": extractor.sha256}
        if self.compares and (known := self.seen(cell).reference):
            facts[f"reference[{extractor.identity}]"] = known.told
        return facts

    def arrays(self, cell: Cell) -> dict[str, int]:
        return dict.fromkeys((self.features, self.logits), cell.samples)

    @property
    def features(self) -> str:
        """The array of its features."""
        return f"features[{self.name}]"

    @property
    def logits(self) -> str:
        """The array of its logits: the features, where an extractor has nothing else."""
        return f"logits[{self.name}]" if self.tools.extractor(self.name).classifies else self.features

    def made(self, cell: Cell) -> dict[str, str]:
        return {"extractor": self.tools.extractor(self.name).sha256, "uint8": cell.protocol.uint8}

    def width(self, cell: Cell) -> int:
        known = self.seen(cell).reference if self.compares else None
        return 4 * len(known.mu) if known else 0

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        features, logits = batch.features(self.name)
        return {self.logits: logits, self.features: features}

    def estimate(self, cell: Cell, arrays: dict[str, np.ndarray]) -> Summary:
        name = self.asked.name(cell.samples)
        judge = self.seen(cell) if self.compares else self.tools.extractor(self.name)
        found = self.of(judge, arrays[self.features], arrays[self.logits])
        if isinstance(found, Estimate):
            return Summary({name: found.value}, {name: found})
        return Summary({name: found})

    def of(self, judge: Extractor, features: np.ndarray, logits: np.ndarray) -> Estimate | float:
        """The value of features [n, d] and logits [n, classes], with the effect of each sample where that is known."""
        raise NotImplementedError


@measures("fd", "fid", "sfid")
class Distance(_OfFeatures):
    """Frechet distance."""

    fewest = 2

    def of(self, judge: Extractor, features: np.ndarray, logits: np.ndarray) -> Estimate:
        given = features, judge.moments, judge.arithmetic
        return Estimate(features_distance(*given), (influence(*given),))

    def judge(self, cell: Cell) -> Summary:
        """The same distance of as many real images that are not of the reference set, as a scale."""
        real = self.seen(cell).real_distance(cell.samples)
        return Summary(facts={REAL.format(self.asked.name(cell.samples)): real} if real else {})


@measures("fd-inf", "fid-inf")
class Extrapolated(_OfFeatures):
    """Frechet distance of infinitely many samples."""

    def ready(self, judge: Extractor, cell: Cell) -> None:
        assert judge.reference
        if reason := too_few(cell.samples, len(judge.reference.mu)):
            raise MetricUnavailable(reason)

    def of(self, judge: Extractor, features: np.ndarray, logits: np.ndarray) -> Estimate:
        return extrapolate(features, judge.moments, device=judge.arithmetic)


@measures("is")
class InceptionScore(_OfFeatures):
    """Inception score, the mean of ten parts."""

    compares, fewest = False, 10

    def of(self, judge: Extractor, features: np.ndarray, logits: np.ndarray) -> float:
        from torch_fidelity.metric_isc import isc_features_to_metric

        return float(isc_features_to_metric(torch.from_numpy(logits))["inception_score_mean"])


class _AgainstImages(_OfFeatures):
    def ready(self, judge: Extractor, cell: Cell) -> None:
        judge.real_images  # noqa: B018 - raises where they are not here


@measures("kid")
class KernelDistance(_AgainstImages):
    """KID, the mean over subsets."""

    def of(self, judge: Extractor, features: np.ndarray, logits: np.ndarray) -> float:
        from torch_fidelity.metric_kid import kid_features_to_metric

        pair = torch.from_numpy(features), torch.from_numpy(judge.real_features)
        size = min(1000, *map(len, pair))
        result = kid_features_to_metric(*pair, kid_subset_size=size, verbose=False)
        return float(result["kernel_inception_distance_mean"])


@measures("cmmd")
class ClipDistance(_AgainstImages):
    """CMMD."""

    def of(self, judge: Extractor, features: np.ndarray, logits: np.ndarray) -> float:
        return mmd(features, judge.real_features)


@measures("precision", "recall")
class Manifolds(_AgainstImages):
    """Precision and recall of the manifolds of third neighbours."""

    fewest = 4

    def of(self, judge: Extractor, features: np.ndarray, logits: np.ndarray) -> float:
        return judge.manifolds(features)[self.asked.metric.kind]
