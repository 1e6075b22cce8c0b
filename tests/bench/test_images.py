"""Images out of a sweep, images of another program in the same tables, and real images to noise and back."""

import shlex
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import fastsample as fs
from fastsample.bench.pictures import picture
from fastsample.datasets.levels import to_uint8
from fastsample.results.baseline import baseline_of
from fastsample.results.commands import bench_command
from fastsample.results.recommend import recommendations

MODEL, METRICS = "cifar10-tiny-flow", "fd,kid,precision,recall,is"
REFERENCE = "folder:others.npz"  # a few images, whose features are made in no time
SWEEP = dict(model=MODEL, solver="ddim", nfe=2, samples=20, metrics=METRICS, reference=REFERENCE)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store with one cell, its row, and its images as PNG and npz."""
    home = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTSAMPLE_HOME", str(home / "home"))
        others = to_uint8(fs.sample("cifar10-tiny-rfpp", "euler", 1, samples=40)).permute(0, 2, 3, 1)
        np.savez(home / "others.npz", arr_0=others.numpy())
        patch.chdir(home)
        (row,) = fs.sweep(**SWEEP, save_samples="png", out=home / "store").to_dict("records")
        fs.sweep(**SWEEP, save_samples="npz", out=home / "store")
    return home / "store", row, home / "store/images" / row["cell"], home / "store/images" / f"{row['cell']}.npz"


@pytest.fixture
def store(made, tmp_path, monkeypatch):
    """The same in a folder of the test's own."""
    monkeypatch.chdir(made[0].parent)
    return Path(shutil.copytree(made[0], tmp_path / "store"))


def values(row):
    return {name: value for name, value in row.items() if name.startswith(("metrics.", "standard_errors."))}


def score(command, place, store, *words, name="theirs", model=("--model", MODEL, "--reference", REFERENCE)):
    return command("score", place, *model, "--name", name, "--nfe", 2, "--metrics", METRICS, "--out", store, *words)


def test_png_and_npz_hold_the_images_of_the_cell(made):
    _, row, folder, pack = made
    files = sorted(folder.iterdir())
    assert [file.name for file in files] == [f"{number:05}.png" for number in range(20)]
    with np.load(pack) as arrays:
        levels = arrays["arr_0"]
    assert list(arrays) == ["arr_0"]
    assert np.array_equal(levels, np.stack([np.array(Image.open(file)) for file in files]))
    assert np.array_equal(to_uint8(fs.sample(MODEL, "ddim", 2, samples=20)).permute(0, 2, 3, 1).numpy(), levels)
    assert sorted(path.name for path in folder.parent.iterdir()) == [row["cell"], f"{row['cell']}.npz"]


def test_what_was_kept_is_saved_without_drawing_again(tmp_path, monkeypatch):
    asked = dict(model=MODEL, solver="ddim", nfe=2, samples=20, metrics="is", out=tmp_path)
    fs.sweep(**asked, keep="images")
    monkeypatch.setattr("fastsample.bench.sampling.Sampler.start", None)
    (row,) = fs.sweep(**asked, save_samples="png").to_dict("records")
    assert len(list((tmp_path / "images" / row["cell"]).iterdir())) == 20


@pytest.mark.parametrize("form", ["folder", "npz"])
def test_saved_and_scored_again_is_the_row_exactly(made, store, form, command):
    _, row, folder, pack = made
    code, out, err = score(command, folder if form == "folder" else pack, store, "--samples", 20)
    assert code == 0, err
    assert "theirs (stated)" in out
    frame = fs.open_store(store).frame().set_index("solver")
    mine, theirs = (frame.loc[name].to_dict() for name in ("ddim", "theirs (stated)"))
    assert values(theirs) == values(mine) == values(row)
    assert theirs["protocol.stated"].startswith("20 images of ")


def test_stated_rows_stand_in_the_tables_and_are_marked(made, store, command):
    _, _, folder, _ = made
    assert score(command, folder, store, name="ddim")[0] == 0  # the name of a solver here: the mark tells them apart
    before = len(fs.open_store(store).rows())
    assert score(command, folder, store, name="ddim")[0] == 0  # twice is once
    assert len(fs.open_store(store).rows()) == before == 2
    code, out, err = command("table", store, "--metric", "fd", "--format", "markdown")
    assert code == 0, err
    assert "| DDIM " in out
    assert "| ddim (stated)" in out
    assert "stated, not measured, but for the metrics: 20 images of" in out
    assert command("show", store)[0] == 0
    ((choice, _),) = recommendations(fs.open_store(store), budget=2, metric="kid")
    assert choice.choice.solver == "ddim"
    assert choice.second is None
    assert {cell.solver for cell in baseline_of(fs.open_store(store)).cells} == {"ddim"}
    assert picture(fs.open_store(store), "samples", metrics=["fd"], images=2)
    row = fs.open_store(store).rows()[-1]
    again = bench_command(row).replace("IMAGES", str(folder)).replace("results-again", str(store / "again"))
    assert command(*shlex.split(again)[1:])[0] == 0
    assert fs.open_store(store / "again").rows()[0].metrics == row.metrics
    assert command("report", store, "-o", store / "report.html")[0] == 0
    assert "ddim (stated)" in (store / "report.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--samples", 50], "holds 20 images, and 50 are stated"),
        (["--metrics", "psnr"], "psnr needs the sampler"),
        (["--name", "a:b"], "--name is letters"),
        (["--model", "", "--reference", ""], "--model, --reference or both"),
        (["--model", "gmm2d"], "samples of gmm2d are no images"),
        (["--model", "cifar10-tiny-flwo"], "did you mean"),
    ],
)
def test_what_is_not_as_stated_is_refused_in_a_sentence(made, store, words, told, command):
    code, _, err = score(command, made[2], store, *words)
    assert code == 2
    assert told in err
    assert err.count("\n") == 1
    assert len(fs.open_store(store).rows()) == 1


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (lambda folder: Image.new("RGB", (16, 16)).save(folder / "00007.png"), "mixes sizes"),
        (lambda folder: (folder / "00007.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 99), "00007.png: "),
        (
            lambda folder: [Image.new("RGB", (8, 16)).save(file) for file in folder.iterdir()],
            "are 8x16, and samples of",
        ),
        (lambda folder: [file.unlink() for file in folder.iterdir()], "no image"),
        (lambda folder: shutil.rmtree(folder), "No such file"),
    ],
    ids=["sizes", "damaged", "size", "empty", "missing"],
)
def test_images_that_are_none_are_refused(made, tmp_path, fault, told, command, monkeypatch):
    monkeypatch.chdir(made[0].parent)
    folder = Path(shutil.copytree(made[2], tmp_path / "images"))
    fault(folder)
    code, _, err = score(command, folder, tmp_path / "store")
    assert code == 2, err
    assert told in err
    assert not (tmp_path / "store").exists()


