import io
import os
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from rich.console import Console

from fastsample.results.overview import differences, overview, to_rich
from fastsample.results.store import Store, StoreError

from ..rows import row_of


def row(cell="abc", **changes):
    facts = dict(
        sampling="sampling", solver="scire", title="SciRE", options={"order": 3}, times=[1.0, 0.5, 0.001], samples=4,
        metrics={"psnr": 30.0, "fd[net]@4": 12.5},
        seconds={"network": 2.0, "solver": 0.05, "metrics": 0.03, "total": 2.08},
    )  # fmt: skip
    return row_of(cell, **facts | changes)


def test_a_row_comes_back_as_it_was(tmp_path):
    store = Store(tmp_path / "new" / "store")
    store.add_part("sampling", 0, 4, {"psnr": np.arange(4.0)})
    assert store.parts("sampling").names(0, 4) == {"psnr"}
    assert "abc" not in store
    store.finish(row(), {"psnr": np.arange(4.0)})
    assert "abc" in store
    assert store.rows() == [row()]
    assert store.per_sample("abc")["psnr"].tolist() == [0, 1, 2, 3]
    assert not list((store.folder / "partial").iterdir())
    assert Store(tmp_path / "new" / "store", create=False).rows() == [row()]
    for frame in (pd.read_parquet(store.folder / "rows.parquet"), pd.read_csv(store.folder / "rows.csv")):
        assert frame.loc[0, "metrics.psnr"] == 30.0
        assert frame.loc[0, "solver"] == "scire"


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write to the output folder"):
        Store(tmp_path / "file" / "store")
    with pytest.raises(StoreError, match="is no store"):
        Store(tmp_path / "absent", create=False)


def test_a_flipped_bit_of_a_row_is_found_or_changes_nothing(flips, tmp_path, capsys):
    store = Store(tmp_path)
    for cell in ("abc", "other"):
        store.finish(row(cell), {})
    file = tmp_path / "rows" / "abc.json"
    for count, _ in enumerate(flips(file, 13), 1):  # noqa: B007
        found = Store(tmp_path, create=False).rows()
        assert found in ([row("abc"), row("other")], [row("other")])
        assert capsys.readouterr().err.count(f"{file} ") == 2 - len(found)
    assert count > 100


ARRAYS = {"psnr": np.arange(4.0), "features[net]": np.ones((4, 3), np.float32), "calls": np.array(7.0)}


@pytest.mark.parametrize(
    ("folder", "read"),
    [
        ("per_sample", lambda store: store.per_sample("abc")),
        ("per_sample", lambda store: {name: x for n in ARRAYS for name, x in store.per_sample("abc", [n]).items()}),
        ("partial", lambda store: {n: x for n in ARRAYS if (x := store.parts("some").read(0, 4, n)) is not None}),
    ],
    ids=["all arrays", "one array at a time", "part"],
)
def test_a_flipped_bit_of_arrays_is_found_or_changes_nothing(folder, read, flips, tmp_path, capsys):
    store = Store(tmp_path)
    store.finish(row(), ARRAYS)
    store.add_part("some", 0, 4, ARRAYS)
    (file,) = (tmp_path / folder).rglob("*.npz")
    for _ in flips(file):
        found, said = read(store), capsys.readouterr().err.splitlines()
        assert all((array == ARRAYS[name]).all() for name, array in found.items())
        assert (found.keys() == ARRAYS.keys()) == (not said)
        assert all(line.startswith(f"{file} ") for line in said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: b"", "is damaged (Invalid JSON: EOF"),
        (lambda text: text[:300], "is damaged (Invalid JSON: EOF"),
        (lambda text: b"[" * 100_000, "is damaged (Invalid JSON: recursion limit"),
        (lambda text: b"[1]", "is damaged (it holds no JSON object"),
        (lambda text: text.replace(b"30.0", b"31.0"), "is damaged (its checksum is not that of its content"),
        (lambda text: text.replace(b"30.0", b"NaN"), "metrics.psnr: Input should be a finite number"),
        (lambda text: text.replace(b"30.0", b"null"), "is no row of this version (metrics.psnr:"),
        (lambda text: text.replace(b'"order": 3', b'"order": 1e999'), "options.order"),
        (lambda text: text.replace(b'"seed"', b'"sead"'), "is no row of this version (seed: Field required)"),
        (lambda text: text.replace(b'"cell"', b'"colour": 1, "cell"'), "was written by a newer version of fastsample"),
        (lambda text: text.replace(b'"abc"', b'"other"'), "is damaged"),
    ],
    ids=["empty", "cut", "nested", "array", "number", "nan", "null", "overflow", "key", "newer", "name"],
)
def test_an_unreadable_row_is_set_aside_and_its_cell_is_missing(change, said, tmp_path, capsys):
    store = Store(tmp_path)
    for cell in ("abc", "def"):
        store.finish(row(cell), {})
    file = tmp_path / "rows" / "abc.json"
    changed = change(file.read_bytes())
    file.write_bytes(changed)
    reader = Store(tmp_path, create=False)
    assert reader.rows() == reader.rows() == [row("def")]
    (line,) = capsys.readouterr().err.splitlines()  # once, however often it is read
    assert line.startswith(f"{file} ")
    assert said in line
    with pytest.raises(StoreError, match=r"rows/abc\.json "):
        reader.row("abc")
    assert file.read_bytes() == changed  # who only reads moves nothing
    assert "abc" not in Store(tmp_path)
    assert "damaged" in capsys.readouterr().err
    store.finish(row(), {})
    assert store.finished("abc") == row()
    (kept,) = (tmp_path / "damaged").iterdir()
    assert kept.read_bytes() == changed
    assert capsys.readouterr().err == ""


