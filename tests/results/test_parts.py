"""Parts of samples: what a store knows of them, from which files, and who may work on them."""

import os
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from fastsample.results.storage import claims
from fastsample.results.store import Store

from ..rows import row_of

VALUES = np.arange(512.0)
FEATURES = np.arange(1024.0, dtype=np.float32).reshape(512, 2)


def part(first, end):
    return {"psnr|0": VALUES[first:end], "features[net]": FEATURES[first:end], "calls": np.array(10.0 * (end - first))}


def row(cell="abc", samples=256, sampling="some", **changes):
    return row_of(cell, samples=samples, sampling=sampling, made={"psnr": "0"}, **changes)


def test_more_samples_take_the_first_from_a_finished_row_and_from_parts_of_any_size(tmp_path):
    store = Store(tmp_path)
    store.finish(row(), {"psnr": VALUES[:256], "influence[fd[net]@256]": np.ones((2, 256))})
    store.add_part("some", 256, 320, part(256, 320))
    store.add_part("some", 300, 384, part(300, 384))
    parts = Store(tmp_path).parts("some")
    assert parts.names(0, 256) == parts.names(0, 384) == parts.names(250, 260) == {"psnr|0"}
    assert parts.names(256, 384) == {"psnr|0", "features[net]"}
    assert parts.names(256, 320) == {"psnr|0", "features[net]", "calls"}  # a number is of one part as it is
    assert parts.names(256, 385) == parts.names(0, 0) == parts.names(400, 500) == set()
    np.testing.assert_array_equal(parts.read(3, 384, "psnr|0"), VALUES[3:384])
    np.testing.assert_array_equal(parts.read(310, 384, "features[net]"), FEATURES[310:384])
    assert parts.read(300, 384, "calls") == 840
    assert parts.read(0, 257, "features[net]") is None
    assert store.parts("other").names(0, 256) == set()


def test_an_array_of_the_first_samples_alone_is_known_up_to_them(tmp_path):
    store = Store(tmp_path)
    store.add_part("some", 0, 256, part(0, 256) | {"psnr|0": VALUES[:100]})
    parts = store.parts("some")
    assert "psnr|0" in parts.names(0, 100)
    assert "psnr|0" not in parts.names(0, 101)
    assert parts.read(0, 256, "psnr|0") is None


def test_what_older_versions_wrote_tells_nothing_of_samples(tmp_path):
    store = Store(tmp_path)
    store.finish(row(sampling=""), {"psnr": VALUES[:256]})
    (tmp_path / "partial" / "some").mkdir()
    for name in ("0", "0-256-512", "a-b"):  # the first is a part of an older version, which is not taken up
        np.savez(tmp_path / "partial" / "some" / f"{name}.npz", psnr=VALUES[:256])
    assert store.parts("").names(0, 256) == store.parts("some").names(0, 256) == set()


def test_names_are_known_without_reading_and_one_array_is_read_without_the_others(tmp_path, monkeypatch):
    store, read, load = Store(tmp_path), [], np.lib.npyio.NpzFile.__getitem__
    store.add_part("some", 0, 256, part(0, 256))
    monkeypatch.setattr(np.lib.npyio.NpzFile, "__getitem__", lambda self, name: read.append(name) or load(self, name))
    parts = store.parts("some")
    assert len(parts.names(0, 256)) == 3
    assert read == []
    parts.read(0, 256, "psnr|0")
    assert read == ["psnr|0"]


def test_what_is_kept_of_a_part_is_added_to(tmp_path):
    store = Store(tmp_path)
    for number, name in enumerate(("features[one]", "features[two]")):
        store.add_part("some", 0, 256, {name: FEATURES[:256] + number})
        store.finish(row(f"cell{number}"), {}, keep=True)
        store.finish(row("other"), {})  # takes nothing away that is kept
    assert not list((tmp_path / "partial").iterdir())
    parts = Store(tmp_path).parts("some")
    assert parts.names(0, 256) == {"features[one]", "features[two]"}
    np.testing.assert_array_equal(parts.read(0, 256, "features[two]"), FEATURES[:256] + 1)
    store.add_part("some", 0, 256, {"a": VALUES[:256]})
    store.add_part("some", 0, 256, {"b": VALUES[:256]})
    assert {"a", "b"} < store.parts("some").names(0, 256)


