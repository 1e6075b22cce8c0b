"""Cells that fail, results that are not finite, and how the command line ends."""

import dataclasses
import io
import os
import subprocess
import sys

import pytest
import torch
from rich.console import Console

from fastsample.bench import cells
from fastsample.bench.metrics import tools
from fastsample.bench.metrics.features import EMBEDDED, open_network
from fastsample.bench.metrics.measure import Summary
from fastsample.bench.metrics.measures.distribution import Distance
from fastsample.bench.request import Request
from fastsample.bench.sampling import Sampler
from fastsample.bench.sweep import run_sweep
from fastsample.models.catalogue import open_model
from fastsample.results.store import Store
from fastsample.solvers import solver as registry
from fastsample.solvers.solver import Facts, register

BROKEN = {
    "typo": NameError("name 'alhpa' is not defined"),
    "arithmetic": ArithmeticError("a step of no length"),
    "memory": RuntimeError("CUDA out of memory.\nTried to allocate 20 GiB"),
    "host-memory": MemoryError(),
    "key": KeyError("lam"),
    "file": FileNotFoundError(2, "No such file or directory", "times.txt"),
    "value": ValueError("math domain error"),
    "eof": EOFError(),
}


@pytest.fixture
def broken(monkeypatch):
    """Solvers of a user, each of which raises something."""
    monkeypatch.setattr(registry, "_SOLVERS", dict(registry._SOLVERS))
    for name, error in BROKEN.items():

        def solve(denoiser, x, times, error=error):
            raise error

        register(f"broken-{name}", Facts(title=name, paper="-", coordinate="x0", order=1))(solve)
    return ",".join(f"broken-{name}" for name in BROKEN)


def test_a_cell_that_fails_leaves_the_others_alone_and_is_told_at_the_end(broken, command, tmp_path):
    words = ["--model", "gmm2d", "--nfe", 4, "--samples", 4, "--metrics", "curvature", "--out", tmp_path / "s"]
    code, out, error = command("bench", "--solver", f"{broken},euler", *words)
    assert code == 1
    assert "Traceback" not in out + error
    told = [line for line in error.splitlines() if line.startswith("failed:")]
    assert len(told) == len(BROKEN)
    for line, (name, raised) in zip(told, BROKEN.items(), strict=True):
        assert line.startswith(f"failed: gmm2d broken-{name} ")
        assert (type(raised).__name__ in line) or "times.txt: No such file" in line
    assert "Tried to allocate 20 GiB" in told[2]
    assert [row.solver for row in Store(tmp_path / "s").rows()] == ["euler"]
    assert not list((tmp_path / "s" / "partial").iterdir())


def test_a_model_that_cannot_be_had_leaves_the_others_alone(command, tmp_path):
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{}")
    words = ["--solver", "euler", "--nfe", 4, "--samples", 4, "--metrics", "curvature", "--out", tmp_path / "s"]
    absent, cut = tmp_path / "absent.safetensors", tmp_path / "cut.safetensors"
    code, _, error = command("bench", "--model", f"{absent},gmm2d,{cut}", *words)
    assert code == 1
    told = [line.split(": ")[1] for line in error.splitlines() if line.startswith("failed:")]
    assert told == [str(absent), str(cut)]
    assert [row.model for row in Store(tmp_path / "s").rows()] == ["gmm2d"]
    code, _, error = command("bench", "--model", "gmm2d,gmm2d-flwo", *words[:-1], tmp_path / "t")
    assert code == 2
    assert "did you mean gmm2d-flow" in error
    assert not (tmp_path / "t").exists()


def test_an_unknown_option_ends_the_request(command, tmp_path):
    words = ["--model", "gmm2d", "--nfe", 6, "--samples", 4, "--metrics", "curvature"]
    code, _, error = command("bench", "--solver", "heun:steps=3,euler", *words, "--out", tmp_path / "t")
    assert code == 2
    assert "unknown option of solver heun 'steps'" in error
    assert not (tmp_path / "t").exists()