def test_rows_of_older_versions_have_no_checksum(tmp_path):
    store = Store(tmp_path)
    store.finish(row(), {"psnr": np.arange(4.0)})
    (tmp_path / "rows" / "abc.json").write_text(row().model_dump_json(indent=1))
    np.savez(tmp_path / "per_sample" / "abc.npz", psnr=np.arange(4.0))
    assert store.finished("abc") == row()
    assert store.per_sample("abc")["psnr"].tolist() == [0, 1, 2, 3]


def test_a_row_whose_arrays_are_damaged_or_gone_is_not_finished(tmp_path, capsys):
    store = Store(tmp_path)
    for damage in (lambda file: file.write_bytes(file.read_bytes()[:-100]), lambda file: file.unlink()):
        store.finish(row(), {"psnr": np.arange(4.0)})
        damage(tmp_path / "per_sample" / "abc.npz")
        assert store.per_sample("abc") == {}
        assert store.finished("abc") is None
        assert "its cell is computed anew" in capsys.readouterr().err
        assert store.rows() == []


@pytest.mark.parametrize(
    "changes",
    [{"guidance": float("nan")}, {"metrics": {"psnr": float("inf")}}, {"options": {"eta": [float("nan")]}},
     {"times": [1.0, float("nan")]}, {"standard_errors": {"psnr": float("nan")}}, {"seconds": {"total": float("inf")}}],
)  # fmt: skip
def test_no_field_of_a_row_takes_nan_or_infinity(changes):
    with pytest.raises(ValidationError, match="finite number"):
        row(**changes)


def test_a_row_that_would_not_be_read_back_is_not_committed(tmp_path):
    store = Store(tmp_path)
    store.finish(row(), {})
    for damage, said in (({"guidance": float("nan")}, "JSON compliant"), ({"options": {"t": (1, 2)}}, "read back")):
        with pytest.raises(ValueError, match=said), warnings.catch_warnings(action="ignore"):
            store.finish(row().model_copy(update=damage), {})
    assert store.rows() == [row()]
    assert not list(tmp_path.rglob(".fastsample-*"))


def test_files_take_their_places_whole_and_arrays_before_their_row(tmp_path, monkeypatch):
    """Nothing is written in place, and a process that dies between the two leaves no row without its arrays."""
    store, written = Store(tmp_path), []
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, to: written.append(to.name) or replace(self, to))
    store.add_part("sampling", 0, 4, {"psnr": np.arange(4.0)})
    store.finish(row(), {"psnr": np.arange(4.0)})
    assert written == ["0-4.npz", "abc.npz", "abc.json", "rows.parquet", "rows.csv"]


