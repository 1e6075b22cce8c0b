"""`fastsample import` of published learned solvers: what it keeps, and what it refuses in one sentence."""

import json
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from fastsample.models.catalogue import open_model
from fastsample.solvers.imported.files import read_published
from fastsample.solvers.imported.importing import import_published
from fastsample.solvers.imported.layouts import Said
from fastsample.solvers.table_file import TableFileError

from ...command import command
from ...solvers import published_files as files

RNG = np.random.default_rng(1)
NUMBERS = {
    name: RNG.standard_normal((3, 2)) for name in ("r_params", "scale_dir_params", "scale_time_params", "weight_s")
}


def rows(store):
    return [json.loads(file.read_text()) for file in Path(store, "rows").iterdir()]


@pytest.fixture(autouse=True)
def _there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("coarse")
def test_imported_solvers_run_by_their_names_and_say_what_they_are():
    files.edm_checkpoint(Path("edm.safetensors"))
    model = ["--model", "edm.safetensors"]
    mask = np.tril(np.ones((3, 3)))
    made = {
        ("epd", 8, "Inception"): [files.epd(Path("epd.pkl"), NUMBERS)],
        ("dyweight", 2, "squared error"): [files.dyweight(Path("dw.pkl"), np.eye(3), np.ones(2), mask, loss="l2")],
        ("amed", 5, "squared error"): [files.amed(Path("amed.pkl"), files.amed_layers(RNG))],
        ("gas", 3, "GAN"): [files.gas(Path("gas.pt"), np.zeros(2), np.zeros(3), np.zeros((6, 3))), "--t-end", "1e-3"],
        ("ld3", 4, "LPIPS"): [
            files.ld3(Path("ld3.pt"), np.ones(5), np.zeros(5)), "--solver", "unipc:variant=bh1", "--mode", "time",
        ],
    }  # fmt: skip
    for (solver, nfe, _), words in made.items():
        done = command("import", *words, *model)
        assert done.code == 0
        assert f"fastsample bench --model edm.safetensors --solver {solver} --nfe {nfe}\n" in done.out
    solvers, budgets = (",".join(map(str, words)) for words in list(zip(*made, strict=True))[:2])
    done = command("bench", *model, "--solver", solvers, "--nfe", budgets, "--samples", 2, "--metrics", "psnr")
    assert done.code == 0
    found = {(row["solver"], row["nfe"], row["protocol"]["trained on"]): row for row in rows("results-store")}
    assert set(found) == set(made)
    for row in found.values():
        assert row["protocol"]["found with"].startswith("imported, unverified model: ")
        assert row["protocol"]["trained for"].startswith("tiny-edm (")
        assert ("predictor" in row["protocol"]) != ("table" in row["protocol"])
    amed = found["amed", 5, "squared error"]
    assert (amed["sampler"], amed["grid"], amed["own_grid"]) == ("amed:afs=true", "learned", "learned")
    shown = command("table", "results-store").out
    assert "trained on Inception: imported, unverified model: epd.pkl" in " ".join(shown.split())


def refused(message, file, model="gmm2d", **said):
    """What the command refuses, without its start: a ValueError of one line, which it prints and ends with 2."""
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        import_published(read_published(Path(file)), open_model(model), Said(**said))
    assert len(str(error.value).splitlines()) == 1
    assert len(str(error.value)) < 700


def refused_by_command(message, *words):
    done = command("import", *words)
    told = " ".join(done.err.split())
    assert done.code == 2
    assert told.startswith("error: ")
    assert message in told
    assert "Traceback" not in told


def test_what_a_file_does_not_say_is_asked_for():
    epd, ld3 = files.epd(Path("a.pkl"), NUMBERS), files.ld3(Path("l.pt"), np.ones(5), np.zeros(5))
    gas = files.gas(Path("g.pt"), np.zeros(2), np.zeros(3), np.zeros((4, 3)))
    flow = files.dyweight_flow(Path("f.pt"), np.eye(3), np.zeros(3), 2)
    refused("does not say its solver, which is in the config.yml beside it: give --solver, such as unipc", ld3)
    refused("does not say its time_mode, which is in the config.yml beside it: give --mode", ld3, solver="unipc")
    refused("did you mean time", ld3, solver="unipc", mode="tim")
    refused("makes no 4 steps of one evaluation each", ld3, solver="heun", mode="time")
    refused("given without a grid", ld3, solver="unipc@karras", mode="time")
    refused("does not say where it ends: give --t-end", gas)
    refused("is no time near the data end", gas, t_end=3.0)
    refused("did you mean theory", gas, t_end=1e-3, mode="theroy")
    refused("does not say its times: give --grid", flow, "gmm2d-flow")
    refused("these numbers are of a flow, and the model's path is vp-linear", flow, grid="uniform")
    refused("does not say its times on a flow: give --grid", epd, "gmm2d-flow")
    refused("which takes no --mode", epd, mode="time")
    refused("heun is a solver of its own here", epd, name="heun")
    refused("is no solver name", epd, name="My EPD")
    refused_by_command("a.pkl does not say which model it was learned for: give --model", epd)
    refused_by_command("did you mean gmm2d", epd, "--model", "gmm2")
    refused_by_command("has no classes", epd, "--model", "gmm2d", "--guidance", "1")
    assert command("export", "--solver", "heun", "--nfe", 4, "--to", "json", "-o", "t.json").code == 0
    refused_by_command("which says itself what it belongs to", "t.json", "--model", "gmm2d", "--name", "carried")


class _Evil:
    def __reduce__(self):
        return os.system, ("touch harmed",)


