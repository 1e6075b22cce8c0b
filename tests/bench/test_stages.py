"""What a command tells of itself while it works, on a terminal and in a log."""

import os
import pty
import re
import signal
import subprocess
import sys
import time

import pytest

from fastsample.bench.cli import words as cli_words
from fastsample.bench.jobs import stages

from .working import Sweep

FEW = ("--model", "gmm2d", "--solver", "euler,heun", "--nfe", "4", "--samples", "16", "--batch-size", "8")
ONE = ("--model", "gmm2d", "--solver", "euler", "--nfe", "4", "--samples", "8", "--metrics", "psnr,logged")
STAGES = ("reference solutions: ", "samples: ", "metrics: ")


@pytest.fixture
def sweep(tmp_path):
    return Sweep(tmp_path, tmp_path / "home", *FEW, "--metrics", "psnr,logged")


def test_a_log_has_a_line_for_each_stage(command, tmp_path):
    code, out, err = command("bench", *FEW, "--metrics", "psnr", "--out", tmp_path / "store")
    assert code == 0
    lines = err.splitlines()
    assert [sum(line.startswith(stage) for line in lines) for stage in STAGES] == [1, 1, 1]
    assert len(lines) <= len(STAGES) + 2  # once each, however many batches there are
    counted = [found.groups() for line in lines if (found := re.search(r": ([\d,]+) of ([\d,]+) evaluations", line))]
    assert len({total for _, total in counted}) == 1
    made = [int(made.replace(",", "")) for made, _ in counted]
    assert [*made] == sorted(made)
    assert "euler" in out


def pauses(sweep, store, slow, *words, silence=None):
    """Seconds between the lines of the true command, from its first one to its end; its metric sleeps so long."""
    code = "import sys, own; from fastsample.bench.jobs import stages; from fastsample.bench.cli.app import main; "
    code += f"stages._SILENCE = {silence or 'stages._SILENCE'}; main()"
    given = os.environ | {"SLOW": str(slow), "LOG": str(sweep.log), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    given |= {"RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, "-c", code, "bench", *ONE, "--out", str(store), *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    heard = []
    with subprocess.Popen(command, cwd=sweep.folder, env=given, text=True, **pipes) as process:
        for line in process.stdout:
            heard.append((time.monotonic(), line))
    assert process.returncode == 0, heard
    times = [at for at, line in heard if "evaluations" in heard[0][1]]
    assert times[-1] - times[0] > slow  # it was slow
    return [b - a for a, b in zip(times, times[1:], strict=False)]


def test_a_slow_run_without_a_terminal_is_not_silent(sweep, tmp_path):
    """A line a second, where there is one for each stage and each 20 s of silence as it is."""
    assert max(pauses(sweep, tmp_path / "store", 8, silence=1.0)) < 6


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [(), ("--workers", "2"), ("--ray", "--workers", "1")], ids=["alone", "workers", "ray"]
)
def test_no_thirty_seconds_pass_without_a_line(sweep, tmp_path, words):
    assert max(pauses(sweep, tmp_path / "store", 65, *words)) < 30


def test_without_a_terminal_python_says_nothing(capfd, tmp_path):
    import fastsample as fs

    fs.sweep(model="gmm2d", solver="euler", nfe=4, samples=4, metrics="psnr", out=tmp_path / "store")
    assert capfd.readouterr() == ("", "")


def test_a_default_metric_that_cannot_be_had_is_no_warning(command, tmp_path, coarse):
    """The first line of a sweep that goes as it should; what is not measured stands once, below the table."""
    words = ("bench", "--solver", "euler", "--nfe", 1, "--samples", 2)
    code, out, err = command(*words, "--out", tmp_path / "store")
    assert code == 0
    assert "without" not in out + err
    assert out.lstrip().startswith(("┏", "model"))
    assert [line for line in out.splitlines() if line.startswith("not measured: fid")]
    code, out, err = command(*words, "--metrics", "fid,psnr", "--out", tmp_path / "store")
    assert out.startswith("without fid")  # asked for by name
    assert "not measured" not in out


def on_a_terminal(words, cwd, seconds=60):
    """(exit code, what a terminal of 80 columns shows) of a command."""
    ours, theirs = pty.openpty()
    given = os.environ | {"COLUMNS": "80", "TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, "-m", "fastsample", *map(str, words)],
        cwd=cwd,
        env=given,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    try:
        while some := os.read(ours, 65536):
            shown += some
    except OSError:  # the end of a terminal
        pass
    os.close(ours)
    return process.wait(seconds), shown.decode()


def test_a_log_has_no_line_for_each_detail(capfd, monkeypatch):
    """A training tells of each of its steps, and a log now and then of the last one."""
    monkeypatch.setattr(stages, "_SILENCE", 0.5)
    with cli_words.told("training") as tell:
        for step in range(40):
            tell(f"step {step}")
            time.sleep(0.05)
    lines = capfd.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 4
    assert all(line.startswith("step ") for line in lines)


def test_a_terminal_has_a_bar_in_evaluations(tmp_path):
    code, shown = on_a_terminal(["bench", *FEW, "--metrics", "psnr", "--out", "store"], tmp_path)
    assert code == 0
    assert "reference solutions" in shown
    assert "evaluations" in shown
    assert "so far" not in shown


def test_a_command_over_a_store_says_what_it_does_after_a_second(command, tmp_path, monkeypatch):
    command("bench", *FEW, "--metrics", "psnr", "--out", tmp_path / "store")
    assert command("table", tmp_path / "store")[2] == ""  # it takes no second
    from fastsample.results import tables

    real = tables.table_of
    monkeypatch.setattr(tables, "table_of", lambda *words, **more: (time.sleep(1.3), real(*words, **more))[1])
    code, out, err = command("table", tmp_path / "store")
    assert (code, err) == (0, f"comparing the rows of {tmp_path / 'store'}, 0:00:01 so far\n")
    assert "euler" in out.lower()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["train", "flow", "gauss8-flow", "--out", "run"], "the same command goes on"),
        pytest.param(
            ["find", "ems", "--model", "cifar10-tiny-flow", "--samples", "512"],
            "what was found is kept; the search that was interrupted begins anew with the same command",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["distill", "bns", "--model", "cifar10-tiny-flow"],
            "the same command goes on from the last step",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["train", "find", "distill"],
)
def test_ctrl_c_says_what_is_kept_and_how_to_go_on(tmp_path, words, told):
    given = os.environ | {"PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "fastsample", *words]
    with subprocess.Popen(
        command, cwd=tmp_path, env=given, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        line = process.stderr.readline()  # after a second of its work
        assert "so far" in line
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert told in out + err
    assert process.returncode in (0, 130)
    assert "Traceback" not in err
