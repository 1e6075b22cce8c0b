"""`fastsample distill` from the command line to a row of the benchmark, on an exact model."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from fastsample.bench.learning.distillation import TRAIN_SEED, VALIDATION_SEED, Distillation
from fastsample.bench.request import RequestError, read_request
from fastsample.bench.sampling import Sampler, choose_device
from fastsample.models.catalogue import open_model
from fastsample.models.noise import normal
from fastsample.models.path import VPLinear
from fastsample.results.store import Store
from fastsample.solvers.learned.pairs import mean_psnr
from fastsample.solvers.learned.shelf import add_table, find_table, learned_tables, table_plan
from fastsample.solvers.solver import get
from fastsample.solvers.spec import table_of
from fastsample.solvers.table import play
from fastsample.solvers.table_file import TableFileError, read_table

from ..command import command

SMALL = ["--train", "64", "--validation", "64", "--steps", "3"]


def refused(told, *words):
    ended = command(*words)
    assert ended.code == 2
    assert re.search(told, " ".join(ended.err.split()))


def learn(name="gmm2d-flow", nfe=4, kind="bns", **choices):
    job = Distillation(open_model(name), Sampler(choose_device("cpu")), train=64, validation=64)
    return job.run(kind, nfe, steps=3, **choices)


def test_from_the_command_line_to_a_row(tmp_path):
    assert command("distill", "bns", "--model", "gmm2d-flow", "--nfe", "4,6", *SMALL).code == 0
    files = {file.nfe: file for file in learned_tables() if file.model == "gmm2d-flow"}
    assert {nfe: file.training.free_parameters for nfe, file in files.items()} == {4: 17, 6: 32}
    assert files[4].training.validation_psnr > files[4].training.initial_psnr + 3
    assert (files[4].training.train_seed, files[4].training.validation_seed) == (TRAIN_SEED, VALIDATION_SEED)
    words = ["--model", "gmm2d-flow", "--solver", "bns,midpoint", "--nfe", "4,6,8", "--samples", "64"]
    result = command("bench", *words, "--metrics", "psnr", "--out", tmp_path / "store")
    assert result.code == 0
    assert "there are tables for NFE 4, 6" in " ".join((result.out + result.err).split())
    rows = {(row.solver, row.nfe_asked): row for row in Store(tmp_path / "store").rows()}
    assert set(rows) == {("bns", 4), ("bns", 6), ("midpoint", 4), ("midpoint", 6), ("midpoint", 8)}
    row = rows["bns", 4]
    assert row.nfe == 4
    assert row.grid == "learned"
    assert row.protocol["table"] == files[4].sha256
    assert row.protocol["trained for"].startswith("gmm2d-flow")
    assert "Adams-Bashforth-Moulton 3, version" in row.protocol["trained against"]
    assert row.metrics["psnr"] > rows["midpoint", 4].metrics["psnr"] + 10


def test_each_long_stage_tells_evaluations_or_steps_of_how_many():
    lines, model = [], open_model("gmm2d-flow")
    job = Distillation(model, Sampler(choose_device("cpu")), train=64, validation=64, progress=lines.append)
    job.run("bns", 4, steps=2, initial="euler@uniform")
    total = f"{64 * 641:,}"
    for kind in ("training", "validation"):
        told = [line for line in lines if line.startswith(f"solutions of 64 {kind} pairs: ")]
        assert len(told) == 641
        assert told[-1].endswith(f": {total} of {total} evaluations")
    steps = [line for line in lines if line.startswith("NFE 4, from euler@uniform: step ")]
    assert [line.split(": step ")[1].split(",")[0] for line in steps] == ["1 of 2", "1 of 2", "2 of 2"]


def test_the_same_arguments_give_the_same_table():
    assert learn().sha256 == learn().sha256
    assert learn().sha256 != learn(seed=1, initial="unipc").sha256


def test_what_is_learned_with_the_same_options_is_not_learned_again(tmp_path):
    words = ["distill", "bns", "--model", "gmm2d-flow", "--nfe", "2", "--train", "32", "--validation", "32"]
    words += ["--steps", "1", "--initial", "euler@uniform"]
    file = tmp_path / "home" / "tables" / "bns-gmm2d-flow-2.json"
    assert "is learned already" not in command(*words).out
    before = file.read_bytes()
    ended = command(*words)
    assert f"bns at NFE 2 is learned already: {file}; --again learns it anew" in ended.out
    assert file.read_bytes() == before
    for more in (
        ["--again"], ["--seed", 1], ["--steps", 2], ["--evaluations", 9000], ["--train", 40], ["--validation", 40],
        ["--initial", "euler@quadratic"], ["--sigma0", 2], ["--loss", "mse"], ["--soft"], ["--minutes", 5],
    ):  # fmt: skip
        ended = command(*words, *more)
        assert (ended.code, "is learned already" in ended.out) == (0, False), more
    assert "is learned already" not in command(*words).out  # another's file lay there


def test_every_kind_is_learned_and_played():
    for kind in ("dss", "rk1-bespoke", "rk2-bespoke", "times"):
        file = learn(kind=kind)
        assert file.training.validation_psnr > file.training.initial_psnr, kind
        model = open_model("gmm2d-flow")
        x = Distillation(model, Sampler(choose_device("cpu")), train=64, validation=64).pairs(TRAIN_SEED).x
        denoiser = model.make(None, None, 0.0, None)
        assert (table_plan(file)(denoiser, x) == play(file.table, denoiser, x)).all()
        assert denoiser.nfe == 8


def test_sigma_0_and_a_named_start():
    file = learn(initial="dpmpp-2m@uniform", sigma0=3.0)
    assert file.training.initial == "dpmpp-2m@uniform with sigma_0 = 3"
    assert file.training.validation_psnr > file.training.initial_psnr


def test_a_table_is_for_its_model_alone(tmp_path):
    file = learn()
    add_table(file)
    model = open_model("gmm2d-flow")
    assert find_table("bns", model, 4) == file
    with pytest.raises(ValueError, match=r"NFE 5 on gmm2d-flow: there are tables for NFE 4; `fastsample distill bns"):
        find_table("bns", model, 5)
    other = file.model_copy(update={"model": "another-flow", "model_sha256": "0" * 64, "nfe": 4})
    assert add_table(other) != add_table(file)
    (tmp_path / "home" / "tables" / "bns-gmm2d-flow-4.json").unlink()
    with pytest.raises(ValueError, match=r"no table for this model .* but for another-flow.*--transfer"):
        find_table("bns", model, 4)
    words = ["bench", "--model", "gmm2d-flow", "--solver", "bns", "--nfe", "4", "--samples", "16", "--metrics", "psnr"]
    refused("--transfer", *words, "--out", str(tmp_path / "store"))
    assert command(*words, "--transfer", "--out", str(tmp_path / "store")).code == 0
    (row,) = Store(tmp_path / "store").rows()
    assert row.options == {"transfer": "another-flow"}
    assert row.protocol["trained for"] == f"another-flow ({'0' * 16})"
    with pytest.raises(ValueError, match="no table for this model"):
        find_table("bns", open_model("gmm2d"), 5, transfer=True)  # tables of its path are for NFE 4, 8, 16


def test_other_weights_and_another_guidance_have_no_table(tmp_path):
    file, model = learn(), open_model("gmm2d-flow")
    for change in ({"model_sha256": "0" * 64}, {"guidance": 2.0}):
        add_table(file.model_copy(update=change))
    assert len(list((tmp_path / "home" / "tables").glob("*.json"))) == 2
    words = ["bench", "--model", "gmm2d-flow", "--solver", "bns", "--nfe", "4", "--samples", "16", "--metrics", "psnr"]
    refused("no table for this model and guidance", *words, "--out", str(tmp_path / "store"))
    assert find_table("bns", model, 4, guidance=2.0).guidance == 2.0
    with pytest.raises(ValueError, match="no table for this model and guidance"):
        find_table("bns", model, 4, guidance=1.0)
    add_table(file)
    assert find_table("bns", model, 4) == file
    (tmp_path / "home" / "tables" / "bns-gmm2d-flow-w2-4.json").unlink()
    with pytest.raises(ValueError, match="no table for this model and guidance"):
        find_table("bns", model, 4, guidance=2.0)  # what was learned without guidance does not fit
    add_table(file.model_copy(update={"guidance": 2.0}))
    (tmp_path / "home" / "tables" / "bns-gmm2d-flow-4.json").unlink()
    assert find_table("bns", model, 4, guidance=1.0, transfer=True).guidance == 0.0  # a shipped one of its path


def test_the_best_table_is_kept_not_the_last():
    """Four training pairs are learned by heart: validation falls after two steps."""
    job = Distillation(open_model("gmm2d-flow"), Sampler(choose_device("cpu")), train=4, validation=64)
    file = job.run("bns", 6, steps=8, initial="euler@uniform")
    scores = [score for _, _, score in file.training.history]
    assert max(scores) > scores[-1] + 1
    assert file.training.validation_psnr == max(scores)
    assert mean_psnr(file.table, job.pairs(VALIDATION_SEED)) == pytest.approx(max(scores), abs=0.05)


def test_training_validation_and_benchmarks_share_no_noise():
    job = Distillation(open_model("gmm2d-flow"), Sampler(choose_device("cpu")), train=64, validation=64)
    sets = [job.pairs(TRAIN_SEED).x, job.pairs(VALIDATION_SEED).x]
    sets += [normal(seed, range(64), (2,)).double() for seed in (0, 1, 101, 102, 2**31 - 1)]
    rows = [{tuple(row) for row in noise.tolist()} for noise in sets]
    assert len(set.union(*rows)) == sum(map(len, rows)) == 7 * 64
    file = job.run("bns", 4, steps=1)
    assert file.training.train_seed != file.training.validation_seed
    assert min(file.training.train_seed, file.training.validation_seed) >= 2**31


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:200], "is no table"),
        (lambda text: text.replace('"version": 1', '"version": 2'), "version"),
        (lambda text: _with(text, times=lambda t: t[::-1]), "do not run from noise to data"),
        (lambda text: _with(text, a=lambda a: [float("nan"), *a[1:]]), "is no table"),
        (lambda text: _with(text, b=lambda b: b[:-1]), "rows"),
        (lambda text: _with(text, times=lambda t: [*t[:-1], 1.5]), "do not run|outside"),
        (lambda text: _with(text, path=lambda p: p | {"name": "no-path"}), "unknown path"),
        (lambda text: _with(text, path=lambda p: p | {"speed": 1.0}), "path"),
    ],
    ids=["truncated", "version", "decreasing", "nan", "rows", "interval", "path", "constant"],
)
def test_damaged_tables_are_refused(tmp_path, change, message):
    file = tmp_path / "table.json"
    file.write_text(change(table_of("unipc", open_model("gmm2d-flow"), 6).to_json()))
    with pytest.raises(TableFileError, match=message):
        read_table(file)


def _with(text, **changes):
    facts = json.loads(text)
    return json.dumps(facts | {name: change(facts[name]) for name, change in changes.items()})


def test_traced_tables_fit_every_model_of_their_path():
    file = table_of("heun", open_model("gmm2d"), 6)
    assert (file.model, file.solver, file.nfe, file.noise_path) == ("", "heun", 6, VPLinear())
    with pytest.raises(ValueError, match="adaptive"):
        table_of("dopri5", open_model("gmm2d"), 6)
    assert table_of("unipc:order=2", open_model("gmm2d"), 6).options == {"order": 2}
    assert get("heun").plan(VPLinear(), 6).nfe == 6


def test_wrong_requests():
    refused("unknown learned solver 'bnz'; did you mean bns", "distill", "bnz")
    refused("did you mean bns", "bench", "--model", "gmm2d-flow", "--solver", "bnss", "--nfe", "4")
    refused("takes no options", "bench", "--model", "gmm2d-flow", "--solver", "bns:order=2", "--nfe", "4")
    with pytest.raises(RequestError, match="seed"):
        read_request(None, seed=TRAIN_SEED)
    refused("--nfe takes whole numbers from 1 to 256, not x", "distill", "bns", "--model", "gmm2d-flow", "--nfe", "4,x")


def test_a_damaged_table_harms_no_other_solver(tmp_path):
    (tmp_path / "home" / "tables").mkdir(parents=True)
    (tmp_path / "home" / "tables" / "mine.json").write_text("{")
    words = ["bench", "--model", "gmm2d-flow", "--nfe", "4", "--samples", "16", "--metrics", "psnr"]
    words += ["--out", str(tmp_path / "store"), "--solver"]
    assert command(*words, "euler").code == 0
    learned = learn()
    add_table(learned)
    text = learned.to_json().replace('"guidance": 0.0', '"guidance": null')
    (tmp_path / "home" / "tables" / "null.json").write_text(text)
    told = command(*words, "bns")
    assert told.code == 0
    for name in ("mine", "null"):
        assert told.err.count(f"{name}.json is no table") == 1
    refused("unknown solver", *words, "no-such-solver")


def test_a_killed_distillation_goes_on(tmp_path):
    """Kill -9 once a step is on the disk, then the same command again: the table of an uninterrupted run."""
    home = tmp_path / "killed"
    killed = """
