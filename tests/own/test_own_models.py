"""Networks of a user's own: `--model FILE.py:NAME`, through every command that takes a model."""

import json
import shlex

import numpy as np
import pytest
import torch

from fastsample.models.catalogue import open_model
from fastsample.results.commands import bench_command
from fastsample.results.store import Store

QUICK = ("--nfe", 4, "--samples", 8, "--reference-steps", 20)


@pytest.mark.parametrize(("own", "embedded"), [("flow", "cifar10-tiny-flow"), ("vp", "cifar10-tiny-vp")])
def test_the_rows_of_the_embedded_weights_are_the_embedded_models(own, embedded, mine, command):
    asked = ("--solver", "unipc", *QUICK, "--metrics", "psnr,truncation,fd", "--out", "store")
    assert command("bench", "--model", f"mine.py:{own},{embedded}", *asked)[0] == 0
    store = Store(mine.parent / "store")
    theirs, ours = sorted(store.rows(), key=lambda row: row.model == f"mine.py:{own}")
    assert (theirs.model, ours.model) == (embedded, f"mine.py:{own}")
    assert ours.metrics == theirs.metrics
    assert ours.standard_errors == theirs.standard_errors
    assert (ours.times, ours.grid, ours.nfe, ours.forwards) == (theirs.times, theirs.grid, theirs.nfe, theirs.forwards)
    arrays = [store.per_sample(row.cell) for row in (theirs, ours)]
    assert all(np.array_equal(arrays[0][name], arrays[1][name]) for name in arrays[0])
    assert ours.protocol["weights"].startswith(f"returned by mine.py:{own} sha256 ")
    assert len(ours.checkpoint_sha256) == 64


def test_the_commands_of_a_row_repeat_it_from_the_file(mine, command):
    (mine.parent / "folder").mkdir()
    mine.rename(mine.parent / "folder" / "mine.py")
    asked = ("--solver", "euler", *QUICK, "--metrics", "psnr", "--out", "store")
    assert command("bench", "--model", "folder/mine.py:tiny", *asked)[0] == 0
    (row,) = Store(mine.parent / "store").rows()
    assert row.model == "mine.py:tiny"
    assert command(*shlex.split(bench_command(row))[1:])[0] == 0
    (again,) = Store(mine.parent / "results-again").rows()
    assert (again.cell, again.metrics) == (row.cell, row.metrics)
    code, out, _ = command("recommend", "store", "--budget", 8)
    assert code == 0
    for line in out.splitlines():
        if line.startswith("  fastsample"):
            assert command(*shlex.split(line)[1:])[0] == 0


def test_the_gate_names_the_file_of_a_model_that_has_changed(mine, command):
    bench = ("bench", "--model", "mine.py:tiny", "--solver", "euler", *QUICK, "--metrics", "psnr", "--out")
    assert command(*bench, "store")[0] == 0
    assert command("baseline", "store", "-o", "base.json")[0] == 0
    mine.write_text(mine.read_text("utf-8") + "# a comment\n", "utf-8")
    assert command(*bench, "store-2")[0] == 0
    code, out, _ = command("check", "store-2", "--baseline", "base.json")
    assert (code, "mine.py, the code of the model, has changed: its hash is '" in " ".join(out.split())) == (2, True)
    assert "model card" not in out


def test_a_learned_table_is_found_again_for_its_model_and_for_no_other(mine, command):
    words = ("distill", "bns", "--nfe", 2, "--train", 32, "--validation", 32, "--steps", 1, "--initial", "euler")
    assert command(*words, "--model", "mine.py:tiny")[0] == 0
    bench = ("bench", "--solver", "bns", "--nfe", 2, "--samples", 4, "--metrics", "psnr", "--out", "store")
    assert command(*bench, "--model", "mine.py:tiny")[0] == 0
    code, _, err = command(*bench, "--model", "mine.py:brighter")
    assert (code, "fastsample distill bns --model mine.py:brighter --nfe 2" in err) == (2, True)
    mine.write_text(
        mine.read_text("utf-8").replace("OwnModel(Gaussian(0.25), (3,", "OwnModel(Gaussian(0.75), (3,"), "utf-8"
    )
    code, _, err = command(*bench, "--model", "mine.py:tiny")
    assert (code, "there is no table for this model" in err) == (2, True)
    mine.write_text(mine.read_text("utf-8").replace("Gaussian(0.75)", "Gaussian(0.25)"), "utf-8")
    for words in (("explain", "bns"), ("export", "--solver", "bns", "--to", "json", "-o", "table.json")):
        assert command(*words, "--model", "mine.py:tiny", "--nfe", 2)[0] == 0
    facts = json.loads((mine.parent / "table.json").read_text("utf-8"))
    assert facts["model"] == "mine.py:tiny"
    assert "bench --model mine.py:tiny --solver bns" in command("import", "table.json")[1]


