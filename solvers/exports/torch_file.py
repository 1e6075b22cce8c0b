"""A coefficient table as one file of torch code that needs nothing of fastsample."""

from __future__ import annotations

import inspect
import json
from importlib.metadata import version

from fastsample.models.denoiser import Prediction
from fastsample.solvers.exports.conventions import from_output, timestep_map
from fastsample.solvers.spec import Spec
from fastsample.solvers.table_file import TableFile

__all__ = ["LOOP", "PREDICTIONS", "matrix", "quoted", "to_python"]

PREDICTIONS: dict[Prediction, str] = {
    "x0": "the data prediction E[x_0 | x_t]",
    "eps": "the noise prediction E[eps | x_t]",
    "velocity": "the velocity dx_t/dt = alpha'(t) E[x_0 | x_t] + sigma'(t) E[eps | x_t]",
    "v": "the v-prediction alpha E[eps | x_t] - sigma E[x_0 | x_t]",
}
_ROWS = 24  # lines that a matrix takes at most

# What plays a table in a written file: a row is a point, and all but the last are evaluated.
LOOP = """\
    for i in range(len(A)):
        point = A[i] * x
        for b, value in zip(B[i], f):
            if b != 0:
                point = point + b * value
{add}        if i < len(TIMES):
"""

_FILE = (
    '''\
"""{title} in {nfe} evaluations: `sample(model, x)`, written by fastsample {version}.

Solver {solver}, arXiv or DOI: {paper}; table {sha256}.
{belongs}
The path x_t = alpha(t) x_0 + sigma(t) eps is {path}: {formula}
"""

import torch

TIMES = {times}
A = {a}
B = {b}
{c}{w}

@torch.no_grad()
def sample(model, x{noise}):
    """Solve the sampling ODE from t = {t_noise:g} (noise) to t = {t_data:g} (data).

    model(x, t): returns {prediction}, in the shape of x.
        t is a float, a time of the path.{timestep}
    x: [batch, ...] noise, {prior}torch.randn(batch, ...).
    Returns the samples [batch, ...].
    """
    f = []{drawn}
'''
    + LOOP
    + """\
            f.append({f})
    return point
"""
)


def to_python(file: TableFile, prediction: Prediction | None = None) -> str:
    """The text of a module with `sample(model, x)`: fewer than 60 lines, with the numbers inside, exact in float64.

    Args:
        file: the table.
        prediction: what `model(x, t)` returns; by default the table's coordinate.

    Raises:
        ValueError: where the path has a time at which that prediction says nothing, as eps at alpha = 0.
    """
    prediction = prediction or file.coordinate
    path, usual = file.noise_path, timestep_map(file.noise_path)
    belongs = "It fits every model on its path."
    if file.model:
        made_for = f"{file.model} (sha256 {file.model_sha256[:16] or 'none'}, guidance {file.guidance_words})"
        belongs = f"Made for {quoted(made_for)}, and for no other model."
    answer, convert = "model(point, TIMES[i])", ""
    if prediction != file.coordinate:
        answer = "FROM_MODEL[i][0] * point + FROM_MODEL[i][1] * model(point, TIMES[i])"
        convert = f"FROM_MODEL = {from_output(file, prediction)}  # to {file.coordinate}, as c_x x + c_f f\n"
    noise = {"w": "", "noise": "", "drawn": "", "add": ""}
    if file.w:
        noise = {
            "w": f"W = {matrix(file.w)}\n",
            "noise": ", generator=None",
            "drawn": "\n    z = [torch.empty_like(x).normal_(generator=generator) for _ in W[0]]",
            "add": "        for w, value in zip(W[i], z):\n            point = point + w * value\n",
        }
    return _FILE.format(
        title=quoted(file.title), nfe=file.nfe, version=version("fastsample"), paper=quoted(file.paper),
        solver=quoted(str(Spec(file.solver, file.options))), sha256=file.sha256[:16], belongs=belongs,
        path=path.name, formula=(inspect.getdoc(path) or "").splitlines()[0], times=file.times, a=file.a,
        b=matrix(file.b), t_noise=path.t_noise, t_data=path.t_data, prediction=PREDICTIONS[prediction], c=convert,
        f=answer,
        prior="" if path.prior_std == 1 else f"{path.prior_std:g} * ",
        timestep=f" A network of public pipelines takes {usual[0]:g} * t{usual[1]:+g}." if usual else "", **noise,
    )  # fmt: skip


def quoted(text: str) -> str:
    """Text of a file, harmless inside a docstring."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def matrix(rows: list[list[float]]) -> str:
    """Rows of numbers, exact in float64, as Python writes them."""
    per_line = -(-len(rows) // _ROWS)
    lines = [", ".join(map(repr, rows[low : low + per_line])) for low in range(0, len(rows), per_line)]
    return "[\n" + "".join(f"    {line},\n" for line in lines) + "]"
