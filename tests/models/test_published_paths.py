"""Files that others get hold no folder of the machine that made them: rows, exports, learned tables, checkpoints."""

import pytest
from PIL import Image
from rich.console import Console

from fastsample.bench.replay import Replay
from fastsample.bench.request import Request
from fastsample.bench.sweep import run_sweep
from fastsample.datasets.home import sha256_of
from fastsample.datasets.images import dataset_named
from fastsample.models.checkpoints import load_checkpoint
from fastsample.models.path import VPLinear
from fastsample.models.training.recipe import changed, read_recipe
from fastsample.results.commands import bench_command
from fastsample.results.store import Store
from fastsample.solvers.grids import Grid

from ..command import command

TIMES = "[1.0, 0.6, 0.3, 0.001]"
FLOW = """
title = "tiny"
dataset = "digits"
network = "ResidualMLP"
network_args = {img_resolution = 8, width = 16, blocks = 1}
images = 16
batch = 8
ema_halflife_images = [100]
flip = false
"""


@pytest.fixture
def secret(tmp_path):
    """A folder whose name nobody is told."""
    folder = tmp_path / "private-folder"
    folder.mkdir()
    (folder / "mine.txt").write_text(TIMES)
    return folder


def told(*folders):
    """Which files there speak of the folder."""
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file() and file.suffix != ".pt"]
    assert files
    return [file.name for file in files if b"private-folder" in file.read_bytes()]


def test_a_grid_of_a_file_is_named_and_repeated_by_its_times(secret, tmp_path, monkeypatch):
    grid = f"file:{secret / 'mine.txt'}"
    request = Request(
        model="gmm2d", solver="ddim", nfe=(3,), grid=(grid,), samples=8, metrics=("psnr",), out=tmp_path / "store"
    )
    assert run_sweep(request, Console(quiet=True)) == []
    (row,) = Store(tmp_path / "store").rows()
    name = f"file:mine.txt@{sha256_of(secret / 'mine.txt')[:16]}"
    assert (row.grid, row.times) == (name, [1.0, 0.6, 0.3, 0.001])
    assert told(tmp_path / "store") == []
    assert f"--grid {name}" in bench_command(row)
    monkeypatch.chdir(secret)
    again = Grid.parse(name)  # what the command says, where the file is
    assert str(again) == name
    (secret / "mine.txt").write_text(TIMES.replace("0.6", "0.7"))
    assert Replay(Store(tmp_path / "store"), "cpu").cell(row.cell).plan.times == (1.0, 0.6, 0.3, 0.001)
    with pytest.raises(ValueError, match=r"grid file mine\.txt is another one by now: its sha256 begins with"):
        Grid.parse(name)


def test_a_row_of_an_older_version_keeps_its_grid_of_a_file(secret, tmp_path):
    request = Request(model="gmm2d", solver="ddim", nfe=(3,), samples=8, metrics=("psnr",), out=tmp_path / "store")
    assert run_sweep(request, Console(quiet=True)) == []
    store = Store(tmp_path / "store")
    (row,) = store.rows()
    store.finish(row.model_copy(update={"grid": "file:/nowhere/x.txt"}), store.per_sample(row.cell))
    assert list(Replay(store, "cpu").cell(row.cell).plan.times) == pytest.approx(row.times, rel=1e-12)


def test_what_is_no_grid_file_is_refused(tmp_path):
    (tmp_path / "none.txt").write_text("")
    (tmp_path / "words.txt").write_text("one two")
    for name, message in (("none.txt", "holds no times"), ("words.txt", "could not convert"), ("no", "No such file")):
        with pytest.raises(ValueError, match=message):
            Grid.parse(f"file:{tmp_path / name}")
    (tmp_path / "two.txt").write_text("1 0.5")
    with pytest.raises(ValueError, match=r"grid file two\.txt@\w+ holds 2 times; this solver and NFE need 4"):
        Grid.parse(f"file:{tmp_path / 'two.txt'}")(VPLinear(), 3, 1.0, 1e-3)


def test_checkpoints_and_learned_tables_tell_no_folder(secret, tmp_path):
    (secret / "teacher.toml").write_text(FLOW)
    teacher = secret / "runs" / "teacher.safetensors"
    assert command("train", "flow", secret / "teacher.toml", "--out", secret / "runs").code == 0
    pairs = f'[coupling]\nkind = "pairs"\nteacher = "{teacher}"\nsolver = "euler"\nnfe = 3\ncount = 16\n'
    (secret / "flow.txt").write_text("0 0.3 0.6 0.999")
    (secret / "mine.toml").write_text(f'start = "{teacher}"\n{FLOW}{pairs}grid = "file:{secret / "flow.txt"}"\n')
    out = tmp_path / "mine"
    assert command("train", "reflow", secret / "mine.toml", "--out", out).code == 0
    recipe = load_checkpoint(out / "mine.safetensors")[1].recipe
    name = f"teacher.safetensors@{sha256_of(teacher)[:16]}"
    assert (recipe["start"], recipe["coupling"]["teacher"]) == (name, name)
    assert recipe["coupling"]["grid"] == f"file:flow.txt@{sha256_of(secret / 'flow.txt')[:16]}"
    words = ["--model", "gmm2d", "--nfe", "3", "--train", "64", "--validation", "64", "--steps", "1"]
    assert command("distill", "times", *words, "--initial", f"ddim@file:{secret / 'mine.txt'}").code == 0
    words = ["--model", "gmm2d", "--nfe", "3", "--grid", f"file:{secret / 'mine.txt'}"]
    made = tmp_path / "exports"
    made.mkdir()
    for form in ("json", "python"):
        assert command("export", "--solver", "ddim", *words, "--to", form, "-o", made / f"x.{form}").code == 0
    assert told(out, made, tmp_path / "home" / "tables") == []


def test_a_recipe_is_published_without_folders(secret):
    (secret / "card.toml").write_text("")
    recipe = changed(read_recipe("rfpp-cifar10"), {
        "start": f"{secret / 'card.toml'}#me", "coupling.teacher": "edm-cifar10-uncond-vp",
        "dataset": f"folder:{secret}@as-is",
    })  # fmt: skip
    fields = recipe.published()
    assert fields["start"] == f"card.toml@{sha256_of(secret / 'card.toml')[:16]}#me"
    assert fields["coupling"]["teacher"] == "edm-cifar10-uncond-vp"
    assert fields["dataset"] == "folder:private-folder@as-is"
    assert fields["network_args"] == recipe.model_dump(mode="json")["network_args"]


def test_a_folder_of_images_is_named_without_those_above_it(secret):
    Image.new("RGB", (8, 8)).save(secret / "a.png")
    assert dataset_named(f"folder:{secret}").name == "folder:private-folder"
    assert dataset_named(f"folder:{secret}@as-is").name == "folder:private-folder@as-is"