def damaged():
    """(name, content, what is said of it)"""
    good = files.epd(Path("good.pkl"), NUMBERS).read_bytes()
    torch_file = files.ld3(Path("good.pt"), np.ones(5), np.zeros(5)).read_bytes()
    yield "system.pkl", pickle.dumps({"model": _Evil()}), "asks for posix.system, which is refused"
    yield "beside.pkl", pickle.dumps({"extra": _Evil(), "model": 1}), "asks for posix.system, which is refused"
    yield "eval.pkl", b"\x80\x04cbuiltins\neval\n(\x8c\x0aopen('x','')tR.", "refused"
    yield "numpy.pkl", pickle.dumps({"model": np.zeros(2)}), "which is refused"
    yield "module.pkl", pickle.dumps({"model": torch.nn.Linear(2, 2)}), "asks for torch.nn.modules.linear.Linear"
    yield "cut.pkl", good[: len(good) // 2], "is no published solver"
    yield "cut.pt", torch_file[: len(torch_file) // 2], "is no published solver"
    yield "list.pkl", pickle.dumps([1, 2]), "it holds a list, not a predictor"
    torch.save({"params1": torch.ones(5), "evil": _Evil(), "params2": torch.zeros(5)}, "system.pt")
    yield "system.pt", Path("system.pt").read_bytes(), "asks for posix.system, which is refused"
    torch.save({"weights": torch.ones(3)}, "other.pt")
    yield "other.pt", Path("other.pt").read_bytes(), "neither of LD3, of GAS nor of DyWeight: it holds weights"
    torch.save({"params1": torch.ones(1).expand(5000, 5000), "params2": torch.zeros(5)}, "huge.pt")
    yield "huge.pt", Path("huge.pt").read_bytes(), "is no published solver"
    torch.save({"params1": torch.full((5,), torch.nan), "params2": torch.zeros(5)}, "nan.pt")
    yield "nan.pt", Path("nan.pt").read_bytes(), "values that are not finite"
    yield "empty.pkl", b"\x80", "is no published solver"


def test_hostile_and_damaged_files_are_refused():
    for name, content, message in damaged():
        Path(name).write_bytes(content)
        refused(message, name)
    refused_by_command("asks for posix.system, which is refused", "system.pkl", "--model", "gmm2d")
    refused_by_command("asks for posix.system, which is refused", "system.pt", "--model", "gmm2d")
    refused_by_command("cut.pkl is no published solver", "cut.pkl", "--model", "gmm2d")
    assert not Path("harmed").exists()


def test_a_flipped_bit_is_refused_or_a_number(flips):
    """No damage ends otherwise than in a refusal; one in the numbers makes others, which nothing can tell."""
    ends = set()
    written = (files.epd(Path("a.pkl"), NUMBERS), 1237), (files.ld3(Path("a.pt"), np.ones(5), np.zeros(5)), 997)
    for file, step in written:
        for _ in flips(file, step):
            try:
                read_published(file)
            except TableFileError as error:
                ends.add(len(str(error).splitlines()))
            else:
                ends.add("read")
    assert ends == {"read", 1}


def test_numbers_that_make_no_solver_are_refused():
    nan = NUMBERS["r_params"].copy()
    nan[1, 1] = np.nan

    def epd(message, name="EPD_predictor", numbers=(), **facts):
        refused(message, files.epd(Path("a.pkl"), NUMBERS | dict(numbers), name, **facts))

    epd("values that are not finite in r_params", numbers={"r_params": nan})
    epd("are not of one shape", numbers={"weight_s": np.zeros((3, 3))})
    epd("not one of 2 dimensions", numbers={"weight_s": np.zeros(3)})
    epd("6 steps take as many rows of numbers, not 3", num_steps=7)
    epd("where 1 to 100 are read", num_steps=10**9)
    epd("its num_steps is '4', which is no int", num_steps="4")
    epd("says 3 points, and has 2", num_points=3)
    epd("unknown schedule 'cosine'", schedule_type="cosine")
    epd("is inf, which is not finite", schedule_rho=float("inf"))
    epd("of the solver 'dpm'; epd and ipndm are read", sampler_stu="dpm")
    epd("its predictor is a GITS_predictor; known: DyWeight", "GITS_predictor")
    eye, mask = np.eye(3), np.ones((2, 2))
    refused("3 steps take [3, 3] weights and 2 time scales", files.dyweight(Path("a.pkl"), eye, np.ones(3)))
    refused("lead to a noise level of 0", files.dyweight(Path("a.pkl"), eye, np.zeros(2)))
    refused("its mask is of shape [2, 2]", files.dyweight(Path("a.pkl"), eye, np.ones(2), mask))
    gas = files.gas(Path("g.pt"), np.zeros(2), np.zeros(4), np.zeros((4, 3)))
    refused("its lists are not of 3 times", gas, t_end=1e-3)
    layers, edm = files.amed_layers(RNG), files.edm_checkpoint(Path("edm.safetensors"))
    refused("and gmm2d has none of these", files.amed(Path("a.pkl"), layers))
    layers["enc_layer1"]["weight"] = np.zeros((4, 11))
    refused("its layers do not fit one another", files.amed(Path("a.pkl"), layers), str(edm))


def test_a_solver_that_nobody_imported_says_how():
    for solver in ("epd", "amed"):
        done = command("bench", "--model", "gmm2d", "--solver", solver, "--nfe", 5, "--samples", 2)
        assert done.code == 2
        assert "`fastsample import FILE --model gmm2d` reads a published one" in " ".join(done.err.split())
    assert "DyWeight" in command("list", "solvers").out
