"""Readers of the golden cases of the training-free solvers of 2022 to 2026."""

from __future__ import annotations

from typing import Any

from fastsample.solvers.proofs.readers import Case, reader


@reader("res-2s", "res-3s", "res-2m", "res-3m")
def _res(case: Case) -> tuple[str, int, dict[str, Any]]:
    given, name = case["options"], case["solver"]
    options = {key: given[key] for key in ("c2", "c3") if key in given}
    if name.startswith("res-3"):
        options["official"] = given.get("gamma") != "corrected"
    return name, case["nfe_actual"], options


@reader("cab", "cab-flow")
def _cab(case: Case) -> tuple[str, int, dict[str, Any]]:
    options = {"order": case["order"], "theta": case["options"]["theta"]}
    return case["solver"], case["nfe_actual"], options | ({"official": True} if case["solver"] == "cab-flow" else {})


@reader("pfdiff")
def _pfdiff(case: Case) -> tuple[str, int, dict[str, Any]]:
    given = case["options"]
    options = {"variant": f"{given['k']}_{given['h']}", "intervals": given.get("intervals", len(case["timesteps"]) - 1)}
    return "pfdiff", case["nfe_actual"], options
