"""The house over its syntax trees: which room may import which, and no circle."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = {"datasets": 1, "results": 2, "models": 2, "solvers": 3, "bench": 4}
FILES = {file.relative_to(ROOT).as_posix(): ast.parse(file.read_text("utf-8")) for room in FLOORS
         for file in (ROOT / room).rglob("*.py")}  # fmt: skip


def module(path):
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


MODULES = {module(path) for path in FILES}


def imports(tree):
    """(module, line, whether inside a function) of each first-party import; TYPE_CHECKING blocks do not run."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    checks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
    inside, typing = ({id(node) for outer in many for node in ast.walk(outer)} for many in (functions, checks))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fastsample."):
            if id(node) in typing:
                continue
            name = node.module.removeprefix("fastsample.")
            for alias in node.names:
                whole = f"{name}.{alias.name}"
                yield (whole if whole in MODULES else name), node.lineno, id(node) in inside


@pytest.mark.parametrize("path", sorted(FILES))
def test_an_import_goes_down_or_stays_in_its_room(path):
    room = path.split("/")[0]
    for name, line, _ in imports(FILES[path]):
        other = name.split(".")[0]
        assert other == room or FLOORS[other] < FLOORS[room], f"{path}:{line} imports {name}"


def test_no_first_party_import_hides_in_a_function():
    for path, tree in FILES.items():
        for name, line, inside in imports(tree):
            # An optional extra, and seconds of imports that no list and no PSNR needs.
            late = {
                "solvers.exports.diffusers", "solvers.exports.diffusers_config", "bench.metrics.registered_extractors",
                "bench.metrics.lpips", "bench.metrics.own_extractors",
            }  # fmt: skip
            allowed = path.startswith("bench/cli/") or name in late
            assert allowed or not inside, f"{path}:{line} imports {name}"


def test_the_face_imports_when_it_is_called():
    """What a notebook imports stands above all rooms, and costs nothing until one of its functions is called."""
    found = [(name, inside) for name, _, inside in imports(ast.parse((ROOT / "__init__.py").read_text("utf-8")))]
    assert found
    assert all(inside for _, inside in found)


def test_nothing_below_the_command_line_imports_it():
    for path, tree in FILES.items():
        if not path.startswith("bench/cli/") and path != "bench/__main__.py":
            for name, line, _ in imports(tree):
                assert not name.startswith("bench.cli"), f"{path}:{line} imports {name}"


def test_there_is_no_circle():
    graph = {module(path): {name for name, _, _ in imports(tree)} - {module(path)} for path, tree in FILES.items()}
    for name in graph:  # the door plate of families imports its files to register them
        graph[name].discard("solvers.families")
    TopologicalSorter(graph).prepare()


def literals(tree):
    """(text, line) of each string that is a whole literal, without docstrings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value, node.lineno


# Kinds that are no other words of this house: `precision` is also a field of a protocol, `curvature` a picture.
METRICS = {"psnr", "psnr_reference", "truncation", "straightness", "fid", "fd", "kid", "fid-inf", "fd-inf"}
LEARNED = {"bns", "bns-first", "dss", "gs", "ld3", "rk1-bespoke", "rk2-bespoke", "s4s", "s4s-alt"}


@pytest.mark.parametrize(
    ("names", "registries", "rooms"),
    [
        (METRICS, ("results/metrics.py", "bench/metrics/"), ("results/", "bench/")),
        (LEARNED, ("solvers/learned/kinds.py",), ("",)),
    ],
    ids=["metrics", "learned solvers"],
)
def test_a_name_of_a_registry_is_spelt_there_alone(names, registries, rooms):
    for path, tree in FILES.items():
        if path.startswith(rooms) and not path.startswith(registries):
            for text, line in literals(tree):
                assert text not in names, f"{path}:{line} spells {text!r}"


LONG = {"models/path.py", "models/public/unpickling.py"}  # one subject each that does not part


def test_a_file_is_short_and_a_folder_small():
    folders = {}
    for path in FILES:
        folders.setdefault(path.rpartition("/")[0], []).append(path)
        lines = (ROOT / path).read_text("utf-8").count("\n")
        assert lines <= 300 or path.startswith("models/networks/") or path in LONG, f"{path} has {lines} lines"
    for folder, files in folders.items():
        assert len(files) <= 20 or folder == "models/networks", f"{folder} has {len(files)} files"
