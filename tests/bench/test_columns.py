"""Two rows that differ in one field of the protocol, at every command: never in one column, average or difference."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import fastsample.bench.metrics.measures  # noqa: F401 - registers them
from fastsample.bench.cells import plan_cells
from fastsample.bench.metrics.features import EMBEDDED
from fastsample.bench.metrics.measure import MEASURES, Tools
from fastsample.bench.request import Request
from fastsample.bench.run import Runner
from fastsample.bench.sampling import Sampler
from fastsample.bench.suite import suite
from fastsample.bench.worker import Worker
from fastsample.results.evidence import Comparison
from fastsample.results.metrics import parse_metric
from fastsample.results.papers.stated import deltas
from fastsample.results.protocol import Protocol
from fastsample.results.published import published
from fastsample.results.row import frame_of
from fastsample.results.store import Store

from ..command import command
from ..rows import row_of

FD = f"fd[{EMBEDDED}]@400"
GUIDED = {"guidance": 0.5, "guide": "other"}

# Of each field that decides a number: two protocols that differ in it alone, the metric, and the name in messages.
DIFFER = {
    "precision": ({}, {"precision": "float64"}, "psnr", "precision"),
    "guidance": ({}, {"guidance": 0.5}, "psnr", "guidance"),
    "guide": ({"guidance": 0.5}, GUIDED, "psnr", "guide"),
    "guidance_low": (GUIDED, GUIDED | {"guidance_low": 0.2}, "psnr", "guidance_low"),
    "guidance_high": (GUIDED, GUIDED | {"guidance_high": 3.0}, "psnr", "guidance_high"),
    "classifier_scale": ({"classifier_scale": 1.0}, {"classifier_scale": 2.0}, FD, "classifier guidance"),
    "labels": ({}, {"labels": "balanced"}, FD, "labels"),
    "prompts": ({"prompts": "one.txt"}, {"prompts": "two.txt"}, FD, "prompts"),
    "negative": ({"guidance": 0.5}, {"guidance": 0.5, "negative": "fog"}, "psnr", "negative"),
    "embedded_guidance": ({}, {"embedded_guidance": 2.0}, FD, "embedded_guidance"),
    "size": ({}, {"size": "512"}, "psnr", "size"),
    "tiling": ({}, {"tiling": True}, "psnr", "tiling"),
    "compiled": ({}, {"compiled": True}, "psnr", "compiled"),
    "t_end": ({}, {"t_end": 1e-4}, "psnr", "t_end"),
    "sigma_min": ({}, {"sigma_min": 0.02}, FD, "sigma_min"),
    "sigma_max": ({}, {"sigma_max": 50.0}, FD, "sigma_max"),
    "threshold": ({}, {"threshold": 0.995}, FD, "threshold"),
    "threshold_max": ({"threshold": 0.995}, {"threshold": 0.995, "threshold_max": 2.0}, "psnr", "threshold_max"),
    "uint8": ({}, {"uint8": "floor"}, FD, "uint8"),
    "reference": ({"reference": "cifar10-jpeg"}, {"reference": "folder"}, FD, f"reference[{EMBEDDED}]"),
    "reference_steps": ({}, {"reference_steps": 200}, "psnr", "psnr reference"),
}


@pytest.fixture(scope="module")
def cell():
    (found,), _ = plan_cells(Request(model="cifar10-tiny-vp", solver="heun", nfe=10, samples=400), ("psnr", "fd"))
    return replace(found, model=replace(found.model, num_classes=10))


@pytest.fixture(scope="module")
def tools():
    return Tools(Sampler(torch.device("cpu")))


@pytest.fixture
def facts(cell, tools, tmp_path):
    """A function: what the runner writes of a protocol into the field `protocol` of a row."""
    images = np.random.default_rng(0).integers(0, 256, (70, 32, 32, 3), np.uint8)
    np.savez(tmp_path / "folder.npz", arr_0=images)

    def told(protocol, tools=tools):
        if protocol.reference == "folder":
            protocol = protocol.model_copy(update={"reference": f"folder:{tmp_path}/folder.npz"})
        scale = f"of a classifier, scale {protocol.classifier_scale:g}" if protocol.classifier_scale else ""
        model = replace(cell.model, classifier=scale, guide=f"{protocol.guide} (sha256 0)" if protocol.guide else "")
        model = replace(model, prompts=(protocol.prompts,) if protocol.prompts else ())
        measures = [MEASURES[asked.metric.kind](asked, tools) for asked in map(_asked, ("psnr", "fd"))]
        for measure in measures:
            measure.open()
        return Runner(None, Worker(tools, measures)).facts(replace(cell, model=model, protocol=protocol))

    return told


def _asked(kind):
    return parse_metric(kind, EMBEDDED)


def stored(folder, facts, cells):
    """A store of rows (name, protocol, changes) with the data of each sample."""
    store = Store(folder)
    for name, asked, changes in cells:
        protocol, noise = Protocol(**asked), np.random.default_rng(len(name)).normal(30, 1, 400)
        row = row_of(
            name, model="cifar10-tiny-vp", protocol=facts(protocol), metrics={"psnr": noise.mean(), FD: 4.0},
            **protocol.model_dump() | changes,
        )  # fmt: skip
        store.finish(row, {"psnr": noise, f"influence[{FD}]": noise[None] - noise.mean()})
    return store


def test_every_field_is_tried():
    assert set(DIFFER) == set(Protocol.model_fields) - {"preset"}
    for field, (one, other, _, _) in DIFFER.items():
        assert {name for name, value in Protocol(**one) if value != getattr(Protocol(**other), name)} == {field}


@pytest.mark.parametrize("field", DIFFER)
def test_no_command_puts_them_together(field, facts, tmp_path):
    one, other, metric, told = DIFFER[field]
    euler = {"solver": "euler", "title": "Euler"}
    store = stored(tmp_path / "s", facts, [("one", one, {}), ("other", other, euler)])
    told = f": {told} is "
    for words in (
        ["table", store.folder, "--metric", metric],
        ["table", store.folder, "--metric", metric, "--published"],
        ["recommend", store.folder, "--budget", 10, "--metric", metric],
        ["plot", store.folder, "--metric", metric, "-o", tmp_path / "x.png"],
        ["baseline", store.folder, "-o", tmp_path / "x.json"],
    ):
        ended = command(*words)
        assert ended.code in (1, 2), words
        assert told in ended.err, words
    assert command("report", store.folder, "--images", 0, "-o", tmp_path / "x.html").code == 0
    assert told in (tmp_path / "x.html").read_text("utf-8").replace("&#39;", "'")
    assert Comparison(store).difference("one", "other", metric) is None
    shown = command("diff", store.folder, "one", "other")
    assert field in shown.out
    again = stored(tmp_path / "t", facts, [("one", one, {}), ("other", other, {})])
    assert command("table", again.folder, "--metric", metric).code == 2  # no average of repeated cells
    before, now = (stored(tmp_path / name, facts, [(name, asked, {})]) for name, asked in (("b", one), ("n", other)))
    assert command("baseline", before.folder, "-o", tmp_path / "b.json").code == 0
    ended = command("check", now.folder, "--baseline", tmp_path / "b.json")
    assert ended.code == 2
    assert told.strip(": ") in ended.out + ended.err


def test_the_same_but_for_the_name_of_the_protocol_stand_together(facts, tmp_path):
    euler = {"solver": "euler", "title": "Euler"}
    store = stored(tmp_path / "s", facts, [("one", {}, {}), ("other", {"preset": "edm"}, euler)])
    assert command("table", store.folder, "--metric", f"psnr,{FD}").code == 0
    assert Comparison(store).difference("one", "other", "psnr")


@pytest.mark.parametrize("field", ["uint8", "reference", "threshold", "t_end", "samples", "guide"])
def test_a_list_of_rows_says_in_what_they_differ(field, facts, tmp_path):
    one, other, _, told = DIFFER.get(field, ({}, {}, "", field))
    changes = {"samples": 200} if field == "samples" else {}
    store = stored(tmp_path / "s", facts, [("one", one, {}), ("other", other, changes)])
    heads = command("show", store.folder, "--format", "csv").out.splitlines()[0].split(",")
    assert told in heads
    alike = stored(tmp_path / "t", facts, [("one", one, {}), ("other", one, {"seed": 1})])
    assert told not in command("show", alike.folder, "--format", "csv").out.splitlines()[0].split(",")


def test_a_folder_with_other_images_is_another_reference(facts, tmp_path):
    told = [facts(Protocol(reference="folder")) for _ in range(2)]
    assert told[0] == told[1]
    field = f"reference[{EMBEDDED}]"
    np.savez(tmp_path / "folder.npz", arr_0=np.random.default_rng(1).integers(0, 256, (70, 32, 32, 3), np.uint8))
    judges = Tools(Sampler(torch.device("cpu")))
    again = facts(Protocol(reference="folder"), judges)
    assert again[field] != told[0][field]
    assert {name: text for name, text in again.items() if name != field} == {
        name: text for name, text in told[0].items() if name != field
    }


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"guidance": 0.4, "guide": "edm2-img64-xs-autog"}, "guide"),
        ({"guidance": 0.4}, "guide"),
        ({"guidance": 0.4, "guide": "edm2-img512-xs-uncond", "guidance_low": 0.2}, "guidance_low"),
        ({"guidance": 0.4, "guide": "edm2-img512-xs-uncond", "guidance_high": 5.0}, "guidance_high"),
        ({"guidance": 0.4, "guide": "edm2-img512-xs-uncond", "labels": "balanced"}, "labels"),
        ({"guidance": 0.4, "guide": "edm2-img512-xs-uncond"}, ""),
    ],
)
def test_a_published_number_of_a_guided_model_is_of_its_guide(asked, field):
    numbers = published()
    (number,) = numbers[numbers["model"] == "edm2-img512-xs-guided"].to_dict("records")
    row = row_of("a", model=number["model"], samples=50_000, metrics={"fid@50000": 2.9}, **asked)
    (record,) = frame_of([row]).to_dict("records")
    found = deltas(number, record | {"metric": "fid@50000"}, suite())
    fields = {delta.field for delta in found if delta.decides} & {"guide", "guidance_low", "guidance_high", "labels"}
    assert fields == ({field} if field else set())


def test_the_command_of_a_guided_number_has_its_guide():
    text = command("audit", "--model", "edm2-img512-xs-guided", "--format", "csv").out
    assert "--guide edm2-img512-xs-uncond" in text
