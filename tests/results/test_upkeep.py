"""Several stores as one, and what a store can do without."""

import hashlib
import json
import shutil
import zipfile

import numpy as np
import pytest

from fastsample.results.store import Store

from ..command import command
from ..rows import row_of

NOISE = 3 * np.random.default_rng(0).standard_normal(40)


def add(folder, solver, shift=0.0, **changes):
    """A row whose samples have 30 dB and more."""
    store, psnr = Store(folder), 30 + shift + NOISE
    facts = dict(solver=solver, samples=40, sampling=f"of-{solver}", made={"psnr": "0"})
    facts["metrics"] = {"psnr": float(psnr.mean())}
    store.add_part(f"of-{solver}", 0, 40, {"features[net]": NOISE[:, None] + shift})
    store.finish(row_of(**{"cell": solver} | facts | changes), {"psnr": psnr}, keep=True)


def content(folder):
    """The sha256 of each file but those of summaries."""
    return {
        file.relative_to(folder): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*") if file.is_file() and file.parent != folder
    }  # fmt: skip


@pytest.fixture
def two(tmp_path):
    """Two stores that have one row in common, of two runs."""
    one, other = tmp_path / "one", tmp_path / "other"
    add(one, "heun")
    add(one, "euler", 1.0)
    add(other, "heun", device="another", seconds={"total": 9.0}, created="2026-02-02T00:00:00+00:00")
    add(other, "ddim", 2.0)
    return one, other


@pytest.mark.parametrize("out", ["new", "one"])
def test_stores_become_one(out, two, tmp_path):
    one, other = two
    target, before = tmp_path / out, [content(folder) for folder in two]
    ended = command("merge", one, other, "-o", target)
    assert (ended.code, ended.err) == (0, "")
    came = "1 rows and 1 kept parts" if out == "one" else "3 rows and 3 kept parts"
    assert ended.out == f"{came} brought to {target}, which has 3 rows\n"
    assert content(target) == before[1] | before[0]  # of two equal rows the first
    assert content(other) == before[1]
    assert {row.solver for row in Store(target, create=False).rows()} == {"heun", "euler", "ddim"}
    assert (target / "rows.csv").read_text().count("\n") == 4
    assert Store(target, create=False).parts("of-ddim").names(0, 40) == {"features[net]", "psnr|0"}
    whole = content(target)
    again = command("merge", other, one, "-o", target)
    assert again.out.startswith("0 rows and 0 kept parts")
    assert content(target) == whole


def test_a_merge_that_was_interrupted_is_repeated(two, tmp_path, monkeypatch):
    one, other = two
    copy, left = shutil.copyfileobj, 3

    def full(*args):
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(28, "No space left on device")
        copy(*args)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", full)
        assert command("merge", one, other, "-o", tmp_path / "new").code == 1
    half = Store(tmp_path / "new", create=False)
    assert [half.finished(row.cell) for row in half.rows()] == half.rows() != []
    assert not list(tmp_path.rglob("*.part"))
    assert command("merge", one, other, "-o", tmp_path / "new").code == 0
    assert content(tmp_path / "new") == content(other) | content(one)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metrics": {"psnr": 31.0}}, "metrics"),
        ({"shift": 1e-9, "metrics": {"psnr": float(np.mean(30 + NOISE))}}, "psnr"),
        ({"shift": 1e-9, "cell": "other", "metrics": {"psnr": 1.0}}, "features[net]"),
    ],
    ids=["row", "arrays", "kept part"],
)
def test_two_contents_of_one_identity_are_refused_before_anything_is_written(changes, said, tmp_path):
    add(tmp_path / "one", "heun")
    add(tmp_path / "one", "euler")
    add(tmp_path / "other", "heun", **changes)
    ended = command("merge", tmp_path / "one", tmp_path / "other", "-o", tmp_path / "new")
    assert ended.code == 2
    assert f"has another {said} in {tmp_path / 'other'}" in ended.err
    assert "heun" in ended.err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("damage", ["row", "arrays", "no arrays", "kept"])
def test_what_is_damaged_is_named_and_left_out(damage, two, tmp_path):
    one, other = two
    name = {"row": "rows/heun.json", "kept": "kept/of-heun/0-40.npz"}.get(damage, "per_sample/heun.npz")
    file = one / name
    if damage == "no arrays":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-200])
    alone, both = (command("merge", *stores, "-o", tmp_path / str(len(stores))) for stores in ([one], [one, other]))
    assert alone.code == both.code == 0
    assert alone.err.count("heun.json" if damage == "no arrays" else str(file)) == 1
    assert (tmp_path / "1" / name).exists() is False
    file.unlink(missing_ok=True)
    wholes = (other, one) if damage == "kept" else (one, other)  # of the row it is the other's
    assert content(tmp_path / "2") == content(wholes[0]) | content(wholes[1])


