"""The file that `to_python` writes, run by itself."""

import ast

import pytest
import torch

from fastsample.models.analytic import ring_mixture
from fastsample.models.path import DiscreteVP, Edm, LinearFlow, VPLinear
from fastsample.solvers.exports.export import export
from fastsample.solvers.exports.sigma_files import sigma_file
from fastsample.solvers.exports.torch_file import to_python
from fastsample.solvers.learned.parameters import coordinate_of
from fastsample.solvers.proofs.claims import start
from fastsample.solvers.spec import Spec
from fastsample.solvers.table import play, trace
from fastsample.solvers.table_file import TableFile, read_table

PATHS = {"vp": VPLinear(), "ddpm": DiscreteVP.ddpm(), "edm": Edm(), "flow": LinearFlow()}
CASES = [
    ("heun", "vp", 8), ("dpm-solver-3", "ddpm", 6), ("unipc:order=3", "vp", 7), ("scire:order=3", "edm", 6),
    ("flow-solver:order=3", "flow", 6), ("dpmpp-2m:denoise=true", "flow", 5), ("rk4", "flow", 100), ("ddim", "ddpm", 1),
]  # fmt: skip


def table_file(text, path, nfe):
    spec = Spec.parse(text)
    table, facts = trace(spec.plan(path, nfe), coordinate_of(path)), {"solver": spec.name, "options": spec.options}
    return TableFile.of(table, path, title=spec.solver.title, paper=spec.solver.paper, **facts)


def run(text):
    """The module's `sample`, in a namespace of its own."""
    imports = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [ast.unparse(node) for node in imports] == ["import torch"]
    assert len(text.splitlines()) < 60
    namespace = {}
    exec(text, namespace)
    return namespace["sample"]


@pytest.mark.parametrize(("text", "name", "nfe"), CASES)
def test_python_is_play(text, name, nfe):
    path = PATHS[name]
    file, denoiser = table_file(text, path, nfe), ring_mixture(path)
    sample, x = run(to_python(file)), path.prior_std * start()
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        made = sample(lambda x, t: denoiser.predict(x, t, file.coordinate), x.to(dtype))
        expected = play(file.table, denoiser, x.to(dtype))
        assert made.dtype == dtype
        torch.testing.assert_close(made, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("prediction", ["x0", "eps", "velocity", "v"])
def test_the_model_may_return_any_prediction(prediction, tmp_path):
    path = VPLinear()
    file, denoiser = table_file("unipc:order=3", path, 6), ring_mixture(path)
    sample = run(export(file, "python", tmp_path / "deep" / "sampler.py", prediction)[0].read_text())
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        made = sample(lambda x, t: denoiser.predict(x, t, prediction), start().to(dtype))
        torch.testing.assert_close(made, play(file.table, denoiser, start().to(dtype)), rtol=0, atol=tolerance)


def test_a_prediction_that_says_nothing_is_refused():
    for to in ("python", "diffusers"):
        with pytest.raises(ValueError, match="the eps prediction says nothing more than x at t = 0"):
            export(table_file("euler", LinearFlow(), 4), to, None, "eps")


def test_a_stochastic_solver_takes_a_generator():
    path = VPLinear()
    file, denoiser = table_file("ddpm", path, 5), ring_mixture(path)
    made = run(to_python(file))(
        lambda x, t: denoiser.predict(x, t, file.coordinate), start(), torch.Generator().manual_seed(4)
    )
    draw = torch.Generator().manual_seed(4)
    noises = [torch.randn(24, 2, generator=draw, dtype=torch.float64) for _ in file.w[0]]
    torch.testing.assert_close(made, play(file.table, denoiser, start(), noises.__getitem__), rtol=0, atol=1e-12)


def test_text_of_a_foreign_file_stays_text():
    file = table_file("ddim", VPLinear(), 3)
    nasty = 'a"""\nraise SystemExit("run")\n"""\\'
    update = {"title": nasty, "paper": nasty, "model": nasty, "model_sha256": nasty, "options": {nasty: nasty}}
    run(to_python(file.model_copy(update=update)))
    exec(sigma_file(file.model_copy(update=update), "k-diffusion")[0], {})


def test_json_is_the_table_and_names_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = table_file("heun", LinearFlow(), 4)
    made, _ = export(file, "json")
    assert made.name == "heun-flow-4.json"
    assert read_table(made) == file
    with pytest.raises(ValueError, match="did you mean python"):
        export(file, "pyton")
    with pytest.raises(ValueError, match="unknown prediction 'epsilon'"):
        export(file, "python", None, "epsilon")
    with pytest.raises(ValueError, match="a table file keeps its own coordinate"):
        export(file, "json", None, "velocity")
    with pytest.raises(ValueError, match="flow_prediction is noise - data on the linear path"):
        export(table_file("ddim", VPLinear(), 4), "diffusers", None, "velocity")
