"""Fills the tables of docs/frontier.md, each between `<!-- NAME -->` and `<!-- end -->`, from the stores of its runs.

    cd docs && python frontier_page.py

A table whose store is not there stays as it is.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd

from fastsample.bench.learning.transfer import transfers
from fastsample.bench.request import read_request
from fastsample.datasets.home import data_home
from fastsample.models.catalogue import open_model
from fastsample.results.evidence import Comparison
from fastsample.results.forms.sheet import plain, write
from fastsample.results.metrics import metric_of
from fastsample.results.store import Store
from fastsample.results.tables import table_of
from fastsample.results.transfer import sheet_of
from fastsample.solvers.learned.parameters import coordinate_of
from fastsample.solvers.proofs.explain import in_coordinate
from fastsample.solvers.proofs.identities import identities
from fastsample.solvers.proofs.stability import stability
from fastsample.solvers.spec import table_of as coefficients

DOCS = Path(__file__).parent
MODELS = {"vp": "cifar10-tiny-vp", "flow": "cifar10-tiny-flow"}
METRICS = {"psnr": "psnr", "resnet": "fd[cifar10-resnet]", "conv": "fd[frontier.py:conv]"}
NFE = 8  # of the table of errors


def store(name: str) -> Store:
    """The store of a run.

    Raises:
        FileNotFoundError: if it was not run.
    """
    folder = (DOCS / read_request(DOCS / name).out).resolve()
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not there: `fastsample bench --config {name}` makes it")
    return Store(folder, create=False)


def full(held: Store, metric: str) -> str:
    """The full name of a metric of a store, that of most samples."""
    names = [str(name)[8:] for name in held.frame() if str(name).startswith("metrics.")]
    mine = [name for name in names if name.partition("@")[0] == metric]
    return max(mine, key=lambda name: int(name.partition("@")[2] or 0))


def ranking(model: str, metric: str) -> str:
    """All solvers down, NFE across."""
    held = store("frontier.toml")
    name = full(held, METRICS[metric])
    return write(table_of(held, models=[MODELS[model]], metrics=[name], intervals=False), "markdown")


def leaders() -> str:
    """The best training-free solver of each model and NFE, by each metric."""
    held, lines = store("frontier.toml"), []
    comparison = Comparison(held)
    for name in (full(held, metric) for metric in METRICS.values()):
        found = comparison.evidence(comparison.rows(), [name])
        free = found[(found["trained_on"] == "nothing") & (found["made"] <= found["nfe"])]
        order = free.sort_values("value", ascending=not metric_of(name).higher, kind="stable")
        for (model, nfe), group in order.groupby(["model", "nfe"]):
            best = group.iloc[0]
            level = [
                line["title"]
                for _, line in group.iloc[1:].iterrows()
                if (far := comparison.difference(best["cells"], line["cells"], name)) and not far.excludes_zero
            ]
            facts = {"model": model, "metric": metric_of(name).head(name), "NFE": nfe, "best": best["title"]}
            more = f"{len(level)}: {'; '.join(level[:3])}" if level else "none"
            lines.append(facts | {"value": float(best["value"]), "level with it": more})
    return write(plain(pd.DataFrame(lines).sort_values(["model", "metric", "NFE"], kind="stable")), "markdown")


def equal_cost() -> tuple[Comparison, pd.DataFrame]:
    """The PSNR of the run at equal cost, of samplers that make no more evaluations than asked."""
    comparison = Comparison(store("frontier-learned.toml"))
    found = comparison.evidence(comparison.rows(), ["psnr"])
    return comparison, found[found["made"] <= found["nfe"]]


def learned(model: str) -> str:
    """Each trained sampler beside the best training-free one of its NFE, on its best grid by the same noises."""
    comparison, found = equal_cost()
    lines = []
    for nfe, group in found[found["model"] == MODELS[model]].groupby("nfe"):
        free, trained = (group[(group["trained_on"] == "nothing") == said] for said in (True, False))
        best = free.loc[free["value"].idxmax()]
        line = {"NFE": str(nfe), "best training-free": f"{best['title']}, {best['grid']}", "PSNR": float(best["value"])}
        for title, one in trained.set_index("title").iterrows():
            gain = comparison.difference(one["cells"], best["cells"], "psnr")
            told = f"{gain.value:+.2f} ({gain.low:+.2f} to {gain.high:+.2f})" if gain else "-"
            line[str(title)] = f"{one['value']:.2f}, {told}"
        lines.append(line)
    return write(plain(pd.DataFrame(lines)), "markdown")


def cost() -> str:
    """The evaluations that each training took."""
    _, found = equal_cost()
    trained = found[found["trained_on"] != "nothing"]
    spent = trained["training"].map(lambda told: re.search(r"([\d,]+) evaluations", "; ".join(told))[1])
    matrix = trained.assign(spent=spent).pivot(index=["model", "nfe"], columns="title", values="spent")
    return write(plain(matrix.reset_index().rename(columns={"nfe": "NFE"})), "markdown")


def transfer(against: str) -> str:
    """The transfer matrices, as values or as differences."""
    found = transfers(store("frontier-transfer.toml"), against=against)
    return "\n".join(write(sheet_of(one), "markdown") for one in found)


def classes() -> str:
    """Named solvers that are one method."""
    found = identities()
    numbers = found["difference"].map("{:.0e}".format)
    told = found.assign(methods=found["methods"].map(" = ".join), difference=numbers).drop(columns="tolerance")
    return write(plain(told), "markdown")


def errors() -> str:
    """What each table of `NFE` evaluations does to errors, on both models."""
    lines, models = [], {short: open_model(name, home=data_home()) for short, name in MODELS.items()}
    for name in read_request(DOCS / "frontier.toml").solver:
        line: dict[str, str] = {"solver": name}
        for short, model in models.items():
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of grids that are poor for a method: the table says it
                    file = coefficients(name, model, NFE)
            except ValueError:
                continue
            path = file.noise_path
            told = stability(in_coordinate(file, coordinate_of(path)).table, path)
            sizes = {"result": told.evaluations, "inside": told.evaluations_inside, "largest": told.largest}
            line |= {f"{what}, {short}": f"{size:.3g}" for what, size in sizes.items()}
            line[f"z h, {short}"] = "-" if told.bears is None else f"{told.bears * told.step:.2f}"
        lines.append(line)
    return write(plain(pd.DataFrame(lines)), "markdown")


TABLES: dict[str, Callable[[], str]] = {
    "leaders": leaders,
    "cost": cost,
    "transfer": partial(transfer, "nfe"),
    "transfer_gain": partial(transfer, "best"),
    "identities": classes,
    "stability": errors,
    **{f"learned_{model}": partial(learned, model) for model in MODELS},
    **{f"{model}_{metric}": partial(ranking, model, metric) for model in MODELS for metric in METRICS},
}


def filled(page: str) -> str:
    """The page with its tables made anew, but those of runs that are not there."""

    def table(match: re.Match[str]) -> str:
        try:
            return f"{match[1]}\n{TABLES[match[2]]()}\n{match[3]}"
        except FileNotFoundError as error:
            print(f"{match[2]}: {error}")
            return match[0]

    return re.sub(r"(<!-- (\w+) -->\n).*?(<!-- end -->)", table, page, flags=re.DOTALL)


if __name__ == "__main__":
    file = DOCS / "frontier.md"
    file.write_text(filled(file.read_text("utf-8")), "utf-8")