WRONG = [
    ("lambda x, t: x[:, :1] * t.reshape(-1, 1, 1, 1)", "returns (1, 1, 8, 8), not the shape of x"),
    ("lambda x, t: (x * t.reshape(-1, 1, 1, 1)).double()", "returns torch.float64, not the dtype of x, torch.float32"),
    ("lambda x, t: (x * t.reshape(-1, 1, 1, 1)).numpy()", "returns ndarray, not a tensor"),
    ("lambda x, t: x / t.reshape(-1, 1, 1, 1)", "time 0 returns NaN or infinity"),
    ("lambda x, t: 0 * x", "does not heed the time"),
    ("lambda x: x", "fails: TypeError"),
    ("None", "network is a function of (x, time), not NoneType"),
]


@pytest.mark.parametrize(("network", "told"), WRONG)
@pytest.mark.parametrize("words", [("bench", "--nfe", 2, "--samples", 2), ("models", "test")], ids=["bench", "test"])
def test_a_wrong_network_ends_with_one_sentence(network, told, words, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.py").write_text(
        f"from fastsample.models.foreign.own import OwnModel\ndef model():\n    return OwnModel({network}, (3, 8, 8))\n"
    )
    model = ("--model", "bad.py:model") if words[0] == "bench" else ("bad.py:model",)
    code, _, err = command(*words, *model)
    assert code == 2
    assert told in err
    assert "bad.py:model" in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("nothing.py:model", "nothing.py is no file"),
        ("mine.py:flo", "did you mean flow"),
        ("mine.py", "mine.py defines flow, vp, wave, tiny,"),
        ("mine.py", ": write mine.py:NAME"),
        ("empty.py", "empty.py defines nothing that can be named: write empty.py:NAME"),
        ("no_such_module:model", "no_such_module cannot be imported: ModuleNotFoundError"),
        ("home/given.py:model", "in the folder of downloads"),
        ("raises.py:model", "cannot be run: ZeroDivisionError: division by zero (raises.py, line 2)"),
        ("mine.py:far", "mine.py:far fails: TypeError"),
        ("mine.py:Gaussian", "mine.py:Gaussian fails: TypeError"),
    ],
)
def test_what_is_no_model_is_said_in_one_sentence(word, told, mine, command):
    (mine.parent / "home").mkdir(exist_ok=True)
    (mine.parent / "home" / "given.py").write_text("raise SystemExit(3)")
    (mine.parent / "empty.py").write_text("1 / 0 = (")  # it is read and not run
    (mine.parent / "raises.py").write_text("x = 1\n1 / 0\n")
    code, _, err = command("bench", "--model", word, "--nfe", 2, "--samples", 2)
    assert code == 2
    assert told in err


def test_a_module_beside_the_command_is_a_model(mine, monkeypatch, command):
    (mine.parent / "lab17").mkdir()
    mine.rename(mine.parent / "lab17" / "nets.py")
    asked = ("--solver", "euler", "--nfe", 2, "--samples", 2, "--metrics", "psnr", "--out", "store")
    assert command("bench", "--model", "lab17.nets:tiny", *asked)[0] == 0
    assert Store(mine.parent / "store").rows()[0].model == "lab17.nets:tiny"