import os, signal
from fastsample.bench.learning import kept
write = kept.Kept.write
def killing(self, start, state, cost):
    write(self, start, state, cost)
    if state.iteration == 2:
        os.kill(os.getpid(), signal.SIGKILL)
kept.Kept.write = killing
"""
    code = "from fastsample.bench.cli.app import main; main()"
    words = ["distill", "bns", "--model", "gmm2d-flow", "--nfe", "10", "--train", "64", "--validation", "64"]
    words += ["--steps", "4"]
    environment = os.environ | {"FASTSAMPLE_HOME": str(home)}
    end = subprocess.run([sys.executable, "-c", killed + code, *words], env=environment, stdout=subprocess.DEVNULL)
    assert end.returncode == -signal.SIGKILL
    assert list((home / "distill").glob("*.json"))
    assert not list(home.glob("tables/*"))
    subprocess.run([sys.executable, "-c", code, *words], env=environment, check=True, stdout=subprocess.DEVNULL)
    (resumed,) = (read_table(file) for file in home.glob("tables/*.json"))
    whole = Distillation(open_model("gmm2d-flow"), Sampler(choose_device("cpu")), train=64, validation=64)
    expected = whole.run("bns", 10, steps=4)
    assert resumed.sha256 == expected.sha256
    assert resumed.training.history == expected.training.history
    assert resumed.training.evaluations == expected.training.evaluations  # nothing finished is done again
    assert not list((home / "distill").glob("*.json"))
