"""Command lines from a grammar of right and wrong values, and what must hold of each of them whatever it says."""

from __future__ import annotations

import json
import random
from pathlib import Path

__all__ = ["World", "lines"]

NUMBERS = ["0", "-1", "1", "2", "nan", "inf", "-inf", "1e400", "9223372036854775808", "1000000000", "", " ", "x",
           "1.5", "٣",
           "0x10", "1_0", "--", "1,2"]  # fmt: skip
WORDS = ["", " ", "x", "..", "/", "none", "NaN", "é", "\U0001f40d", "a\nb", "\x1b[31m", "a" * 300, "%s{0}", "--help",
         "-", ",",
         ",,", "=", ":", "[red]", "[/]", "'", '"', "*", "~", "$HOME", "\udcff"]  # fmt: skip


class World:
    """A folder with everything that a path may point to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("folder", "locked", "empty-store/rows", "bad-store/rows"):
            (folder / name).mkdir(parents=True)
        (folder / "file.txt").write_text("neither one nor the other\n")
        (folder / "empty").write_text("")
        (folder / "bytes").write_bytes(bytes(range(256)))
        (folder / "sweep.toml").write_text('model = "gmm2d"\nsolver = "euler"\nnfe = 2\nmetrics = "curvature"')
        (folder / "bad.toml").write_text("nfe = [")
        (folder / "keys.toml").write_text("nfes = 3")
        (folder / "times.txt").write_text("1.0\n0.5\n0.001\n")
        (folder / "cut.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
        (folder / "table.json").write_text(json.dumps({"solver": "x"}))
        (folder / "bad-store/rows/0123456789abcdef.json").write_text("{")
        (folder / "locked").chmod(0o500)
        self.paths = [
            "file.txt", "empty", "bytes", "folder", "locked/x", "absent", "file.txt/x", "absent/deep/x", "/dev/null",
            "/dev/full", "/dev/zero", "/proc/self/mem", "sweep.toml", "times.txt", "cut.safetensors", "table.json",
        ]  # fmt: skip
        self.stores = ["store", "empty-store", "bad-store", "folder", "absent", "file.txt", "/dev/null", ""]


def lines(world: World, count: int, seed: int) -> list[list[str]]:
    """`count` command lines, each a list of words."""
    rng = random.Random(seed)
    return [_line(rng, world) for _ in range(count)]


def _line(rng: random.Random, world: World) -> list[str]:
    command = rng.choice(list(_COMMANDS))
    arguments, options = _COMMANDS[command]
    words = command.split()
    for good in arguments:
        if rng.random() < 0.95:
            words.append(_value(rng, world, good))
    chosen = [name for name in options if rng.random() < (0.9 if name in _LIMITS else 0.15)]
    if options and rng.random() < 0.1:
        chosen += rng.choices(list(options), k=2)  # given twice
    for name in chosen:
        good = options[name]
        words.append(name)
        if good is not None:
            words.append(_LIMITS[name] if name in _LIMITS and rng.random() < 0.9 else _value(rng, world, good))
    if rng.random() < 0.05:
        words.insert(
            rng.randrange(1, len(words) + 1), rng.choice(["--nfe", "--where", "--bogus", "-z", "bench", *WORDS])
        )
    return words


def _value(rng: random.Random, world: World, good: list[str] | str) -> str:
    """Mostly a right value, else one of another kind."""
    if good == "STORE":
        return "store" if rng.random() < 0.6 else rng.choice(world.stores)
    if good == "PATH":
        return rng.choice([*world.paths, "out.png", "out.svg", "out.md", "out.html", "out.csv", "out.json", "out"])
    assert isinstance(good, list)
    kind = rng.random()
    if kind < 0.7:
        return rng.choice(good)
    return rng.choice(NUMBERS if kind < 0.85 else [*WORDS, *world.paths])


_MODEL = ["gmm2d", "gmm2d-flow", "gmm2d,gmm2d-flow", "gmm2d,gmm2d", "gmm2", "x.safetensors", "x.toml", "x.toml#y"]
_SOLVER = ["euler", "heun", "ddim", "scire", "unipc:order=2", "dpmpp-2m,euler", "heun:order=9", "dopri5", "rk4",
           "bns", "eular",
           "ddpm:eta=2", "edm-dpm2:r=0", "euler:afs=true", "euler:denoise=maybe", "euler:", ":",
           "euler,euler"]  # fmt: skip
_NFE = ["2", "3", "4", "2,4", "1"]
_GRID = ["uniform", "logsnr", "karras:rho=5", "karras:rho=0", "nsr:k=nan", "integer-uniform", "file:times.txt",
         "file:absent",
         "file:folder", "unifrom", "karras:rh=1", "karras:rho=", "uniform,logsnr"]  # fmt: skip
_METRICS = [
    "curvature",
    "straightness",
    "fd",
    "fid",
    "kid",
    "psnr,psnr",
    "curvatur",
    "fd[x]",
    "fd[",
    "precision,curvature",
]
_WHERE = ["samples=4", "nfe_asked=2", "x=1", "samples", "=", "samples=x"]
_NAMES = ["psnr", "curvature", "fd", "x", "psnr,curvature", "model"]
_FORM = ["rich", "markdown", "latex", "html", "csv", "pdf"]
_SAMPLED = {
    "--model": _MODEL, "--solver": _SOLVER, "--nfe": _NFE, "--grid": _GRID, "--guidance": ["0", "1.5"],
    "--classifier-scale": ["0", "2"], "--labels": ["random", "balanced", "other"], "--checkpoint": "PATH",
    "--transfer": None, "--device": ["cpu", "cuda:9", "meta", "tpu", "cpu:1"], "--seed": ["0", "7", "2147483648"],
}  # fmt: skip
_TRAIN = {
    "--out": ["run"], "--dataset": ["gauss8", "checker", "cifar11", "folder:folder"], "--data": "PATH",
    "--images": ["64"],
    "--batch": ["32", "7"], "--accumulate": ["2", "3"], "--precision": ["float32", "fp8"], "--seed": ["0", "3"],
    "--start": ["gmm2d", "cifar10-tiny-vp"], "--max-minutes": ["0.001", "-1"], "--device": ["cpu", "tpu"],
}  # fmt: skip
_READ = {"--model": ["gmm2d", "x"], "--solver": ["euler", "heun:order=2", "x"], "--where": _WHERE}
# What keeps a line short: given nine times of ten, and then with this value.
_LIMITS = {
    "--samples": "4", "--metrics": "curvature", "--max-minutes": "0", "--train": "32", "--validation": "32",
    "--steps": "1", "--minutes": "0", "--initial": "euler@uniform",
}  # fmt: skip
# command: (arguments, options); None for a flag
_COMMANDS: dict[str, tuple[list[list[str] | str], dict[str, list[str] | str | None]]] = {
    "bench": ([], _SAMPLED | {
        "--samples": ["4"], "--batch-size": ["1", "64"], "--seeds": ["1", "2", "3000"], "--metrics": _METRICS,
        "--precision": ["float64", "bf16", "float8"], "--out": ["out-store", "store", "file.txt", "locked/s"],
        "--config": "PATH", "--inception-weights": "PATH",
    }),
    "sample": ([], _SAMPLED | {"--samples": ["4"], "--out": "PATH"}),
    "list": ([["solvers", "models", "recipes", "datasets", "references", "grids", "metrics", "solver"]],
    {"--long": None}),
    "show": (["STORE"], {"--format": _FORM, "--out": "PATH"}),
    "table": (["STORE"], _READ | {
        "--rows": ["solver", "model,solver", "x"], "--columns": ["nfe", "metric", "solver"], "--metric": _NAMES,
        "--no-intervals": None, "--published": None, "--format": _FORM, "--out": "PATH",
    }),
    "diff": (["STORE", ["0", "a", "zz", ""], ["0", "b", "zz"]], {}),
    "published": ([], {
        "--paper": ["2308.07896", "x"], "--dataset": ["cifar10"], "--model": ["edm"], "--solver": ["scire"],
        "--nfe": ["12"], "--metric": ["fid", "x"], "--method": ["gas", "x"], "--trained-on": ["mse", "x"],
        "--confidence": ["high", "x"], "--format": _FORM, "--out": "PATH",
    }),
    "audit": (["STORE"], {
        "--paper": ["2308.07896", "x"], "--model": ["edm", "gmm2d"], "--solver": ["scire", "x"],
        "--metric": ["fid", "x"], "--format": _FORM, "--out": "PATH",
    }),
    "plot": (["STORE"], _READ | {
        "--kind": ["quality", "samples", "error", "curvature", "pie"], "--metric": _NAMES, "--nfe": _NFE,
        "--against": ["nfe", "seconds", "x"], "--images": ["1", "2", "8"], "--device": ["cpu", "tpu"],
        "--checkpoint": "PATH", "--out": "PATH",
    }),
    "report": (["STORE"], _READ | {"--images": ["0", "1"], "--device": ["cpu", "tpu"], "--out": "PATH"}),
    "recommend": (["STORE"], {
        "--budget": ["2", "4", "99"], "--target-psnr": ["10", "99"], "--max-seconds": ["1", "0"], "--metric": _NAMES,
        "--model": ["gmm2d", "x"], "--where": _WHERE, "--json": None, "--plan": None,
    }),
    "baseline": (["STORE"], {"--out": "PATH"}),
    "check": (["STORE"], {"--baseline": "PATH", "--summary": "PATH", "--junit": "PATH", "--strict": None}),
    "distill --model gmm2d-flow": ([["bns", "times", "dss", "rk1-bespoke", "bn"]], {
        "--model": ["gmm2d-flow", "gmm2d", "gmm3d"], "--nfe": ["2", "3"], "--initial": ["euler@uniform", "x", "heun@"],
        "--train": ["32"], "--validation": ["32"], "--steps": ["1"], "--minutes": ["0"], "--sigma0": ["1", "2"],
        "--batch-size": ["64"], "--seed": ["0"], "--guidance": ["0", "1"], "--device": ["cpu", "tpu"],
    }),
    "explain": ([["euler", "dpmpp-2m", "unipc:order=2", "dopri5", "bns", "x"]], {
        "--nfe": ["2", "4"], "--model": ["gmm2d", "gmm2d-flow", "x"], "--grid": _GRID, "--guidance": ["0", "1"],
        "--json": None,
    }),
    "export": ([], {
        "--solver": ["euler", "heun", "bns", "x"], "--to": ["json", "python", "diffusers", "onnx"], "--nfe": ["2", "4"],
        "--model": ["gmm2d", "gmm2d-flow", "x"], "--grid": _GRID, "--prediction": ["x0", "eps", "velocity", "y"],
        "--transfer": None, "--out": "PATH",
    }),
    "import": (["PATH"], {"--name": ["mine", "heun", "A b"]}),
    "models info": ([["edm-cifar10-uncond-vp", "dit-xl2-256", "edm", "x.toml"]], {}),
    "models fetch": ([["edm", "x.toml", "sweep.toml", "x.toml#y"]], {"--checkpoint": "PATH"}),
    "verify --solver": ([["x", "eular"]], {"--golden": "PATH", "--picture": "PATH"}),
    "train flow": ([["gauss8-flow", "gauss8-reflow", "x", "sweep.toml"]], _TRAIN),
    "train reflow": ([["gauss8-flow", "x"]], _TRAIN),
    "train classifier": ([["digits", "x"]], {"--dataset": ["x"], "--device": ["cpu", "tpu"]}),
    "nothing": ([], {}),
    "": ([], {}),
}  # fmt: skip