def test_classes_guidance_and_decoding_are_stated(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latent.py").write_text(
        "import torch\nfrom fastsample.models.foreign.own import OwnModel\n"
        "def network(x, t, c):\n    return -x * (1 + t.reshape(-1, 1, 1, 1) + c.reshape(-1, 1, 1, 1))\n"
        "def model():\n    return OwnModel(network, (4, 8, 8), prediction='eps', sign=-1, classes=3, null=True,\n"
        "        decode=lambda z: z[:, :3].repeat_interleave(2, 2).repeat_interleave(2, 3), name='latent')\n"
    )
    model = open_model("latent.py:model")
    assert (model.id, model.given, model.shape, model.image_shape) == (
        "latent",
        "latent.py:model",
        (4, 8, 8),
        (3, 16, 16),
    )
    x, classes = torch.ones(2, 4, 8, 8), torch.tensor([0, 2])
    plain, guided = (model.make(model.network, classes, weight, None).eps(x, 0.5)[:, 0, 0, 0] for weight in (0.0, 1.0))
    assert plain.tolist() == [1.5, 3.5]
    assert guided.tolist() == [2 * 1.5 - 4.5, 2 * 3.5 - 4.5]  # "no class" is the index 3


def test_a_waveform_is_sampled_measured_and_tabled(mine, command):
    asked = ("--solver", "euler,dpmpp-2m", "--nfe", 4, "--samples", 8, "--metrics", "snr,psnr,truncation,fd,curvature")
    code, out, _ = command("bench", "--model", "mine.py:wave", *asked, "--out", "store")
    assert code == 0
    assert "without fd for mine.py:wave: its samples are no images" in out
    row = next(row for row in Store(mine.parent / "store").rows() if row.solver == "euler")
    store = Store(mine.parent / "store")
    snr, error = store.per_sample(row.cell)["snr"], store.per_sample(row.cell)["truncation"]
    assert row.metrics["snr"] == pytest.approx(snr.mean())
    psnr = store.per_sample(row.cell)["psnr"]
    assert np.allclose(psnr, 10 * np.log10(16 / error))  # taken as it is, R = 4
    power = 10 ** ((snr - psnr) / 10) * 16
    assert 0.1 < power.mean() < 0.4  # of N(0, 0.25)
    assert command("table", "store", "--metric", "snr,truncation")[0] == 0
    assert command("models", "test", "mine.py:wave")[0] == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--metrics", "mine.py"), "mine.py defines flow, vp,"),
        (("--metrics", "fd[mine.py]"), "mine.py defines flow, vp,"),
        (("--solver", "mine.py"), "mine.py is a file"),
    ],
)
def test_a_file_without_a_name_is_told_what_it_defines(words, told, mine, command):
    mine.write_text(mine.read_text("utf-8") + "\nraise SystemExit('it is run')\n", "utf-8")
    code, _, err = command("bench", "--model", "gmm2d", "--nfe", 2, "--samples", 2, *words)
    assert (code, told in err, "write mine.py:NAME" in err) == (2, True, True), err


def test_what_samples_again_names_the_option_for_code_of_ones_own(mine, command):
    bench = ("bench", "--solver", "euler", "--nfe", 2, "--samples", 4, "--metrics", "psnr", "--out")
    assert command(*bench, "images", "--model", "mine.py:tiny")[0] == 0
    plot = ("plot", "images", "--kind", "samples", "-o", "x.png")
    code, _, err = command(*plot)
    hint = "mine.py:tiny is code of yours, which is not run unasked: add --checkpoint mine.py:tiny"
    assert (code, err.splitlines()[-1]) == (2, f"error: {hint}")
    assert command(*plot, "--checkpoint", "mine.py:tiny")[0] == 0
    assert command(*bench, "waves", "--model", "mine.py:wave")[0] == 0
    code, _, err = command("plot", "waves", "--kind", "samples", "-o", "x.png")
    assert (code, err.splitlines()[-1]) == (2, "error: samples of mine.py:wave are no images: their shape is 2x64")
    assert "-o samples.png" in command("recommend", "images", "--budget", 2)[1]
    told = command("recommend", "waves", "--budget", 2)[1]
    (line,) = [line for line in told.splitlines() if line.startswith("  fastsample sample")]
    assert line.endswith("-o samples.npy")
    assert command(*shlex.split(line)[1:])[0] == 0
    found = np.load("samples.npy")
    assert (found.shape, found.dtype) == ((64, 2, 64), np.float32)
    assert command(*shlex.split(line.replace(".npy", ".png"))[1:])[0] == 2