def test_other_images_of_one_name_are_refused(made, store, command):
    score(command, made[2], store)
    Image.new("RGB", (32, 32)).save(store / "images" / made[1]["cell"] / "00000.png")
    code, _, err = score(command, store / "images" / made[1]["cell"], store)
    assert code == 2
    assert "give these another --name" in err


def test_a_reference_alone_is_enough(made, store, command):
    code, _, err = score(command, made[2], store, model=("--reference", REFERENCE))
    assert code == 0, err
    *_, row = fs.open_store(store).rows()
    assert row.model == REFERENCE
    assert row.metrics["fd[cifar10-resnet]@20"] == made[1]["metrics.fd[cifar10-resnet]@20"]


def test_images_stand_beside_the_samples_of_a_public_model_that_is_not_here(made, store, command):
    code, _, err = score(command, made[2], store, model=("--model", "edm-cifar10-uncond-vp", "--reference", REFERENCE))
    assert code == 0, err
    *_, row = fs.open_store(store).rows()
    assert (row.model, row.solver) == ("edm-cifar10-uncond-vp", "theirs (stated)")


def test_points_are_no_images(tmp_path):
    with pytest.raises(ValueError, match="samples of gmm2d are no images"):
        fs.sweep(model="gmm2d", nfe=4, samples=8, metrics="psnr", save_samples="png", out=tmp_path)


def test_images_come_back_from_noise(tmp_path, command):
    file = tmp_path / "encoded.csv"
    words = "--model", "cifar10-tiny-rfpp", "--samples", 8, "-o", file
    code, _, err = command("encode", *words, "--solver", "heun,unipc", "--nfe", "8,24")
    assert code == 0, err
    frame = pd.read_csv(file).set_index(["solver", "NFE"])
    assert (frame["made"] <= [nfe for _, nfe in frame.index]).all()
    assert (frame["low"] < frame["PSNR"]).all()
    assert (frame["PSNR"] < frame["high"]).all()
    for solver in ("heun", "unipc"):
        assert frame.loc[(solver, 24), "PSNR"] > frame.loc[(solver, 8), "PSNR"]
    assert frame.loc[("heun", 24), "PSNR"] > 22
    assert 0.5 < frame.loc[("heun", 8), "noise"] < frame.loc[("heun", 24), "noise"] < 1.1


@pytest.mark.slow
def test_images_come_back_from_noise_above_40_db(tmp_path, command):
    file = tmp_path / "encoded.csv"
    words = "--model", "cifar10-tiny-rfpp", "--samples", 64, "-o", file
    code, _, err = command("encode", *words, "--solver", "heun", "--nfe", 100)
    assert code == 0, err
    (line,) = pd.read_csv(file).to_dict("records")
    assert line["low"] > 40
    assert line["made"] == 100


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--solver", "rfpp"], "does not walk back"),
        (["--solver", "dopri5"], "it depends on the sample"),
        (["--solver", "bns", "--nfe", "16", "--model", "cifar10-tiny-flow"], "it is a learned table"),
        (["--solver", "heun:denoise=true"], "denoise and afs replace a step"),
        (["--nfe", "9"], "half there and half back, not 9"),
        (["--model", "gmm2d"], "are no images"),
        (["--samples", "100000000"], "samples: "),
        (["--images", "cifar10-jpg"], "unknown data set 'cifar10-jpg'"),
    ],
)
def test_what_cannot_be_encoded_is_refused(words, told, command):
    code, _, err = command("encode", "--samples", 4, *words)
    assert code == 2
    assert told in err


def test_images_without_a_row_can_go(made, store, command):
    images, cell = store / "images", made[1]["cell"]
    (images / f"{cell}.0123abcd").mkdir()
    for name in ("0123456789abcdef.npz", f"{cell}.0123abcd/00000.png"):
        (images / name).write_bytes(b"x")
    assert "images without a row: 2 files" in command("store", "prune", store)[1]
    assert not (images / "0123456789abcdef.npz").exists()
    assert len(list((images / cell).iterdir())) == 20
    assert (images / f"{cell}.npz").exists()
