"""`--labels 3` and `--labels 3,7`: samples of one class, or of several in turn, beside random and balanced ones."""

from dataclasses import replace

import pytest
import torch

from fastsample.bench.cells import plan_cells
from fastsample.bench.request import RequestError, read_request
from fastsample.bench.sampling import Sampler
from fastsample.models.noise import label_list, labels
from fastsample.results.commands import sample_command
from fastsample.results.protocol import Protocol
from fastsample.results.store import Store

from ..command import command


@pytest.mark.parametrize(
    ("given", "text"),
    [("3", "3"), ("3,7", "3,7"), (" 7, 3,", "7,3"), ("03", "3"), ([3, 7], "3,7"), (["3"], "3"), (3, "3"),
     ("balanced", "balanced"), (" random", "random")],
)  # fmt: skip
def test_labels_are_read(given, text):
    assert read_request(None, labels=given).labels == text


@pytest.mark.parametrize("given", ["", "-1", "3;7", "3.5", "three", "3,random", "3,3", "\u00b3", [], [3, 3], True])
def test_other_labels_are_refused(given):
    with pytest.raises(
        RequestError, match=r"^labels: (random, balanced, or classes such as 3 or 3,7|each class once), not"
    ):
        read_request(None, labels=given)


def test_samples_take_the_classes_in_turn():
    assert label_list("random", 10) == ()
    assert torch.equal(labels(0, [0, 1, 2, 11], 10, label_list("7,3", 10)), torch.tensor([7, 3, 7, 3]))
    assert torch.equal(labels(0, [5, 3], 10, label_list("3", 10)), torch.tensor([3, 3]))
    assert torch.equal(labels(0, range(25), 10, label_list("balanced", 10)), torch.arange(25) % 10)
    assert labels(0, range(8), 10).tolist() == labels(0, range(8), 10, label_list("random", 10)).tolist()


def test_a_row_of_one_class(checkpoint, tmp_path):
    model = checkpoint("ten", classes=10)
    words = ["--model", model, "--solver", "euler", "--nfe", "2"]
    rest = ["--samples", "4", "--metrics", "psnr", "--out", tmp_path / "s"]
    for text in ("3", "3,7", "7,3", "balanced", "random", "3, 7"):
        assert command("bench", *words, *rest, "--labels", text).code == 0
    rows = {row.labels: row for row in Store(tmp_path / "s").rows()}
    assert sorted(rows) == ["3", "3,7", "7,3", "balanced", "random"]
    assert rows["3,7"].protocol["labels"] == "classes 3,7 in turn"
    assert sample_command(rows["3,7"]).count("--labels 3,7") == 1
    assert command("sample", *words, "--samples", "4", "--labels", "3", "-o", tmp_path / "x.png").code == 0
    (cell,), _ = plan_cells(read_request(None, model=model, solver="euler", nfe=2, labels="3"), ())
    for parameter in cell.model.network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    one, two = (
        Sampler(torch.device("cpu")).sample(made, [0, 1])[0]
        for made in (cell, replace(cell, protocol=Protocol(labels="3,7")))
    )
    assert torch.equal(one[0], two[0])
    assert not torch.equal(one[1], two[1])


def test_a_class_that_the_model_does_not_have(checkpoint, tmp_path):
    words = ["--solver", "euler", "--nfe", "2", "--samples", "4"]
    for call in (["bench", "--metrics", "psnr", "--out", tmp_path / "s"], ["sample", "-o", tmp_path / "x.png"]):
        ended = command(*call, *words, "--model", checkpoint("ten", classes=10), "--labels", "3,10")
        assert (ended.code, ended.err) == (
            2,
            "error: --labels 3,10 is not for ten: its classes are 0 to 9, and 10 is none of them\n",
        )
        ended = command(*call, *words, "--model", "gmm-image", "--labels", "3")
        assert (ended.code, ended.err) == (2, "error: gmm-image has no classes, and so no 3 labels\n")
    assert not (tmp_path / "s").exists()
    assert not (tmp_path / "x.png").exists()
