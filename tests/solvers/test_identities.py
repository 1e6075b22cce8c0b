"""Solvers that are one method under several names, and some that are not, through the command."""

import json

import pytest

from fastsample.solvers.proofs.identities import TOLERANCE, named

from ..command import command

ONE = [  # and where, at which budgets
    ({"lms", "ipndm-v"}, "everywhere", "5, 12, 16"),
    ({"dpm-fast", "dpm-solver-3", "dpm-solver-3:ratios=fixed"}, "everywhere", "5, 12, 16"),
    ({"res-2m", "dpmpp-2m:lower_order_final=never,solver_type=taylor"}, "everywhere", "5, 12, 16"),
    ({"res-2m", "dpmpp-2m:solver_type=taylor"}, "everywhere", "16"),
    ({"cab:order=3,theta=0", "ipndm-v:order=3"}, "everywhere", "5, 12, 16"),
    ({"ddim", "dpmpp-2m:order=1", "dpm-solver-2:order=1", "edm-euler", "euler"}, "everywhere", "5, 12, 16"),
    ({"edm-heun", "edm-sde:S_churn=0"}, "everywhere", "5, 12, 16"),
    ({"sa-solver:tau=0", "unipc:variant=bh1"}, "everywhere", "5, 12, 16"),
]
OTHERS = ["dpmpp-3m", "dpmpp-2m", "unipc", "cab", "heun", "stork", "rx-euler", "ddpm:eta=0"]


@pytest.fixture(scope="module")
def found():
    asked = [*sorted(set().union(*(names for names, *_ in ONE))), *OTHERS]
    ended = command("identities", *(word for name in asked for word in ("--solver", name)), "--format", "json")
    assert ended.code == 0
    return json.loads(ended.out)


@pytest.mark.parametrize(("names", "where", "budgets"), ONE)
def test_one_method_is_found(found, names, where, budgets):
    tables = [line for line in found if (line["by"], line["budgets"]) == ("table", budgets)]
    (line,) = [line for line in tables if names <= set(line["methods"]) | _same(found, line["methods"])]
    assert line["where"] == where
    assert line["difference"] <= line["tolerance"] == TOLERANCE


def _same(found, methods):
    """What is one with the methods everywhere, which a class on some budgets does not name."""
    everywhere = [set(line["methods"]) for line in found if line["budgets"] == "5, 12, 16" and line["by"] == "table"]
    return set().union(*(names for names in everywhere if names & set(methods)))


def test_other_methods_are_in_no_class(found):
    for line in found:
        if line["by"] == "table":
            assert not set(line["methods"]) & set(OTHERS), line
    assert [line["methods"] for line in found if line["by"] == "result"] == [["ddim", "ddpm:eta=0"]]


def test_a_reader_sees_a_table_and_a_program_lines():
    words = ("identities", "--solver", "lms,ipndm-v,dpmpp-2m")
    assert "ipndm-v = lms" in command(*words).out.replace("lms = ipndm-v", "ipndm-v = lms")
    head, line = command(*words, "--format", "csv").out.splitlines()
    assert head == "methods,where,budgets,by,difference,grids,tolerance"
    assert line.startswith("lms = ipndm-v,everywhere,")
    assert command("identities", "--solver", "nobody").code == 2
    assert json.loads(command("identities", "--solver", "dpmpp-2m,dpmpp-3m", "--format", "json").out) == []


def test_every_solver_of_a_fixed_grid_is_compared():
    names = {spec.name for spec in named()}
    assert {"lms", "ddpm", "stork-noise", "dpm-solver-v3"} <= names
    assert not {"dopri5", "bns"} & names
    assert {"cab:theta=0", "euler-ancestral:eta=0", "dpmpp-2m:order=1", "deis:order=1"} <= {*map(str, named())}
