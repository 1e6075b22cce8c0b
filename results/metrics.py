"""Metrics: each written once. What it is called, its unit and direction, how many digits it is worth, what it needs,
which fields of a row decide it, and the sentence that stands below a table. Nothing else spells a metric's name.

A full name states the metric, its extractor and the number of samples: `fd[cifar10-resnet]@1000`. `fid` is kept for
Inception-v3 features against the data set's standard reference. Metrics that need no features measure the solver or
its trajectory, not the quality of images. How a metric is measured is in `bench.metrics.measures`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fastsample.datasets.names import nearest

__all__ = [
    "CMMD",
    "DEFAULT",
    "INCEPTION",
    "LPIPS",
    "MAIN",
    "METRICS",
    "OWN",
    "REAL",
    "SPATIAL",
    "Asked",
    "Metric",
    "Needs",
    "add_metric",
    "extractor_of",
    "metric_of",
    "own_metric",
    "parse_metric",
    "registered",
    "remember",
]

INCEPTION = "inception-v3-compat"
SPATIAL = "inception-v3-spatial"
CMMD = "clip-cmmd"
LPIPS = "lpips-vgg16"  # torch-fidelity's name of a distance of pairs, no extractor
Needs = Literal["images", "solution", "trajectory", "features"]

REAL = "real {}"  # of a row's protocol: the value of a metric, by its full name, for real images of another split
OWN = "metric[{}]"  # of a row's protocol: the file of a metric of a user's own, its hash and its facts


@dataclass(frozen=True)
class Metric:
    """The facts of a metric.

    Attributes:
        kind: its name, as `--metrics` takes it.
        about: what it measures, in one line.
        title: what sentences and tables call it; "" for its full name.
        unit: of its values, "" for none.
        higher: whether larger is better.
        digits: after the decimal point.
        needs: the `images`, the reference `solution`, the solver's `trajectory`, or `features` of an extractor.
        decided_by: fields of a row's protocol that decide it, `*` standing for its extractor.
        extractor, elsewhere: of one that belongs to an extractor, this, and its kind in another's features, where that
            is no longer to be called so.
        summaries: other names that are stored with it, which tables show on request alone.
        bound: the one of them that says up to where its values are known; they are logarithms then.
        mean: it is the mean of the per-sample array of its name, from which alone intervals come.
        sentence: for the foot of a table, with {reference} and {bounds} for those of its rows; "" for none.
    """

    kind: str
    about: str
    title: str = ""
    unit: str = ""
    higher: bool = False
    digits: int = 2
    needs: Needs = "features"
    decided_by: tuple[str, ...] = ("extractor[*]", "reference[*]", "uint8", "resize", "distance")
    extractor: str = ""
    elsewhere: str = ""
    summaries: tuple[str, ...] = ()
    bound: str = ""
    mean: bool = False
    sentence: str = ""

    def called(self, name: str) -> str:
        """What a sentence calls a full name of it."""
        kind, at, count = name.partition("@")
        return f"{self.title}{at}{count}" if kind == self.kind and self.title else name

    def head(self, name: str) -> str:
        """What the head of a table calls a full name of it: with its unit."""
        own = name.partition("@")[0] == self.kind and self.unit
        return f"{self.called(name)} [{self.unit}]" if own else self.called(name)


@dataclass(frozen=True)
class Asked:
    """A metric with the extractor whose features it takes, "" where it takes none."""

    metric: Metric
    extractor: str = ""

    def name(self, samples: int, measured: int | None = None) -> str:
        """The full name under which the value is stored.

        With the number of samples; of metrics that need no features only where it is measured on the first so many.
        In features of another extractor than its own, or of weights that are not the published ones (`NAME:DIGITS`),
        no distance is called `fid`.
        """
        if self.metric.needs == "features":
            of = f"@{samples}"
        else:
            of = f"@{measured}" if measured not in (None, samples) else ""
        if self.extractor == self.metric.extractor:
            return f"{self.metric.kind}{of}"
        return f"{self.metric.elsewhere or self.metric.kind}[{self.extractor}]{of}"


METRICS: dict[str, Metric] = {}


def add_metric(metric: Metric) -> Metric:
    """Register a metric.

    Raises:
        ValueError: for a kind that there is already.
    """
    if metric.kind in METRICS:
        raise ValueError(f"metric {metric.kind} is registered twice")
    METRICS[metric.kind] = metric
    return metric


def own_metric(name: str, **facts: Any) -> Metric:
    """A metric of a user's own, with what is said of it."""
    solution = ("psnr reference",) if facts.get("needs") == "solution" else ()
    return Metric(name, "a metric of one's own", decided_by=(OWN.format(name), *solution), **facts)


def remember(protocol: Mapping[str, str]) -> None:
    """Know the metrics of a user's own that a row has, as it tells them; nothing of them is run."""
    for field, told in protocol.items():
        name, facts = field.removeprefix("metric[")[:-1], re.search(r" (\{.*\})$", told)
        if field == OWN.format(name) and name not in METRICS and facts:
            said = json.loads(facts[1])
            known = {key: said[key] for key, kind in _SAID.items() if isinstance(said.get(key), kind)}
            METRICS[name] = own_metric(name, **known)


_SAID = {"title": str, "unit": str, "higher": bool, "digits": int, "needs": str}


