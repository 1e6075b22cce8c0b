"""Measures and runners on the CPU."""

import torch

from fastsample.bench.metrics import measures  # noqa: F401 - registers them
from fastsample.bench.metrics.measure import MEASURES, Tools
from fastsample.bench.run import Runner
from fastsample.bench.sampling import Sampler
from fastsample.bench.worker import Worker
from fastsample.results.metrics import parse_metric


def runner_of(store, batch_size=8, kinds=("psnr",), tools=None):
    """A runner that measures these metrics."""
    tools = tools or Tools(Sampler(torch.device("cpu")))
    return Runner(store, Worker(tools, [measure_of(kind, tools) for kind in kinds], batch_size=batch_size))


def row_of(runner, cell):
    """The row of a cell, computed where it is not there; raises what a part raised."""
    for part in [] if runner.finished(cell) else runner.missing(cell):
        for _, found in runner.worker.measure([cell], *part):
            if isinstance(found, Exception):
                raise found
            runner.add(cell, part, found)
    return runner.finished(cell) or runner.commit(cell)


def measure_of(text, tools=None, extractor=None):
    """The measure of a metric, such as `fd[cifar10-resnet]`; of features in those of an extractor, if one is given."""
    asked = parse_metric(text, extractor.name if extractor else "cifar10-resnet")
    tools = tools or Tools(Sampler(torch.device("cpu")), extractors={extractor.name: extractor} if extractor else {})
    return MEASURES[asked.metric.kind](asked, tools)


def value_of(kind, extractor, features, logits=None):
    """A metric of features [n, d] and logits [n, classes] in an extractor's eyes, as a number."""
    found = measure_of(kind, extractor=extractor).of(extractor, features, logits)
    return getattr(found, "value", found)
