"""Files for k-diffusion, ComfyUI and A1111: lists of sigmas, and tables that their programs play."""

from __future__ import annotations

import re
from importlib.metadata import version

import numpy as np

from fastsample.solvers.exports.sigmas import SigmaTable, sigma_table
from fastsample.solvers.exports.torch_file import LOOP, matrix, quoted
from fastsample.solvers.spec import Spec
from fastsample.solvers.table_file import TableFile

__all__ = ["SIGMA_FORMATS", "sigma_file"]

SIGMA_FORMATS = ("sigmas", "k-diffusion", "comfyui", "a1111")

_HEAD = '''\
"""{title} in {nfe} evaluations for {program}, written by fastsample {version}.

Solver {solver}, arXiv or DOI: {paper}; table {sha256}.
{belongs}
{told}.

{use}
"""

import torch
{imports}
SIGMAS = {sigmas}
'''

_PLAY = (
    '''\
TIMES = {times}
A = {a}
B = {b}
{w}

@torch.no_grad()
def sample(model, x, sigmas=None, extra_args=None, callback=None, disable=None{noise}):
    """Play the table.

    model(x, sigma, **extra_args): the data prediction; sigma has an entry for each sample.
    x: [batch, ...] noise at SIGMAS[0]: {scale!r} * torch.randn(batch, ...).
    sigmas: SIGMAS; the times of a table are its own.
    """
    if sigmas is not None:
        mine, theirs = torch.tensor(SIGMAS), torch.as_tensor(sigmas).float().cpu()
        if theirs.shape != mine.shape or not torch.allclose(theirs, mine, rtol=1e-3, atol=1e-6):
            raise ValueError("this sampler runs on its own sigmas alone: give it those of this file, all of them")
    f, ones = [], x.new_ones([x.shape[0]]){drawn}
'''
    + LOOP
    + """\
            f.append(model(point, TIMES[i] * ones, **(extra_args or {{}})))
            if callback is not None:
                step = i * (len(SIGMAS) - 1) // len(TIMES)
                callback({{"x": point, "i": step, "sigma": TIMES[i], "sigma_hat": TIMES[i], "denoised": f[-1]}})
    return point
"""
)

_NODE = '''

class Fastsample:
    """A sampler with its sigmas, for SamplerCustom."""

    RETURN_TYPES = ("SAMPLER", "SIGMAS")
    FUNCTION = "get"
    CATEGORY = "sampling/custom_sampling"

    @classmethod
    def INPUT_TYPES(cls):
        return {{"required": {{}}}}

    def get(self):
        return comfy.samplers.KSAMPLER(sample), torch.tensor(SIGMAS)


NODE_CLASS_MAPPINGS = {{"{name}": Fastsample}}
NODE_DISPLAY_NAME_MAPPINGS = {{"{name}": "{title} in {nfe} evaluations (fastsample)"}}
'''

_SCHEDULE = '''

def schedule(n, sigma_min, sigma_max, device):
    """The sigmas; n is the number of sampling steps."""
    if n != len(SIGMAS) - 1:
        raise ValueError(f"these sigmas are for {{len(SIGMAS) - 1}} sampling steps, not {{n}}")
    return torch.FloatTensor(SIGMAS).to(device)


added = sd_schedulers.Scheduler("{name}", "{label}", schedule)
sd_schedulers.schedulers[:] = [one for one in sd_schedulers.schedulers if one.name != added.name] + [added]
sd_schedulers.schedulers_map.update({{added.name: added, added.label: added}})
'''

_PROGRAMS = {"k-diffusion": "k-diffusion", "comfyui": "ComfyUI", "a1111": "the web UI of AUTOMATIC1111"}


def sigma_file(file: TableFile, to: str) -> tuple[str, SigmaTable]:
    """The text of a file for one of these programs, and the table that it is of.

    Args:
        file: the table.
        to: sigmas (one line of numbers), k-diffusion (a module with `sample`), comfyui (a custom node with a SAMPLER
            and its SIGMAS), or a1111 (a script that adds a schedule type).

    Raises:
        ValueError: for a path without sigmas; for a1111, a solver that none of its samplers is.
    """
    seen = sigma_table(file)
    if to == "sigmas":
        return ", ".join(np.format_float_positional(sigma, trim="-") for sigma in seen.sigmas) + "\n", seen
    if to == "a1111" and (seen.flow or not (seen.sampler and seen.sampler.a1111)):
        why = "that program samples flows otherwise" if seen.flow else "no sampler of that program makes these steps"
        raise ValueError(f"{file.solver} has no a1111 file: {why}")
    name = re.sub("[^a-z0-9.]+", "-", f"fastsample-{file.solver}-{file.nfe}-{file.sha256[:8]}".lower())
    text = quoted(file.title)
    belongs = "It fits every model with this noise schedule."
    if file.model:
        belongs = f"Made for {quoted(file.model)} (guidance {quoted(file.guidance_words)}), and for no other model."
    theirs = seen.sampler.a1111 if seen.sampler else ""
    label = f"{text} {file.nfe} {file.sha256[:4]}"
    use = {
        "k-diffusion": "sample(model, x) as k_diffusion.sampling's own, with the sigmas of this file.",
        "comfyui": f'Into custom_nodes/; the node "{text} in {file.nfe} evaluations (fastsample)" has both inputs of '
        "SamplerCustom.",
        "a1111": f'Into extensions/fastsample/scripts/; sampling method "{theirs}", schedule type "{label}",\n'
        f"sampling steps {len(seen.sigmas) - 1}.",
    }[to]
    imports = {"k-diffusion": "", "comfyui": "import comfy.samplers\n", "a1111": "from modules import sd_schedulers\n"}
    head = _HEAD.format(
        title=text, nfe=file.nfe, program=_PROGRAMS[to], version=version("fastsample"), paper=quoted(file.paper),
        solver=quoted(str(Spec(file.solver, file.options))), sha256=file.sha256[:16], belongs=belongs, use=use,
        told=seen.told, imports=imports[to], sigmas=list(seen.sigmas),
    )  # fmt: skip
    if to == "a1111":
        return head + _SCHEDULE.format(name=name, label=label), seen
    return head + _played(seen) + (_NODE.format(name=name, title=text, nfe=file.nfe) if to == "comfyui" else ""), seen


def _played(seen: SigmaTable) -> str:
    """The table with its `sample`."""
    table = seen.table
    noise = {"w": "", "noise": "", "drawn": "", "add": ""}
    if table.w.size:
        noise = {
            "w": f"W = {matrix(table.w.tolist())}\n",
            "noise": ", noise_sampler=None",
            "drawn": "\n    draw = noise_sampler or (lambda sigma, lower: torch.randn_like(x))"
            "\n    z = [draw(*SIGMAS[min(k, len(SIGMAS) - 2) :][:2]) for k in range(len(W[0]))]",
            "add": "        for w, value in zip(W[i], z):\n            point = point + w * value\n",
        }
    rows = [table.b[i, :i].tolist() for i in range(table.nfe + 1)]
    return _PLAY.format(times=table.times.tolist(), a=table.a.tolist(), b=matrix(rows), scale=seen.scale, **noise)
