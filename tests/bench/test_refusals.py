"""What a cell cannot have is told before anything is sampled."""

import io
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from fastsample.bench import cells, sampling
from fastsample.bench.metrics import moments
from fastsample.bench.metrics.features import EMBEDDED, Extractor
from fastsample.bench.metrics.reference import data_set
from fastsample.bench.request import Request, RequestError
from fastsample.bench.sampling import Sampler
from fastsample.bench.suite import suite
from fastsample.bench.sweep import run_sweep
from fastsample.datasets.image_set import DatasetError, ImageDataset
from fastsample.models.catalogue import open_model
from fastsample.models.public.cards import cards
from fastsample.results.metrics import METRICS
from fastsample.results.row import Row
from fastsample.results.store import Store
from fastsample.results.tables import table_of as paper_table
from fastsample.solvers.learned.shelf import add_table
from fastsample.solvers.spec import table_of

from ..command import command

ALL = ("psnr", *(kind for kind, metric in METRICS.items() if metric.needs == "features"))


@pytest.fixture(autouse=True)
def _few_images(monkeypatch):
    """Real images for KID and precision/recall."""
    images = torch.randint(0, 256, (40, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    few = ImageDataset("cifar10-jpeg", "test", images, torch.zeros(40, dtype=torch.int64))
    monkeypatch.setattr(moments, "dataset_named", lambda *_: few)


def absent(*_):
    raise DatasetError("the test split was not found.")


def sweep(out, **facts):
    screen = Console(file=io.StringIO(), width=400)
    facts = dict(solver="euler", nfe=1, samples=12, metrics=("psnr",), out=out) | facts
    failures = run_sweep(Request(**facts), screen)
    return failures, {row.model: row for row in Store(out).rows()}, screen.file.getvalue()


def test_a_model_of_other_data_has_no_metric_with_a_reference_set(checkpoint, tmp_path, coarse):
    others = {"a": "celeba", "c": "none", "d": "pairs of somebody heun NFE 4"}
    models = [checkpoint(name, data, size=32) for name, data in (others | {"own": "cifar10-jpeg train"}).items()]
    failures, rows, text = sweep(tmp_path / "s", model=models, metrics=(*ALL, "fd[inception-v3-compat]"))
    assert failures == []
    assert {f"fd[{EMBEDDED}]@12", f"precision[{EMBEDDED}]@12", f"recall[{EMBEDDED}]@12"} < set(rows["own"].metrics)
    assert f"reference[{EMBEDDED}]" in rows["own"].protocol
    for name, data in others.items():
        assert {one for one in rows[name].metrics if not one.startswith("psnr")} == {f"is[{EMBEDDED}]@12"}
        assert not any(fact.startswith("reference[") for fact in rows[name].protocol)
        (line,) = [line for line in text.splitlines() if f" for {name}:" in line]
        assert line == (
            f"without fid and fd and fd-inf and fid-inf and sfid and cmmd and kid and precision and recall "
            f"and fd[inception-v3-compat] for {name}: it is a model of "
            f"{data}, for which no reference set is known; --reference names one"
        )


def test_the_data_of_a_reflow_are_its_teachers():
    assert data_set("cifar10-jpeg train") == data_set("pairs of cifar10-tiny-flow bns NFE 8") == "cifar10-jpeg"
    assert data_set("pairs of edm-cifar10-uncond-vp heun NFE 35") == "cifar10"
    assert data_set("digits train, 80 %") == "digits"
    assert data_set("pairs of somebody heun NFE 8") == data_set("") == ""


def test_no_public_model_is_of_the_data_of_our_own_extractors():
    assert {data_set(card.data) for card in cards().values()}.isdisjoint({"cifar10-jpeg", ""})


def test_a_request_without_any_metric_left_is_refused(checkpoint, tmp_path, coarse):
    with pytest.raises(RequestError, match="no metric is left: it is a model of celeba, for which no reference set"):
        sweep(tmp_path / "s", model=checkpoint("other", "celeba", size=32), metrics=("fd",))
    with pytest.raises(RequestError, match="no metric is left: its samples are no images"):
        sweep(tmp_path / "s", model="gmm2d", metrics=("fd",))
    with pytest.raises(RequestError, match="unknown feature extractor 'vgg61'"):
        sweep(tmp_path / "s", model="gmm2d", metrics=("fd[vgg61]",))
    assert not (tmp_path / "s").exists()


def test_metrics_that_need_more_samples_or_images_are_left_out(checkpoint, tmp_path, coarse, monkeypatch):
    model = checkpoint("own", "cifar10-jpeg train", size=32)
    _, rows, text = sweep(tmp_path / "s", model=model, samples=3, metrics=("fd", "precision", "recall", "is", "fd-inf"))
    assert set(rows["own"].metrics) == {f"fd[{EMBEDDED}]@3"}
    assert "without precision and recall for 3 samples: it needs at least 4" in text
    assert "without is for 3 samples: it needs at least 10" in text
    assert "without fd-inf: an extrapolation in 192 features needs at least 3840 samples, not 3" in text

    monkeypatch.setattr(moments, "dataset_named", absent)
    sampled = []
    monkeypatch.setattr(Sampler, "sample", lambda *_: sampled.append(1))
    with pytest.raises(RequestError, match="no metric is left: the test split was not found"):
        sweep(tmp_path / "t", model=model, metrics=("kid", "precision"))
    assert sampled == []


def test_a_metric_that_is_to_be_had_another_day_makes_another_row(checkpoint, tmp_path, coarse, monkeypatch):
    model = checkpoint("own", "cifar10-jpeg train", size=32)
    with monkeypatch.context() as patch:
        patch.setattr(moments, "dataset_named", absent)
        _, rows, _ = sweep(tmp_path / "s", model=model, metrics=("fd", "kid"))
    assert set(rows["own"].metrics) == {f"fd[{EMBEDDED}]@12"}
    sweep(tmp_path / "s", model=model, metrics=("fd", "kid"))
    assert {f"kid[{EMBEDDED}]@12"} < set().union(*(row.metrics for row in Store(tmp_path / "s").rows()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"guidance": 2.0}, "gmm2d has no classes, which classifier-free guidance needs"),
        ({"guidance": 2.0, "model": "cifar10-tiny-vp"}, "has no classes"),
        ({"labels": "balanced"}, "gmm2d has no classes, and so no balanced labels"),
        ({"labels": "balanced", "model": "cifar10-tiny-vp"}, "no balanced labels"),
        ({"precision": "bf16"}, "gmm2d is exact and has no network to run in bf16"),
        ({"precision": "fp16"}, "no network to run in fp16"),
        ({"classifier_scale": 1.0}, "gmm2d has no classifier"),
        ({"transfer": True}, "--transfer lets learned solvers take another model's table, and none is asked for"),
        ({"solver": "bns", "model": "cifar10-tiny-flow", "nfe": 8, "grid": "uniform"}, "times of bns are their own"),
        ({"device": "meta"}, "device 'meta' is not available"),
        ({"seeds": 1000, "solver": ("euler", "heun"), "nfe": tuple(range(1, 102))}, "at most 100000 cells, not 202000"),
    ],
)
def test_an_option_without_use_is_refused_before_anything_is_sampled(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        sweep(tmp_path / "s", **{"model": "gmm2d"} | changes)
    assert not (tmp_path / "s").exists()


def test_guidance_of_a_network_that_never_saw_no_label_is_refused(checkpoint, tmp_path, monkeypatch):
    model = open_model(checkpoint("classes", classes=5))

    def never(*_):
        raise ValueError("was not trained without labels")

    monkeypatch.setattr(cells, "open_model", lambda *_, **__: replace(model, make=never))
    with pytest.raises(ValueError, match="was not trained without labels"):
        sweep(tmp_path / "s", model="x.safetensors", guidance=2.0)


def test_a_refused_model_leaves_the_others_alone(checkpoint, tmp_path, coarse):
    models = ("cifar10-tiny-vp", checkpoint("classes", classes=5))
    failures, rows, _ = sweep(tmp_path / "s", model=models, guidance=2.0, samples=2)
    assert failures == ["cifar10-tiny-vp: cifar10-tiny-vp has no classes, which classifier-free guidance needs"]
    assert rows["classes"].guidance == 2.0


def test_a_precision_that_the_device_does_not_compute_in_is_refused(tmp_path, monkeypatch):
    def warn(*_, **__):
        import warnings

        warnings.warn("In CPU autocast, but the target dtype is not supported. Disabling autocast.", stacklevel=1)

    sampling.check_precision("bf16", torch.device("cpu"))
    monkeypatch.setattr(torch, "autocast", warn)
    with pytest.raises(ValueError, match=r"bf16 is not available on cpu: .*not supported"):
        sweep(tmp_path / "s", model="cifar10-tiny-vp", precision="bf16")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("explain", "heun", "--guidance", 2), "cifar10-tiny-vp has no classes"),
        (("explain", "bns", "--nfe", 8, "--model", "cifar10-tiny-flow", "--grid", "uniform"), "of bns are its own"),
        (("export", "--solver", "heun", "--to", "json", "--transfer"), "--transfer chooses the table of a learned"),
        (("distill", "bns", "--model", "gmm2d-flow", "--guidance", 2), "gmm2d-flow has no classes"),
        (("bench", "--metrics", "psnr", "--inception-weights", "f.pth"), "--inception-weights is for fid"),
    ],
)
def test_other_commands_refuse_options_without_use_too(words, message, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, error = command(*words)
    assert code == 2
    assert message in error
    assert list(tmp_path.iterdir()) == []


def published_row(cell, model, reference):
    return Row(
        cell=cell, model=model, checkpoint_sha256="f" * 64, solver="scire", sampler="scire:mode=singlestep_fixed",
        title="SciRE-V1", grid="nsr", options={"mode": "singlestep_fixed"},
        times=[1.0, 0.0], nfe_asked=10, nfe=10, forwards=10, guidance=0.0, samples=50_000, seed=0, precision="float32",
        device="cuda", metrics={"fid@50000": 20.0}, seconds={"network": 9.0, "solver": 0.1, "metrics": 0.1,
        "total": 9.2},
        protocol={"reference[inception-v3-compat]": f"{reference}-train@inception-v3-compat n=50000"},
        versions={"fastsample": "0"}, created=cell,
    )  # fmt: skip


@pytest.mark.parametrize(("reference", "formed"), [("celeba", True), ("cifar10", False)])
def test_no_difference_from_a_published_number_is_formed_against_other_data(reference, formed, tmp_path):
    store = Store(tmp_path)
    model = next(card.id for card in cards().values() if card.data == "celeba")
    store.finish(published_row("a", model, reference), {})
    sheet = paper_table(store, metrics=["fid"], suite=suite())
    measured, published, difference = (entry.text for entry in sheet.lines[0][1])
    assert (measured, published != "-", difference != "-") == ("20.00", True, formed)
    assert any("protocols differ: reference of CelebA, here cifar10" in note for _, note in sheet.notes) != formed


def test_extractors_are_opened_only_for_models_that_they_can_judge(checkpoint, tmp_path, coarse, monkeypatch):
    monkeypatch.setattr(Extractor, "__call__", lambda *_: pytest.fail("features of a model of other data"))
    _, rows, _ = sweep(tmp_path / "s", model=checkpoint("other", "celeba", size=32), metrics=("psnr", "fd"))
    assert "psnr" in rows["other"].metrics


def test_a_table_for_every_model_transfers_nothing(tmp_path):
    model = open_model("gmm2d")
    add_table(table_of("heun", model, 4).model_copy(update={"solver": "mine"}))
    failures, rows, _ = sweep(tmp_path / "s", model="gmm2d", solver="mine", nfe=4)
    assert failures == []
    assert rows["gmm2d"].options == {}


def test_a_cell_without_any_number_is_not_a_success(tmp_path):
    words = ["--solver", "euler", "--nfe", "1", "--samples", "4", "--metrics", "fd", "--out", tmp_path / "s"]
    ended = command("bench", "--model", "gmm2d,cifar10-tiny-vp", *words)
    assert ended.code == 1
    assert "failed: gmm2d euler uniform NFE 1: none of the metrics asked for says anything about it\n" in ended.err
    assert [row.model for row in Store(tmp_path / "s").rows()] == ["cifar10-tiny-vp"]
