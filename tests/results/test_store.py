import io
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from fastsample.results.store import Store, StoreError
from fastsample.results.tables import differences, overview, to_rich

from ..rows import row_of


def row(cell="abc", **changes):
    facts = dict(
        solver="scire", title="SciRE", options={"order": 3}, times=[1.0, 0.5, 0.001], samples=4,
        metrics={"psnr": 30.0, "fd[net]@4": 12.5},
        seconds={"network": 2.0, "solver": 0.05, "metrics": 0.03, "total": 2.08},
    )  # fmt: skip
    return row_of(cell, **facts | changes)


def test_a_row_comes_back_as_it_was(tmp_path):
    store = Store(tmp_path / "new" / "store")
    store.add_shard("abc", 0, {"psnr": np.arange(4.0)})
    assert list(store.shards("abc")) == [0]
    assert "abc" not in store
    store.finish(row(), {"psnr": np.arange(4.0)})
    assert "abc" in store
    assert store.rows() == [row()]
    assert store.per_sample("abc")["psnr"].tolist() == [0, 1, 2, 3]
    assert store.shards("abc") == {}
    assert Store(tmp_path / "new" / "store", create=False).rows() == [row()]
    for frame in (pd.read_parquet(store.folder / "rows.parquet"), pd.read_csv(store.folder / "rows.csv")):
        assert frame.loc[0, "metrics.psnr"] == 30.0
        assert frame.loc[0, "solver"] == "scire"


def test_a_truncated_shard_is_computed_again(tmp_path):
    store = Store(tmp_path)
    store.add_shard("abc", 0, {"psnr": np.arange(4.0)})
    store.add_shard("abc", 1, {"psnr": np.arange(4.0)})
    file = tmp_path / "partial" / "abc" / "1.npz"
    file.write_bytes(file.read_bytes()[:40])
    assert list(store.shards("abc")) == [0]


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write to the output folder"):
        Store(tmp_path / "file" / "store")
    with pytest.raises(StoreError, match="is no store"):
        Store(tmp_path / "absent", create=False)


def test_a_damaged_row_is_named(tmp_path):
    store = Store(tmp_path)
    store.finish(row(), {})
    (tmp_path / "rows" / "abc.json").write_text('{"cell": "abc"}')
    with pytest.raises(StoreError, match=r"abc\.json is no row"):
        store.rows()


def test_a_killed_writer_leaves_a_clean_store(tmp_path):
    """kill -9 at any moment: what is there reads back, and nothing is half-written."""
    script = textwrap.dedent(f"""
        import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        import numpy as np
        from rows import row_of
        from fastsample.results.store import Store
        store = Store({str(tmp_path)!r})
        for i in range(100000):
            store.add_shard(f"c{{i:06}}", 0, {{"x": np.zeros(20000)}})
            store.finish(row_of(f"c{{i:06}}"), {{"x": np.zeros(20000)}})
    """)
    process = subprocess.Popen([sys.executable, "-c", script])
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "rows").glob("*.json")) if (tmp_path / "rows").exists() else []) < 4:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    store = Store(tmp_path, create=False)
    rows = store.rows()
    assert len(rows) >= 4
    for one in rows:
        assert store.per_sample(one.cell)["x"].shape == (20000,)
    pd.read_parquet(tmp_path / "rows.parquet")


def test_overview_shows_what_was_made(tmp_path):
    store = Store(tmp_path)
    store.finish(row(), {})
    store.finish(row("def", solver="rk4", options={}, nfe=8, created="2026-01-02T00:00:00+00:00"), {})
    table = overview(store.frame())
    assert table["NFE"].tolist() == ["8/10", "10"]
    assert table["solver"].tolist() == ["rk4", "scire:order=3"]
    assert table["overhead"].tolist() == ["4.0 %", "4.0 %"]
    assert table["ms/image"].iloc[0] == pytest.approx(512.5)
    screen = Console(width=160, file=io.StringIO())
    screen.print(to_rich(table))
    assert "fd[net]@4" in screen.file.getvalue()  # a bracket is no markup
    assert overview(pd.DataFrame()).empty


def test_differences_names_the_fields(tmp_path):
    store = Store(tmp_path)
    store.finish(row(), {})
    store.finish(row("xyz", seed=7, protocol={"noise": "other"}), {})
    found = differences(store.frame(), "a", "x")
    assert set(found["field"]) == {"cell", "seed", "protocol.noise"}
    with pytest.raises(ValueError, match="0 cells begin"):
        differences(store.frame(), "q", "x")
