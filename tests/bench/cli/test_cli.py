import json
import subprocess
import sys

import pytest

COMMAND = [sys.executable, "-c", "from fastsample.bench.cli.app import main; main()"]


def run(*words, cwd):
    return subprocess.run([*COMMAND, *map(str, words)], cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["bench", "--solver", "scier"], "did you mean scire"),
        (["bench", "--model", "cifar10-tiny"], "did you mean cifar10-tiny-"),
        (["bench", "--metrics", "fdi"], "did you mean f"),
        (["bench", "--model", "gmm2d", "--solver", "heun:ordr=2"], "unknown option of solver heun 'ordr'"),
        (["bench", "--model", "gmm2d", "--nfe", "0"], "--nfe takes whole numbers from 1 to 10000, not 0"),
        (["bench", "--model", "gmm2d", "--out", "file/store"], "cannot write to the output folder"),
        (["bench", "--model", "truncated.safetensors"], "truncated.safetensors"),
        (["bench", "--model", "gmm2d", "--grid", "lognsr"], "did you mean logsnr"),
        (["show", "nowhere"], "is no store"),
        (["list", "solver"], "did you mean solvers"),
        (["sample", "--model", "gmm2d"], "no images"),
    ],
)
def test_bad_requests_end_with_one_clear_message(words, message, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "truncated.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{}")
    result = run(*words, cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr + result.stdout
    assert not list(tmp_path.rglob("rows/*.json"))


def test_bench_show_diff_and_list(tmp_path):
    made = run(
        "bench",
        "--model",
        "gmm2d",
        "--solver",
        "heun,euler",
        "--nfe",
        "4,8",
        "--samples",
        16,
        "--out",
        "s",
        cwd=tmp_path,
    )
    assert made.returncode == 0, made.stderr
    assert "PSNR" in made.stdout
    assert "heun" in made.stdout
    shown = run("show", "s", cwd=tmp_path)
    assert shown.returncode == 0
    assert "gmm2d" in shown.stdout
    assert [shown.stdout.split().count(name) for name in ("heun", "euler")] == [2, 2]
    cells = [json.loads(file.read_text())["cell"] for file in (tmp_path / "s" / "rows").iterdir()]
    difference = run("diff", "s", cells[0][:8], cells[1][:8], cwd=tmp_path)
    assert difference.returncode == 0, difference.stderr
    for what in ("solvers", "models", "datasets", "references", "grids", "metrics"):
        listed = run("list", what, "--long", cwd=tmp_path)
        assert listed.returncode == 0, listed.stderr
        assert len(listed.stdout.splitlines()) > 4


def test_sample_writes_a_picture(tmp_path):
    made = run(
        "sample", "--model", "gmm-image", "--solver", "euler", "--nfe", 3, "--samples", 4, "-o", "g.png", cwd=tmp_path
    )
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "g.png").read_bytes()[:4] == b"\x89PNG"
