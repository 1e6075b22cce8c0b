"""A cache that cannot be written, or only in part: what is there is used, the rest is computed, and said once."""

import os
import shutil
import subprocess
import time

import numpy as np
import pytest
import torch

from fastsample.bench.metrics import solution
from fastsample.datasets.files import locked, read_arrays, warn_once
from fastsample.datasets.home import data_home, keep, unwritable
from fastsample.models.networks.registry import build_network
from fastsample.models.public.cards import card_named
from fastsample.models.public.conversion import open_converted
from fastsample.models.public.fetch import fetch
from fastsample.models.public.known import DownloadError, lock_of, target_of
from fastsample.results.store import Store

from ..cards import CONFIG, write_card
from ..command import command


@pytest.fixture
def closed():
    """A function that makes a folder and all in it for reading only, for root too."""
    changed = []

    def close(folder):
        if os.geteuid():
            shutil.copystat(folder, folder)
            for path in [folder, *folder.rglob("*")]:
                path.chmod(0o555 if path.is_dir() else 0o444)
        elif subprocess.run(["chattr", "-R", "+i", folder], capture_output=True).returncode:
            pytest.skip("this file system knows no immutable files")
        changed.append(folder)

    yield close
    for folder in changed:
        if os.geteuid():
            for path in [folder, *folder.rglob("*")]:
                path.chmod(0o755)
        else:
            subprocess.run(["chattr", "-R", "-i", folder], check=True)