def metric_of(name: str) -> Metric:
    """The facts of a full name or a kind, such as `fd` for `fd[cifar10-resnet]@1000`.

    A name that nothing here measures, of a store from elsewhere, has the facts that most metrics have.
    """
    return registered(name) or Metric(re.split(r"[\[@]", name)[0], "a metric that is not known here")


def registered(name: str) -> Metric | None:
    """The facts of a full name or a kind, if something here measures it."""
    kind = name if name in METRICS else re.split(r"[\[@]", name)[0]
    if kind in METRICS:
        return METRICS[kind]
    return next((metric for metric in METRICS.values() if kind in metric.summaries), None)


def extractor_of(name: str) -> str:
    """The extractor in a full name, which is the metric's own where it names none."""
    match = re.search(r"\[(.+)\]", name)
    return match[1] if match else metric_of(name).extractor


def parse_metric(text: str, default_extractor: str) -> Asked:
    """Read `psnr`, `curvature`, `fid`, `fd-inf`, `kid[inception-v3-compat]`, ...

    Raises:
        ValueError: for an unknown metric.
    """
    if text in METRICS and METRICS[text].needs != "features":
        return Asked(METRICS[text], METRICS[text].extractor)
    match = re.fullmatch(r"([\w-]+)(?:\[([^\[\]]+)\])?", text)
    if match is None or match[1] not in METRICS:
        raise ValueError(nearest(text, list(METRICS), "metric"))
    metric = METRICS[match[1]]
    if metric.needs != "features":
        return Asked(metric, (match[2] or metric.extractor) if metric.extractor else "")
    return Asked(metric, metric.extractor or match[2] or default_extractor)


_SAYS_FD = "fd[network]@N: Fréchet distance in the features of that network, from N samples; it is no FID."
_SAYS_LPIPS = (
    "LPIPS: mean over samples against the reference solution; lpips[network] is its form without its learned weights, "
    "in the features of that network, and no LPIPS."
)
_FEWEST = "needs at least 20 samples for each feature"

for _metric in (
    Metric(
        "psnr",
        "error of the solver in dB: against the reference solution of the same noise",
        title="PSNR",
        unit="dB",
        higher=True,
        needs="solution",
        decided_by=("psnr", "psnr reference"),
        summaries=("psnr_median", "psnr_pooled", "psnr_reference"),
        bound="psnr_reference",
        mean=True,
        sentence="PSNR: mean over samples against {reference}, which agrees with itself at half the steps to {bounds}.",
    ),
    Metric(
        "snr",
        "the same relative to the power of the reference solution, unclamped, in dB: for waveforms",
        title="SNR",
        unit="dB",
        higher=True,
        needs="solution",
        decided_by=("snr", "psnr reference"),
        mean=True,
    ),
    Metric(
        "truncation",
        "the same as root mean square distance per dimension; the store keeps it along time too",
        digits=4,
        needs="solution",
        decided_by=("truncation", "psnr reference"),
    ),
    Metric(
        "lpips",
        "perceptual distance (v0.1, VGG-16) from the reference solution; lpips[cifar10-resnet] needs no weights",
        title="LPIPS",
        digits=4,
        needs="solution",
        decided_by=("lpips", "psnr reference", "extractor[*]"),
        extractor=LPIPS,
        mean=True,
        sentence=_SAYS_LPIPS,
    ),
    Metric(
        "curvature",
        "of the solver's trajectory: mean square deviation of its slopes from the chord, per dimension",
        digits=4,
        needs="trajectory",
        decided_by=("curvature",),
    ),
    Metric(
        "straightness",
        "curvature over the mean square of the chord, relative; 0 for straight trajectories",
        digits=4,
        needs="trajectory",
        decided_by=("curvature",),
    ),
    Metric(
        "fid",
        "Frechet distance of Inception-v3 features to the data set's standard reference; needs its weights",
        extractor=INCEPTION,
        elsewhere="fd",
    ),
    Metric("fd", "Frechet distance in another extractor's features, as in fd[cifar10-resnet]", sentence=_SAYS_FD),
    Metric("fd-inf", f"fd extrapolated to infinitely many samples; {_FEWEST}"),
    Metric(
        "fid-inf",
        f"fid extrapolated to infinitely many samples; {_FEWEST}",
        extractor=INCEPTION,
        elsewhere="fd-inf",
    ),
    Metric(
        "sfid",
        "fid with spatial features of Inception-v3, as guided diffusion has them; to mu_s, sigma_s of the reference",
        extractor=SPATIAL,
        elsewhere="fd",
    ),
    Metric(
        "cmmd",
        "kernel distance (MMD^2, Gaussian kernel of width 10, times 1000) of CLIP ViT-L/14@336 embeddings",
        digits=3,
        extractor=CMMD,
    ),
    Metric(
        "clip-score",
        "100 max(cos, 0) of CLIP's embeddings of an image and its prompt, of text-to-image models; needs its weights",
        title="CLIP score",
        higher=True,
        needs="images",
        decided_by=("clip-score", "uint8"),
        mean=True,
    ),
    Metric("kid", "kernel distance (unbiased MMD^2, cubic kernel), mean over subsets", digits=5),
    Metric("is", "Inception score of the extractor's logits", higher=True),
    Metric("precision", "share of samples on the manifold of real images (k = 3)", higher=True, digits=3),
    Metric("recall", "share of real images on the manifold of samples (k = 3)", higher=True, digits=3),
):
    add_metric(_metric)

MAIN = "psnr"  # what tables show and `recommend` goes by where nothing is asked for
DEFAULT = (MAIN, "fd", "fid")