def test_a_damaged_part_is_named_once_and_another_that_has_the_same_samples_is_read(tmp_path, capsys):
    store = Store(tmp_path)
    store.add_part("some", 0, 256, part(0, 256))
    store.finish(row(), {"psnr": VALUES[:256]}, keep=True)
    file = tmp_path / "kept" / "some" / "0-256.npz"
    content = bytearray(file.read_bytes())
    content[content.index(VALUES[:4].tobytes()) + 9] ^= 1
    content[content.index(FEATURES[:4].tobytes()) + 9] ^= 1
    file.write_bytes(content)
    parts = store.parts("some")
    np.testing.assert_array_equal(parts.read(0, 256, "psnr|0"), VALUES[:256])
    assert parts.names(0, 256) == {"psnr|0"}
    assert parts.read(0, 256, "features[net]") is None
    assert capsys.readouterr().err.count(str(file)) == 1


def test_every_file_operation_of_a_finish_may_be_the_last(tmp_path, monkeypatch):
    """The process dies at the k-th: the store reads back complete, and the cell is finished by the next one."""

    class Killed(BaseException):
        pass

    count, operations = 0, {"replace", "unlink", "rmdir", "mkdir"}
    while True:
        count += 1
        store, left = Store(tmp_path / str(count)), count
        store.add_part("some", 0, 256, part(0, 256))
        store.add_part("some", 256, 512, part(256, 512))
        with monkeypatch.context() as patch:

            def dying(of):
                def call(self, *args, **options):
                    nonlocal left
                    left -= 1
                    if not left:
                        patch.undo()  # what is after a kill does not run
                        raise Killed
                    return of(self, *args, **options)

                return call

            for name in operations:
                patch.setattr(Path, name, dying(getattr(Path, name)))
            with suppress(Killed):
                store.finish(row(samples=512), {"psnr": VALUES}, keep=count % 2 == 1)
        reader = Store(tmp_path / str(count))
        done = reader.finished("abc")
        assert done in (None, row(samples=512))
        known = reader.parts("some")
        np.testing.assert_array_equal(known.read(0, 512, "psnr|0"), VALUES)
        if not done or count % 2:
            assert {"psnr|0", "features[net]", "calls"} <= known.names(256, 512)
        reader.finish(row(samples=512), {"psnr": VALUES}, keep=count % 2 == 1)
        assert reader.rows() == [row(samples=512)]
        assert not list((reader.folder / "partial").iterdir())
        assert len(list(reader.folder.rglob("kept/*/*.npz"))) == 2 * (count % 2)
        if left > 0:
            break
    assert count > 8


def test_a_job_is_of_one_until_it_is_done(tmp_path):
    one, other = Store(tmp_path), Store(tmp_path)
    with one.claim("job") as mine, other.claim("job") as theirs, other.claim("next") as next_one:
        assert (mine, theirs, next_one) == (True, False, True)
        Store(tmp_path)  # sweeps nothing that is held
        assert (tmp_path / "claims" / "job.lock").exists()
    assert not list((tmp_path / "claims").iterdir())
    with pytest.raises(KeyError), one.claim("job"):
        raise KeyError
    with other.claim("job") as mine:
        assert mine


def test_a_killed_process_holds_no_job(tmp_path):
    script = textwrap.dedent(f"""
        import os, signal
        from fastsample.results.store import Store
        with Store({str(tmp_path)!r}).claim("job") as mine:
            assert mine
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    assert (tmp_path / "claims" / "job.lock").exists()
    with Store(tmp_path, create=False).claim("job") as mine:
        assert mine
    assert not list((tmp_path / "claims").iterdir())


def test_many_that_claim_at_once_take_turns(tmp_path):
    """The file of a claim goes as it ends: one who waits at the removed file is not a second holder."""
    script = textwrap.dedent(f"""
        import os
        from fastsample.results.storage.claims import claimed
        from pathlib import Path
        for _ in range(3):
            os.fork()
        held, got = Path({str(tmp_path)!r}) / "held", 0
        while got < 40:
            with claimed(Path({str(tmp_path)!r}) / "claims" / "job.lock") as mine:
                if mine:
                    got += 1
                    os.close(os.open(held, os.O_CREAT | os.O_EXCL))
                    held.unlink()
        try:
            while True:
                assert os.wait()[1] == 0
        except ChildProcessError:
            pass
    """)
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


@pytest.mark.parametrize("where", ["no locks", "no files"])
def test_where_there_are_no_locks_everybody_works(where, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(95, os.strerror(95))

    if where == "no locks":
        monkeypatch.setattr(claims.fcntl, "flock", refuse)
    else:
        (tmp_path / "claims").write_text("")
    with claims.claimed(tmp_path / "claims" / "job") as one, claims.claimed(tmp_path / "claims" / "job") as other:
        assert (one, other) == (True, True)