def test_a_store_is_swept_when_it_is_opened(tmp_path):
    store = Store(tmp_path)
    store.add_part("other", 0, 4, {"psnr": np.arange(4.0)})
    for folder in ("", "rows", "per_sample", "partial/other", "kept/other", "claims"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / (".fastsample-1.part" if folder != "claims" else "job.lock")).write_text("")
    Store(tmp_path)
    assert not [*tmp_path.rglob("*.part"), *tmp_path.rglob("*.lock")]
    assert store.parts("other").names(0, 4) == {"psnr"}


def test_parts_of_a_cell_that_another_process_finishes(tmp_path):
    one, other = Store(tmp_path), Store(tmp_path)
    one.add_part("sampling", 0, 2, {"psnr": np.arange(2.0)})
    known = one.parts("sampling")
    other.finish(row(samples=2), {})
    assert known.read(0, 2, "psnr") is None
    one.add_part("sampling", 2, 4, {"psnr": np.arange(2.0)})
    one.finish(row(samples=2), {})
    assert not list((tmp_path / "partial").iterdir())


def test_what_a_process_left_that_was_killed_after_its_row_goes_when_the_row_is_next_asked_for(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.add_part("sampling", 0, 4, {"psnr": np.arange(4.0)})
    with monkeypatch.context() as patch:
        patch.setattr(Store, "drop", lambda *_, **__: None)
        store.finish(row(), {"psnr": np.arange(4.0)})
    time.sleep(0.01)
    store.add_part("sampling", 4, 8, {"psnr": np.arange(4.0)})  # of another cell, with more samples
    assert store.finished("abc") == row()
    assert [file.name for file in (tmp_path / "partial" / "sampling").iterdir()] == ["4-8.npz"]


def test_a_killed_writer_leaves_a_clean_store(tmp_path):
    """kill -9 at any moment: what is there reads back, and nothing is half-written."""
    script = textwrap.dedent(f"""
        import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        import numpy as np
        from rows import row_of
        from fastsample.results.store import Store
        store = Store({str(tmp_path)!r})
        for i in range(100000):
            store.add_part(f"s{{i:06}}", 0, 20000, {{"x|0": np.zeros(20000)}})
            row = row_of(f"c{{i:06}}", sampling=f"s{{i:06}}", made={{"x": "0"}})
            store.finish(row, {{"x": np.zeros(20000)}}, keep=i % 2)
    """)
    process = subprocess.Popen([sys.executable, "-c", script])
    while len(list((tmp_path / "rows").glob("*.json")) if (tmp_path / "rows").exists() else []) < 4:
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    store = Store(tmp_path, create=False)
    rows = store.rows()
    assert len(rows) >= 4
    for one in rows:
        assert store.per_sample(one.cell)["x"].shape == (20000,)
        assert store.parts(one.sampling).read(0, 20000, "x|0").shape == (20000,)
    pd.read_parquet(tmp_path / "rows.parquet")


def test_overview_shows_what_was_made(tmp_path):
    store = Store(tmp_path)
    store.finish(row(), {})
    store.finish(row("def", solver="rk4", options={}, nfe=8, created="2026-01-02T00:00:00+00:00"), {})
    table = overview(store.frame())
    assert table["NFE"].tolist() == ["8/10", "10"]
    assert table["solver"].tolist() == ["rk4", "scire:order=3"]
    assert table["overhead"].tolist() == ["4.0 %", "4.0 %"]
    assert table["images/s"].iloc[0] == pytest.approx(1000 / 512.5)
    screen = Console(width=160, file=io.StringIO())
    screen.print(to_rich(table))
    assert "fd[net]@4" in screen.file.getvalue()  # a bracket is no markup
    assert overview(store.frame(), cells=True)["cell"].tolist() == ["def", "abc"]
    assert overview(pd.DataFrame()).empty


def test_differences_names_the_fields(tmp_path):
    store = Store(tmp_path)
    store.finish(row(), {})
    store.finish(row("xyz", seed=7, protocol={"noise": "other"}), {})
    found = differences(store.frame(), "a", "x")
    assert set(found["field"]) == {"cell", "seed", "protocol.noise"}
    with pytest.raises(ValueError, match=r"0 cells begin with 'q'; abc is \S+ scire:order=3 \S+ NFE 10; xyz is "):
        differences(store.frame(), "q", "x")