def test_a_traceback_can_be_asked_for(broken, command, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTSAMPLE_DEBUG", "1")
    words = ["--model", "gmm2d", "--nfe", 4, "--samples", 4, "--metrics", "curvature", "--out", tmp_path / "s"]
    code, _, error = command("bench", "--solver", "broken-typo", *words)
    assert code == 1
    assert "Traceback" in error
    assert "in solve" in error


def changed(monkeypatch, name, **changes):
    """The model that the sweep opens, with another part."""
    model = dataclasses.replace(open_model(name), **changes)
    monkeypatch.setattr(cells, "open_model", lambda *_, **__: model)


def nan_extractor(part):
    """The embedded extractor with features (0) or logits (1) that are NaN on the last image of a batch."""

    def broken_open(*arguments):
        extractor = open_network(*arguments)
        whole = extractor.network

        class Broken(torch.nn.Module):
            def forward(self, images):
                found = list(whole(images))
                found[part] = found[part].clone()
                found[part][-1, 0] = float("nan")
                return found

        extractor.__dict__["sha256"] = extractor.sha256
        extractor.network = Broken()
        return extractor

    return broken_open


def last_is_nan(x):
    images = x.clone()
    images[-1, 0, 0, 0] = float("nan")
    return images


@pytest.mark.parametrize(
    ("metric", "stage"),
    [
        ("decode", "decoding returned NaN or infinity"),
        ("features", f"features[{EMBEDDED}] of some sample is NaN or infinity"),
        ("logits", f"logits[{EMBEDDED}] of some sample is NaN or infinity"),
        ("value", f"fd[{EMBEDDED}]@4 is NaN or infinity"),
    ],
)
def test_what_is_not_finite_after_sampling_leaves_no_row(metric, stage, tmp_path, monkeypatch):
    if metric == "decode":
        changed(monkeypatch, "gmm-image", decode=last_is_nan)
    elif metric == "value":
        nan = Summary({f"fd[{EMBEDDED}]@4": float("nan")})
        monkeypatch.setattr(Distance, "estimate", lambda *_: nan)
    else:
        monkeypatch.setattr(tools, "open_network", nan_extractor(["features", "logits"].index(metric)))
    asked = Request(model="gmm-image", solver="euler", nfe=1, samples=4, metrics=("fd",), out=tmp_path / "s")
    (failure,) = run_sweep(asked, Console(file=io.StringIO()))
    assert failure == f"gmm-image euler uniform NFE 1: {stage}; no row was written"
    assert Store(tmp_path / "s").rows() == []
    assert not list((tmp_path / "s" / "partial").iterdir())


def test_a_picture_is_not_drawn_of_nan(command, tmp_path, monkeypatch):
    changed(monkeypatch, "gmm-image", decode=last_is_nan)
    words = ["--model", "gmm-image", "--solver", "euler", "--nfe", 1, "--samples", 2, "-o", tmp_path / "x.png"]
    code, _, error = command("sample", *words)
    assert (code, error) == (1, "failed: decoding returned NaN or infinity\n")
    changed(monkeypatch, "gmm-image")
    monkeypatch.setattr(Sampler, "start", lambda *_, start=Sampler.start: start(*_) * torch.inf)
    code, _, error = command("sample", *words)
    assert (code, error) == (1, "failed: the network or the solver returned NaN or infinity\n")
    assert not (tmp_path / "x.png").exists()


def test_a_picture_has_a_largest_size(command, tmp_path):
    words = ["--model", "gmm-image", "--solver", "euler", "--nfe", 1, "-o", tmp_path / "x.png"]
    code, _, error = command("sample", *words, "--samples", 1_000_000)
    assert code == 2
    assert "a file has at most 43690 samples of gmm-image, not 1000000" in error


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ArithmeticError("x"), 1, "failed: ArithmeticError: x"),
        (MemoryError(), 1, "failed: MemoryError"),
        (KeyError("a"), 1, "failed: KeyError: 'a'"),
        (TypeError("no"), 1, "failed: TypeError: no"),
        (EOFError(), 1, "failed: EOFError"),
        (AssertionError(), 1, "failed: AssertionError"),
        (ValueError("math domain error"), 2, "error: ValueError: math domain error"),
        (PermissionError(13, "Permission denied", "a\x1b[31m\nb"), 1, "failed: a\\x1b[31m b: Permission denied"),
        (BrokenPipeError(32, "Broken pipe"), 1, ""),
        (KeyboardInterrupt(), 130, ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_every_exception_ends_as_one_message(error, code, text, command, monkeypatch, tmp_path):
    def broken(self):
        raise error

    (tmp_path / "rows").mkdir()
    monkeypatch.setattr(Store, "frame", broken)
    ended, _, said = command("show", tmp_path)
    assert ended == code
    assert said.count("\n") == bool(text)
    assert said.startswith(text)
    if text and not isinstance(error, OSError):
        assert "(bench/cli/store.py, line " in said


def test_a_file_that_cannot_be_written_is_named(command, tmp_path):
    Store(tmp_path / "s")
    code, _, error = command("report", tmp_path / "s", "-o", tmp_path)
    assert code == 2  # no finished cell
    code, _, error = command("published", "--paper", "2308.07896", "-o", tmp_path)
    assert (code, error.count("\n")) == (2, 1)
    assert error.startswith("error: ")
    assert f"{tmp_path}" in error


def test_a_reader_who_has_enough_is_not_told(tmp_path):
    code = "from fastsample.bench.cli.app import main; main()"
    environment = os.environ | {"FASTSAMPLE_HOME": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", code, "published", "--format", "csv"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    ) as process:
        process.stdout.close()
        error = process.stderr.read()
    assert process.returncode == 1
    assert error == b""


@pytest.mark.parametrize(
    ("words", "limit"),
    [
        (("bench", "--nfe", 10**9), "from 1 to 10000, not 1000000000"),
        (("bench", "--samples", 2**63), "less than or equal to 1000000"),
        (("bench", "--samples", 1), "greater than or equal to 2"),
        (("bench", "--batch-size", 2**40), "less than or equal to 65536"),
        (("bench", "--seed", 2**31), "less than 2147483648"),
        (("bench", "--seed", 2**31 - 1, "--seeds", 3), "the last of 3 seeds from 2147483647 on must be below 214748"),
        (("bench", "--seeds", 10**9), "less than or equal to 1000"),
        (("bench", "--guidance", "nan"), "finite number"),
        (("bench", "--guidance", "inf"), "finite number"),
        (("bench", "--classifier-scale", "inf"), "finite number"),
        (("bench", "--config", "/dev/zero"), "/dev/zero: it is no file"),
        (("sample", "--nfe", 10**9), "from 1 to 10000, not 1000000000"),
        (("sample", "--samples", 2**63), "less than or equal to 1000000"),
        (("sample", "--seed", -1), "greater than or equal to 0"),
        (("explain", "heun", "--nfe", 1000), "256"),
        (("explain", "heun", "--guidance", "nan"), "finite number"),
        (("export", "--solver", "heun", "--to", "json", "--nfe", 1000), "256"),
        (("distill", "bns", "--nfe", 1000), "from 1 to 256, not 1000"),
        (("distill", "bns", "--train", 10**9), "100000"),
        (("distill", "bns", "--validation", 10**9), "100000"),
        (("distill", "bns", "--steps", 10**9), "10000"),
        (("distill", "bns", "--minutes", "nan"), "minutes"),
        (("distill", "bns", "--sigma0", "inf"), "1000"),
        (("distill", "bns", "--sigma0", "nan"), "sigma0"),
        (("distill", "bns", "--batch-size", 10**9), "65536"),
        (("distill", "bns", "--seed", 2**31), "2147483647"),
        (("plot", ".", "--images", 10**9), "1024"),
        (("plot", ".", "--nfe", 10**9), "from 1 to 10000, not 1000000000"),
        (("report", ".", "--images", 10**9), "64"),
        (("recommend", ".", "--budget", 10**9), "10000"),
        (("recommend", ".", "--target-psnr", "nan"), "finite number"),
        (("recommend", ".", "--max-seconds", "nan"), "max-seconds"),
        (("train", "flow", "gauss8-flow", "--images", 10**15), "1000000000000"),
        (("train", "flow", "gauss8-flow", "--batch", 10**9), "65536"),
        (("train", "reflow", "gauss8-reflow", "--accumulate", 10**9), "65536"),
        (("train", "curvature", "gauss8-curvature", "--seed", 2**31), "2147483647"),
        (("train", "flow", "gauss8-flow", "--max-minutes", "nan"), "max-minutes"),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_numbers_have_limits_that_are_told(words, limit, command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, _, error = command(*words)
    assert code == 2
    assert limit.replace(" ", "") in "".join(error.replace("│", "").split())
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_of_absurd_size_is_no_file_of_a_sweep(command, tmp_path):
    (tmp_path / "big.toml").write_text("# " + "x" * 2**20)
    code, _, error = command("bench", "--config", tmp_path / "big.toml")
    assert code == 2
    assert "is no sweep: it has more than 1048576 bytes" in error