@pytest.fixture
def below_a_file(monkeypatch, tmp_path):
    """FASTSAMPLE_HOME where nobody can make a folder."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FASTSAMPLE_HOME", str(tmp_path / "file" / "home"))
    warn_once.cache_clear()


@pytest.fixture
def bench(checkpoint, coarse, monkeypatch, tmp_path):
    """A function that runs `bench` on a small network; (what it printed, the values of its rows)."""
    model = checkpoint("small", data="cifar10 train")
    solution._held.clear()
    solution._held_facts.clear()

    def run(store, *words):
        ended = command("bench", "--model", model, "--solver", "euler,heun", "--nfe", "4", "--samples", "24",
                        "--metrics", "psnr", "--out", tmp_path / store, *words)  # fmt: skip
        assert ended.code == 0, ended
        return ended, {row.solver: row.metrics for row in Store(tmp_path / store).rows()}

    return run


def test_bench_computes_what_it_cannot_keep_once_and_says_it_once(bench, below_a_file, monkeypatch, tmp_path):
    calls = []
    integrate = solution.integrate
    monkeypatch.setattr(solution, "integrate", lambda *given: calls.append(len(given[1])) or integrate(*given))
    ended, without = bench("without")
    assert [line for line in ended.err.splitlines() if "home" in line] == [
        f"{data_home()} cannot be written (Not a directory): what is computed is not kept there"
    ]
    made = len(calls)
    assert sum(count for count in calls if count >= 8) == 24  # of both cells and their fingerprints
    monkeypatch.setenv("FASTSAMPLE_HOME", str(tmp_path / "home"))
    assert bench("with")[1] == without
    assert len(calls) == 2 * made


def test_a_cache_for_reading_only_is_read(bench, closed, monkeypatch, tmp_path):
    home = tmp_path / "home"
    _, first = bench("first")
    closed(home)
    warn_once.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(solution, "integrate", None)
        ended, again = bench("again")
    assert again == first
    assert "cannot be written" not in ended.err
    ended, _ = bench("other", "--seed", "1")
    assert ended.err.count("cannot be written") == 1


def test_reading_commands_say_nothing(bench, below_a_file, monkeypatch, tmp_path):
    bench("store")
    monkeypatch.chdir(tmp_path)
    for words in (
        "list models", "list solvers", "list datasets", "list metrics", "show store", "table store",
        "models info edm-ffhq64-vp", "published --nfe 10", "recommend store --budget 4", "report store -o report.html",
        "explain heun --model gmm2d", "export --solver heun --to json --model gmm2d -o table.json",
        "sample --model gmm-image --solver euler --nfe 1 -o x.png",
    ):  # fmt: skip
        ended = command(*words.split())
        assert ended.code == 0, (words, ended)
        assert "cannot be written" not in ended.err, words


def test_what_must_be_kept_is_refused_before_it_is_computed(below_a_file, tmp_path, monkeypatch):
    monkeypatch.setattr(solution, "integrate", None)
    for words in (["distill", "bns", "--model", "gmm2d-flow", "--nfe", "4"], ["models", "fetch", "ddpm-cifar10"]):
        ended = command(*words)
        assert ended.code == 2, ended
        assert "cannot be written (Not a directory): set FASTSAMPLE_HOME to" in ended.err
        assert len(ended.err.strip().splitlines()) == 1


@pytest.fixture
def public(tmp_path):
    """(a card of one's own, the file of its weights)."""
    torch.manual_seed(0)
    torch.save(build_network("SongUNet", CONFIG).state_dict(), tmp_path / "weights.pt")
    return card_named(str(write_card(tmp_path, "my-flow"))), tmp_path / "weights.pt"


def test_a_public_model_from_a_home_for_reading_only(public, closed, tmp_path, capsys):
    card, weights = public
    home = tmp_path / "shared"
    done = fetch(card, home, checkpoint=weights)
    expected = open_converted(done).network.state_dict()
    (tmp_path / "other.pt").write_bytes(weights.read_bytes()[:-1])
    closed(home)
    warn_once.cache_clear()
    assert fetch(card, home) == done
    assert fetch(card, home, checkpoint=weights) == done
    assert capsys.readouterr().err == ""
    empty = tmp_path / "empty"
    target = target_of(card, empty)
    target.parent.mkdir(parents=True)
    closed(empty)
    with pytest.raises(
        DownloadError, match=r"my-flow is not here, and .*empty cannot be written .*set FASTSAMPLE_HOME"
    ):
        fetch(card, empty)
    for _ in range(2):
        made = fetch(card, empty, checkpoint=weights)
        assert tmp_path not in made.parents
    found = open_converted(made).network.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert capsys.readouterr().err.count("is converted for this run alone") == 1


def test_the_whole_of_bench_with_a_file_that_cannot_be_converted_into_the_home(public, below_a_file, coarse, tmp_path):
    _, weights = public
    ended = command("bench", "--model", tmp_path / "card.toml", "--checkpoint", weights, "--solver", "euler", "--nfe",
                    "2", "--samples", "8", "--metrics", "psnr", "--out", tmp_path / "store")  # fmt: skip
    assert ended.code == 0, ended
    (row,) = Store(tmp_path / "store").rows()
    assert np.isfinite(row.metrics["psnr"])


def test_a_lock_of_another_user_or_none_at_all_lets_in(closed, public, tmp_path):
    lock = tmp_path / "locks" / ".x.lock"
    lock.parent.mkdir()
    lock.touch()
    closed(lock.parent)
    entered = []
    with locked(lock), locked(tmp_path / "file" / "x"):
        entered.append("both")
    with locked(lock.with_name("new")):  # which cannot be made
        entered.append("new")
    assert entered == ["both", "new"]
    read, write = os.pipe()
    child = os.fork()
    if not child:  # a file for reading only locks as well
        with locked(lock):
            os.write(write, b"1")
            time.sleep(30)  # it ends by the signal
    os.read(read, 1)
    waited = []
    with locked(lock, lambda: (waited.append(1), os.kill(child, 9))):
        os.waitpid(child, 0)
    assert waited == [1]


def test_a_lock_that_an_ended_process_left_behind_is_none(public, tmp_path):
    card, weights = public
    guard = lock_of(target_of(card, tmp_path / "home"))
    guard.parent.mkdir(parents=True)
    guard.write_text("pid 1\n")
    assert fetch(card, tmp_path / "home", checkpoint=weights).is_file()


def test_a_file_in_place_of_a_folder_and_a_folder_in_place_of_a_file(bench, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "references").write_text("a file")
    warn_once.cache_clear()
    ended, first = bench("first")
    assert ended.err.count("cannot be written (Not a directory)") == 1
    (home / "references").unlink()
    solution._held.clear()
    solution._held_facts.clear()
    _, again = bench("second")
    assert again == first
    (file,) = home.glob("references/*/1.npz")
    file.unlink()
    file.mkdir()
    solution._held.clear()
    ended, again = bench("third")
    assert again == first
    assert f"{file} cannot be read (Is a directory)" in ended.err


def test_writes_that_fail_leave_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTSAMPLE_HOME", str(tmp_path))
    assert keep(tmp_path / "a" / "b", lambda file: file.write_text("x"))
    assert not keep(tmp_path / "a" / "b" / "c", lambda file: file.write_text("x"))
    assert unwritable(tmp_path / "a" / "new") == ""
    assert unwritable(tmp_path / "a" / "b") == "File exists"
    assert read_arrays(tmp_path / "a" / "b" / "c") is None
    assert sorted(file.name for file in (tmp_path / "a").iterdir()) == ["b", "new"]


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch):
    monkeypatch.delenv("FASTSAMPLE_HOME")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)  # as containers run programs
    with pytest.raises(ValueError, match="set FASTSAMPLE_HOME"):
        data_home()