def test_a_kept_part_has_what_either_store_kept_of_it(tmp_path):
    for name in ("one", "other"):
        store = Store(tmp_path / name)
        store.add_part("some", 0, 40, {"psnr": NOISE, f"features[{name}]": NOISE[:, None]})
        store.finish(row_of(sampling="some", samples=40), {"psnr": NOISE}, keep=True)
    assert command("merge", tmp_path / "one", tmp_path / "other", "-o", tmp_path / "new").code == 0
    names = Store(tmp_path / "new", create=False).parts("some").names(0, 40)
    assert names == {"psnr", "features[one]", "features[other]"}
    again = command("merge", tmp_path / "one", tmp_path / "other", "-o", tmp_path / "new")
    assert again.out.startswith("0 rows and 0 kept parts")


def test_a_row_of_an_older_version_is_that_of_today(tmp_path):
    for name, sampling, more in (("old", "", {"features[net]": NOISE[:, None]}), ("new", "some", {})):
        Store(tmp_path / name).finish(row_of(sampling=sampling, samples=40), {"psnr": NOISE} | more)
    file = tmp_path / "old" / "rows" / "abc.json"
    facts = json.loads(file.read_bytes())
    file.write_text(json.dumps({name: value for name, value in facts.items() if name not in ("sampling", "checksum")}))
    assert command("merge", tmp_path / "old", tmp_path / "new", "-o", tmp_path / "new").out.startswith("0 rows")
    assert command("merge", tmp_path / "old", tmp_path / "new", "-o", tmp_path / "third").out.startswith("1 rows")
    assert content(tmp_path / "third") == content(tmp_path / "old")


def test_what_a_store_can_do_without_is_said_and_goes(two, tmp_path):
    store = Store(two[0])
    store.add_part("unfinished", 0, 40, {"psnr": NOISE})
    old = store.folder / "partial" / "cell"
    old.mkdir()
    np.savez(old / "0.npz", psnr=NOISE)  # of an older version
    np.savez(store.folder / "per_sample" / "gone.npz", psnr=NOISE)
    (store.folder / "damaged").mkdir()
    (store.folder / "damaged" / "x.json").write_text("{")
    store.finish(row_of("old", samples=40), {"psnr": NOISE, "features[net]": np.zeros((40, 9)), "logits[net]": NOISE})
    kept, rows, table = content(two[0] / "kept"), store.rows(), command("table", two[0], "--format", "csv").out
    before = content(two[0])
    told = command("store", "prune", two[0], "--dry-run")
    assert content(two[0]) == before
    lines = told.out.splitlines()
    assert [line.partition(":")[0] for line in lines[:-1]] == [
        "parts of unfinished cells", "damaged rows", "arrays without a row", "features in rows of older versions"
    ]  # fmt: skip
    assert lines[0].startswith("parts of unfinished cells: 2 files, 1.")
    assert lines[-1].endswith(f"in {two[0]} can go")
    assert command("store", "prune", two[0]).code == 0
    assert not list((two[0] / "partial").iterdir())
    assert not (two[0] / "damaged").exists()
    assert set(store.per_sample("old")) == {"psnr"}
    assert (content(two[0] / "kept"), store.rows()) == (kept, rows)
    assert command("table", two[0], "--format", "csv").out == table
    assert command("store", "prune", two[0]).out == f"{two[0]} has nothing to remove\n"
    assert "kept parts: 2 files" in command("store", "prune", two[0], "--kept").out
    assert not (two[0] / "kept").exists()


def test_nothing_goes_while_a_process_is_at_work(two):
    store, before = Store(two[0]), content(two[0])
    with store.claim("job"):
        ended = command("store", "prune", two[0], "--kept")
    assert (ended.code, "a bench is at work on" in ended.err) == (2, True)
    assert content(two[0]) == before


def test_a_folder_that_is_no_store_is_refused(tmp_path):
    for words in (["merge", tmp_path, "-o", tmp_path / "new"], ["store", "prune", tmp_path]):
        ended = command(*words)
        assert (ended.code, "is no store" in ended.err) == (2, True)
    assert not list(tmp_path.glob("new"))


def test_a_cell_of_many_samples_is_small(tmp_path):
    """50,000 samples with all metrics that have intervals: at most 100 bytes for each sample and metric."""
    n, rng = 50_000, np.random.default_rng(0)
    metrics = [f"{name}@{n}" for name in ("fd[a]", "fd[b]", "fd-inf[a]", "fid")]
    arrays = {f"influence[{name}]": rng.standard_normal((2, n)) for name in metrics} | {"psnr": rng.standard_normal(n)}
    Store(tmp_path).finish(row_of(samples=n, metrics=dict.fromkeys(["psnr", *metrics], 1.0)), arrays)
    size = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    assert size < min(10e6, 100 * n * len(metrics))
    with zipfile.ZipFile(tmp_path / "per_sample" / "abc.npz") as archive:
        assert len(archive.namelist()) == 5
