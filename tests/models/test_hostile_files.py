"""Small files that ask for gigabytes or hours are refused, in one line, with little memory and in little time."""

import json
import subprocess
import sys

import pytest

from fastsample.bench.cli.app import main

from . import hostile_files

MOST_MB, MOST_SECONDS = 1000, 20


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak from /proc")
def test_every_hostile_file_is_refused(tmp_path):
    """One process reads them all, so that its peak is that of the worst."""
    command = [sys.executable, hostile_files.__file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        for name, data, reader in hostile_files.files():
            path = tmp_path / name
            path.write_bytes(data)
            assert len(data) <= hostile_files.MOST, name
            child.stdin.write(json.dumps([str(path), reader]) + "\n")
            child.stdin.flush()
            told, seconds, peak = json.loads(child.stdout.readline())
            known = ("CheckpointError: ", "ReferenceError: ", "DatasetError: ", "TableFileError: ")
            assert told.startswith(known), (name, told)
            assert name in told, (name, told)
            assert len(told.splitlines()) == 1, (name, told)
            assert len(told) < 1500, (name, told)
            assert peak < MOST_MB, name
            assert seconds < MOST_SECONDS, name
            path.unlink()
        child.stdin.close()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("width.safetensors", ["--model", "FILE"]),
        ("shape.safetensors", ["--model", "FILE"]),
        ("steps.toml", ["--model", "FILE"]),
        ("brackets.toml", ["--model", "FILE"]),
        ("bytes.pth", ["--model", "ddpm-cifar10", "--checkpoint", "FILE"]),
        ("bytes.pth", ["--model", "gmm-image", "--inception-weights", "FILE", "--metrics", "fid"]),
    ],
)
def test_they_end_the_command_with_one_line(name, words, tmp_path, monkeypatch, capfd):
    contents = {
        "width.safetensors": hostile_files.described(network="MLP", network_args={"channels": 2, "width": 2**20}),
        "shape.safetensors": hostile_files.described(image_shape=[10**9, 10**9]),
        "steps.toml": hostile_files.STEPS.encode(),
        "brackets.toml": b"a = " + b"[" * 500_000,
        "bytes.pth": hostile_files.zipped(next(hostile_files.programs())[1]),
    }
    file = tmp_path / name
    file.write_bytes(contents[name])
    monkeypatch.setenv("FASTSAMPLE_HOME", str(tmp_path / "home"))
    given = ["fastsample", "bench", "--out", tmp_path / "store", *(file if word == "FILE" else word for word in words)]
    monkeypatch.setattr(sys, "argv", [str(word) for word in given])
    with pytest.raises(SystemExit) as end:
        main()
    told = capfd.readouterr().err.strip()
    assert end.value.code == 2, told
    assert name in told
    assert len(told.splitlines()) == 1
    assert not list(tmp_path.rglob("rows/*.json"))
