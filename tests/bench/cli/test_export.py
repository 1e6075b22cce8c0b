"""explain, export and import."""

import json
from pathlib import Path

import pytest

from fastsample.models.catalogue import open_model
from fastsample.models.path import VPLinear
from fastsample.solvers import solver as registry
from fastsample.solvers.learned.shelf import add_table, find_table
from fastsample.solvers.proofs.explain import explain, sum_rules
from fastsample.solvers.solver import get
from fastsample.solvers.spec import table_of
from fastsample.solvers.table import trace
from fastsample.solvers.table_file import TableFile, read_table

from ...command import command


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_SOLVERS", dict(registry._SOLVERS))


def test_explain_says_what_the_table_is(capsys):
    assert command("explain", "heun", "--nfe", 6, "--model", "gmm2d-flow", "--json").code == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["nfe"], told["coordinate"], told["path"]) == (6, "velocity", "flow")
    assert [row["a"] for row in told["rows"]] == [1.0] * 7
    assert told["rows"][0]["lam"] is None
    assert told["rows"][1]["b"] == pytest.approx([0.333])
    assert max(abs(row["order0"]) for row in told["rows"]) < 1e-12
    # Heun's predictor is an Euler step, off by h^2 / 2; the corrected points are exact for a linear velocity.
    assert [row["order1"] for row in told["rows"]] == pytest.approx([0, -(0.333**2) / 2, 0] + [-(0.333**2) / 2, 0] * 2)
    assert told["order"] == pytest.approx(2, abs=0.1)
    assert told["training"] is None
    assert command("explain", "dpmpp-2m", "--nfe", 5).code == 0
    shown = capsys.readouterr().out
    assert "a prediction that is constant: every row is exact" in shown
    assert "24 free numbers" in shown


@pytest.mark.parametrize("solver", ["dpmpp-2m", "scire:order=3", "unipc", "deis", "ddim", "euler"])
def test_a_constant_data_prediction_is_kept(solver):
    file = table_of(solver, open_model("gmm2d"), 6)
    defects = sum_rules(file.table, file.noise_path)
    if solver == "euler":  # on the linear path, entered by its noise alone
        assert abs(defects[:, 0]).max() < 0.01
    else:
        assert abs(defects[:, 0]).max() < 1e-10
    assert abs(defects[-1, 1]) > 1e-6


def test_rows_of_another_coordinate_are_shown_in_the_usual_one():
    plan = get("dpmpp-2m").plan(VPLinear(), 6)
    told, same = (
        explain(TableFile.of(trace(plan, coordinate), plan.path, solver="foreign", title="", paper=""))
        for coordinate in ("eps", "x0")
    )
    assert told.coordinate == "x0"
    assert told.order is None
    for row, other in zip(told.rows, same.rows, strict=True):
        assert [row.a, *row.b] == pytest.approx([other.a, *other.b], abs=1e-12)


def test_a_table_comes_back_as_a_solver(capsys):
    model = ["--model", "gmm2d"]
    assert command("export", "--solver", "unipc", "--nfe", 6, "--to", "json", *model).code == 0
    exported = Path("unipc-vp-linear-6.json")
    assert command("import", exported, "--name", "carried").code == 0
    assert "bench --model MODEL (any on the path vp-linear) --solver carried --nfe 6" in capsys.readouterr().out
    words = ["bench", *model, "--solver", "unipc,carried", "--nfe", 6, "--samples", 8, "--metrics", "psnr"]
    assert command(*words).code == 0
    rows = [json.loads(file.read_text()) for file in Path("results-store/rows").iterdir()]
    assert len({round(row["metrics"]["psnr"], 4) for row in rows}) == 1
    assert {row["solver"] for row in rows} == {"unipc", "carried"}


def test_a_table_of_another_model_is_refused(capsys):
    plane, images = open_model("gmm2d"), open_model("gmm-image")
    foreign = table_of("unipc", plane, 6).model_copy(update={"solver": "bns", "model": "gmm2d"})
    add_table(foreign)
    assert find_table("bns", plane, 6) == foreign
    with pytest.raises(ValueError, match=r"no table for this model.*, but for .*gmm2d.*--transfer takes such a one"):
        find_table("bns", images, 6)
    assert find_table("bns", images, 6, transfer=True) == foreign
    words = ["export", "--solver", "bns", "--nfe", 6, "--model", "gmm-image", "--to", "json"]
    assert command(*words).code == 2
    assert "fastsample distill bns --model gmm-image --nfe 6" in capsys.readouterr().err
    assert command(*words, "--transfer").code == 0
    assert read_table(Path("bns-gmm2d-6.json")) == foreign
    words = ["sample", "--solver", "bns", "--nfe", 6, "--model", "gmm-image", "--samples", 4]
    assert command(*words).code == 2
    assert "--transfer takes such a one" in capsys.readouterr().err
    assert command(*words, "--transfer").code == 0
    assert Path("samples.png").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["import", "missing.json"], "cannot read missing.json"),
        (["import", "short.json"], "short.json is no table: Invalid JSON"),
        (["import", "back.json"], "the times do not run from noise to data"),
        (["import", "nan.json"], "a number is NaN or infinite"),
        (["import", "good.json"], "heun is a solver of its own here: give the table another name with --name"),
        (["import", "good.json", "--name", "My Heun"], "'My Heun' is no solver name"),
        (["explain", "dopri5", "--nfe", "6"], "is adaptive"),
        (["explain", "heum"], "did you mean heun"),
        (["export", "--solver", "heun", "--to", "pickle"], "unknown format"),
        (["export", "--solver", "ddim", "--grid", "kerras", "--to", "json"], "did you mean karras"),
    ],
)
def test_refusals_are_one_clear_message(words, message, capsys):
    good = table_of("heun", open_model("gmm2d"), 4).to_json()
    facts = json.loads(good)
    Path("good.json").write_text(good)
    Path("short.json").write_text(good[: len(good) // 2])
    Path("back.json").write_text(json.dumps(facts | {"times": facts["times"][::-1]}))
    Path("nan.json").write_text(json.dumps(facts | {"a": [float("nan"), *facts["a"][1:]]}))
    assert command(*words).code == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert "Traceback" not in printed.err + printed.out
    assert not list(Path().rglob("home/tables/*.json"))
