"""The one writer of files, and what tells a damaged file."""

import os
import stat
import subprocess
import sys
import textwrap
import threading
from contextlib import suppress

import numpy as np
import pytest

from fastsample.datasets.files import (
    DamagedFileError,
    json_bytes,
    locked,
    open_sealed,
    read_arrays,
    read_json,
    sweep,
    write_arrays,
    write_atomically,
    write_sealed,
)


def put(text):
    return lambda stream: stream.write(text)


def test_a_file_is_replaced_whole_or_stays(tmp_path):
    file, seen = tmp_path / "a", []
    write_atomically(file, put(b"old"))

    def half(stream):
        stream.write(b"ne")
        seen.extend([file.read_bytes(), len(list(tmp_path.iterdir()))])
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(file, half)
    with pytest.raises(ValueError, match="not so"):
        write_atomically(file, put(b"new"), lambda _: (_ for _ in ()).throw(ValueError("not so")))
    assert seen == [b"old", 2]
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]
    write_atomically(file, put(b"new"), lambda one: seen.append(one.read_bytes()))
    assert (file.read_bytes(), seen[-1]) == (b"new", b"new")


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_its_mode_follows_the_umask(mask, tmp_path):
    before = os.umask(mask)
    try:
        write_atomically(tmp_path / "a", put(b""))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~mask


def test_behind_a_link_its_target_is_written(tmp_path):
    (tmp_path / "there").mkdir()
    link, target = tmp_path / "link", tmp_path / "there" / "target"
    link.symlink_to(target)
    for text in (b"one", b"two"):  # the target is not there at first
        write_atomically(link, put(text))
        assert link.readlink() == target
        assert target.read_bytes() == text
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["link", "target", "there"]


def test_a_device_is_written_to_and_stays(full_device):
    with pytest.raises(OSError, match="No space left"):
        write_atomically(full_device, put(b"x"))
    assert full_device.is_char_device()
    assert not list(full_device.parent.glob(".fastsample-*"))


def test_a_pipe_is_written_to_and_stays(tmp_path):
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    write_atomically(pipe, lambda stream: np.savez(stream, x=np.arange(3)))
    reader.join()
    assert got[0][:2] == b"PK"
    assert pipe.is_fifo()


@pytest.mark.parametrize("how", ["pipe", "file"])
def test_standard_output_is_written_to(how, tmp_path):
    code = "from pathlib import Path; from fastsample.datasets.files import write_atomically\n"
    code += "write_atomically(Path('/dev/stdout'), lambda stream: stream.write(b'text'))"
    with (tmp_path / "out").open("wb+") as file:
        where = file if how == "file" else subprocess.PIPE
        run = subprocess.run([sys.executable, "-c", code], stdout=where, check=True)
        file.seek(0)
        assert (file.read() if how == "file" else run.stdout) == b"text"
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_nobody_can_lay_a_link_where_it_writes(tmp_path, monkeypatch):
    """The temporary name is new at every write, also for equal process ids, and a file that is there is never taken."""
    monkeypatch.setattr(os, "getpid", lambda: 7)
    names = []
    for _ in range(3):
        write_atomically(tmp_path / "a", lambda stream: names.append(stream.name))
    assert len(set(names)) == 3
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / ".fastsample-0.part").symlink_to(victim)
    monkeypatch.setattr("fastsample.datasets.files.uuid4", lambda: type("", (), {"hex": "0"}))
    with pytest.raises(FileExistsError):
        write_atomically(tmp_path / "a", put(b"x"))
    assert victim.read_text() == "mine"


def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    script = textwrap.dedent(f"""
        import time
        from pathlib import Path
        from fastsample.datasets.files import write_atomically
        def write(stream):
            print("writing", flush=True)
            time.sleep(60)
        write_atomically(Path({str(tmp_path / "a")!r}), write)
    """)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        sweep(tmp_path)
        assert len(list(tmp_path.iterdir())) == 1
        process.kill()
    foreign = tmp_path / ".mine.part"
    foreign.write_text("")
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == [foreign]


def test_one_at_a_time(tmp_path):
    inside, most = [], []

    def work():
        for _ in range(20):
            with locked(tmp_path / ".lock"):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(most) == {1}


def test_without_locks_files_are_written_and_nothing_is_removed(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", none)
    (tmp_path / ".fastsample-1.part").write_text("")
    write_atomically(tmp_path / "a", put(b"x"))
    with locked(tmp_path / ".lock"):
        sweep(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {".fastsample-1.part", ".lock", "a"}


def test_every_flipped_bit_of_a_sealed_file_is_found_or_changes_nothing(tmp_path):
    file = tmp_path / "a"
    write_sealed(file, put(b"content of some length"))
    content, same = file.read_bytes(), 0
    for bit in range(8 * len(content)):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        file.write_bytes(changed)
        with suppress(DamagedFileError), open_sealed(file) as stream:
            assert stream.read().startswith(b"content of some length")
            same += 1
    assert same == 8 * 8  # of the mark of the checksum


def test_other_programs_read_sealed_arrays(tmp_path):
    write_arrays(tmp_path / "a.npz", {"x": np.arange(3)})
    with np.load(tmp_path / "a.npz") as data:
        assert data["x"].tolist() == [0, 1, 2]
    np.savez(tmp_path / "b.npz", x=np.arange(3))  # of an older version
    assert read_arrays(tmp_path / "b.npz")["x"].tolist() == [0, 1, 2]
    assert read_arrays(tmp_path / "c.npz") is None


def test_facts_come_back_and_no_nan_is_written():
    facts = {"a": [1, 2.5, None], "b": {"c": "ü"}}
    assert read_json(json_bytes(facts), dict) == facts
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not JSON compliant"):
            json_bytes({"a": [bad]})
    with pytest.raises(DamagedFileError, match="not JSON compliant"):
        read_json(b'{"a": 1e999}', dict)
