"""What a user sees of numbers that are none, of damaged files and of targets that are no files."""

import json
from pathlib import Path

import numpy as np
import pytest

from fastsample.bench.cells import plan_cells
from fastsample.bench.learning.distillation import Distillation
from fastsample.bench.metrics import solution as reference
from fastsample.bench.metrics.solution import reference_for
from fastsample.bench.request import Request
from fastsample.bench.sampling import Sampler, choose_device
from fastsample.models.catalogue import open_model
from fastsample.results.commands import bench_command
from fastsample.results.protocol import Protocol
from fastsample.results.store import Store
from fastsample.solvers.learned.shelf import add_table, learned_tables
from fastsample.solvers.spec import table_of
from fastsample.solvers.table_file import read_table

from ..command import command

BENCH = ["bench", "--model", "gmm2d", "--solver", "ddim,heun", "--nfe", "4", "--samples", "16", "--metrics", "psnr"]


@pytest.fixture
def run(monkeypatch, tmp_path):
    """A function that runs a command as a user does: (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def checked(*words):
        ended = command(*words)
        assert "Traceback" not in ended.out + ended.err
        return ended

    return checked


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(
    "words",
    [
        "bench --solver ddim --nfe 4 --model gmm2d --guidance", "bench --model gmm2d --classifier-scale",
        "sample --model gmm2d --guidance", "distill bns --model gmm2d-flow --guidance",
        "distill bns --model gmm2d-flow --sigma0", "distill bns --model gmm2d-flow --minutes",
        "export --model gmm2d --guidance", "explain --model gmm2d --guidance", "recommend store --target-psnr",
        "recommend store --max-seconds", "train flow cifar10-tiny-flow --max-minutes",
    ],
)  # fmt: skip
def test_a_number_that_is_none_is_refused_before_anything_is_written(words, value, run, tmp_path):
    code, _, err = run(*words.split(), value)
    assert code == 2
    assert "finite number" in " ".join(err.split()) or "Input should be" in err
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_a_number_that_is_none_in_a_file_of_a_sweep(run, tmp_path):
    (tmp_path / "sweep.toml").write_text('model = "gmm2d"\nguidance = nan\n')
    code, _, err = run("bench", "--config", "sweep.toml")
    assert (code, "guidance: Input should be a finite number" in err) == (2, True)
    assert not (tmp_path / "results-store").exists()


def test_a_store_with_a_damaged_row_goes_on(run, tmp_path):
    assert run(*BENCH, "--out", "store")[0] == 0
    before = {row.solver: row for row in Store("store", create=False).rows()}
    file = tmp_path / "store" / "rows" / f"{before['ddim'].cell}.json"
    file.write_text(file.read_text().replace('"guidance": 0.0', '"guidance": null'))
    name = file.name
    for words in (["show"], ["table"], ["plot", "-o", "a.png"], ["recommend", "--budget", "4"]):
        code, out, err = run(words[0], "store", *words[1:])
        assert (code, err.count(name)) == (0, 1), err
        assert "ddim" not in out.partition("Not tried")[0]  # which solvers were not is said below
    code, out, err = run(*BENCH, "--out", "store")
    assert (code, err.count(name)) == (0, 1)
    after = {row.solver: row for row in Store("store", create=False).rows()}
    times = {"seconds", "created"}
    assert after["ddim"].model_dump(exclude=times) == before["ddim"].model_dump(exclude=times)
    assert after["heun"] == before["heun"]  # and was not computed again
    assert run("show", "store")[2] == ""


def test_a_damaged_file_of_samples_costs_the_intervals_until_its_cell_is_computed_anew(run, tmp_path):
    run(*BENCH, "--out", "store")
    row = next(row for row in Store("store", create=False).rows() if row.solver == "ddim")
    file = tmp_path / "store" / "per_sample" / f"{row.cell}.npz"
    whole = file.read_bytes()
    file.write_bytes(whole[:-300])
    code, out, err = run("table", "store", "--format", "markdown")
    assert (code, err.count(file.name)) == (0, 1)
    lines = {line.split("|")[1].strip(): line for line in out.splitlines() if line.startswith("|")}
    assert ("±" in lines["DDIM"], "±" in lines["Heun (RK2)"]) == (False, True)
    assert run(*BENCH, "--out", "store")[0] == 0
    assert file.read_bytes() == whole
    assert run("table", "store")[2] == ""


def test_a_damaged_reference_is_named_and_made_anew(coarse, flips, monkeypatch, capsys):
    monkeypatch.setattr(reference, "ANALYTIC_NFE", 16)
    solutions = reference_for(open_model("gmm2d"), 0, Protocol(precision="float64"), "cpu")
    sampler = Sampler(choose_device("cpu"))
    cell = plan_cells(Request(model="gmm2d", precision="float64"), ("psnr",))[0][0]

    def solved(samples):
        return sampler.denoiser(cell, list(samples)), sampler.start(cell, list(samples))

    def made():
        arrays = solutions.batch(0, solved)
        return arrays["x"].numpy(), arrays["denoised"].numpy(), solutions.accuracy(solved, lambda x: x)

    *expected, bound = made()
    for name in ("0.npz", "accuracy.json"):
        named = 0
        file = solutions.folder / name
        for _ in flips(file, 8 * file.stat().st_size // 12):
            *found, accuracy = made()
            np.testing.assert_array_equal(found, expected)
            assert accuracy == bound
            named += capsys.readouterr().err.count(f"{file} is damaged")
            made()
            assert capsys.readouterr().err == ""  # it is sound again
        assert named >= 8  # a flipped bit of the mark of a checksum does no harm


def test_a_damaged_state_of_a_distillation_is_named_and_made_anew(tmp_path, monkeypatch, capsys):
    def job():
        return Distillation(open_model("gmm2d-flow"), Sampler(choose_device("cpu")), train=64, validation=64)

    expected, kept = job().run("bns", 4, steps=2, initial="euler"), []
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda self, **_: kept.append(self))  # as if killed before the end
        job().run("bns", 4, steps=2, initial="euler")
    (file,) = {path for path in kept if path.parent.name == "distill"}
    facts = json.loads(file.read_text())
    facts["fits"]["euler"]["fit"]["best"][0] += 0.5
    file.write_text(json.dumps(facts))
    assert job().run("bns", 4, steps=2, initial="euler").sha256 == expected.sha256
    assert capsys.readouterr().err.count(f"{file} is damaged") == 1


def test_a_table_is_read_back_before_it_is_kept(tmp_path):
    file = table_of("heun", open_model("gmm2d"), 4).model_copy(update={"solver": "mine"})
    target = add_table(file)
    with pytest.raises(ValueError, match="nfe"):
        add_table(file.model_copy(update={"title": "other", "nfe": 4.5}).model_copy(update={"nfe": 0}))
    with pytest.raises(ValueError, match=r"JSON compliant|no table"):
        add_table(file.model_copy(update={"guidance": float("nan")}))
    assert read_table(target) == file
    assert sum(one.solver == "mine" for one in learned_tables()) == 1
    assert [one.name for one in target.parent.iterdir()] == [target.name]


def test_guidance_keeps_all_its_digits(run):
    """In the name of a table and in the command that computes a row again."""
    file = table_of("heun", open_model("gmm2d"), 4).model_copy(update={"solver": "mine"})
    assert add_table(file.model_copy(update={"guidance": 1.2345678})) != add_table(
        file.model_copy(update={"guidance": 1.2345679})
    )
    run(*BENCH, "--out", "store")
    row = Store("store", create=False).rows()[0].model_copy(update={"guidance": 1.23456789})
    assert "--guidance 1.23456789 " in bench_command(row)


def test_what_a_command_writes_to_may_be_a_link_or_a_device(run, full_device, tmp_path):
    run(*BENCH, "--out", "store")
    code, _, err = run("baseline", "store", "-o", full_device)
    assert (code, "No space left" in err) == (1, True)
    assert full_device.is_char_device()
    for words, name in ((["baseline"], "base.json"), (["table", "--format", "csv"], "table.csv")):
        (tmp_path / name).symlink_to(tmp_path / f"real-{name}")
        assert run(words[0], "store", *words[1:], "-o", name)[0] == 0
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / f"real-{name}").stat().st_size > 50
