"""Python that a user names: `FILE.py:NAME`, `package.module:NAME`, or the name under which a package offers it.

Naming it runs it, with all that the user may do: it is the user's own code. What lies in the folder of downloads is
never run. An installed package offers names by entry points of the groups `fastsample.models`, `fastsample.solvers`,
`fastsample.metrics`, `fastsample.extractors` and `fastsample.datasets`.
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
import sysconfig
import traceback
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from fastsample.datasets.home import data_home, expanded, sha256_of
from fastsample.datasets.names import nearest

__all__ = ["Code", "CodeError", "Kind", "code_named", "fault", "is_code", "offered"]

Kind = Literal["models", "solvers", "metrics", "extractors", "datasets"]
_OTHERS = (str(Path(__file__).resolve().parents[2]), *map(sysconfig.get_path, ("stdlib", "purelib", "platlib")))
_SPELLED = re.compile(r"(.+\.py|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)")


class CodeError(ValueError):
    """Python that a user names and that cannot be had."""


@dataclass(frozen=True)
class Code:
    """A Python object that a user names.

    Attributes:
        value: the object.
        name: without the folder of its file, such as `mine.py:model`.
        told: the same with the first 16 digits of the sha256 of the file that defines it, as a row keeps it.
    """

    value: Any
    name: str
    told: str


def is_code(text: str) -> bool:
    """Whether a word is spelled as FILE.py:NAME or package.module:NAME, or is a FILE.py that is there."""
    return _SPELLED.fullmatch(text) is not None or _is_file(text)


def _is_file(text: str) -> bool:
    return text.endswith(".py") and expanded(text).is_file()


@cache
def offered(kind: Kind) -> dict[str, EntryPoint]:
    """What installed packages offer, by name; nothing of it is imported."""
    return {point.name: point for point in entry_points(group=f"fastsample.{kind}")}


def code_named(text: str, kind: Kind) -> Code | None:
    """The object of FILE.py:NAME, of package.module:NAME or of an installed package; None for any other word.

    Raises:
        CodeError: where there is none, it fails when it is imported, or its file was downloaded; for FILE.py alone,
            with the names that it defines, where it is no solver's.
    """
    if _is_file(text):
        if kind == "solvers":  # which may be a word of a store, of which no file is opened
            raise CodeError(f"{text} is a file, and a solver a function in one: write {text}:NAME")
        names = ", ".join(_defined(expanded(text))) or "nothing that can be named"
        raise CodeError(f"{text} defines {names}: write {text}:NAME")
    match = _SPELLED.fullmatch(text)
    if match and match[1].endswith(".py"):
        file = expanded(match[1]).resolve()
        if not file.is_file():
            raise CodeError(f"{match[1]} is no file; {text} names a function in one")
        if file.is_relative_to(data_home().resolve()):
            raise CodeError(f"{match[1]} is in the folder of downloads, {data_home()}, of which nothing is run")
        module, name = _run(file, sha256_of(file)), match[2]
        return _code(getattr(module, name, None), f"{file.name}:{name}", text, module)
    if text in offered(kind):
        point = offered(kind)[text]
        module = _imported(point.module, text)
        value: Any = module
        for part in filter(None, point.attr.split(".")):
            value = getattr(value, part, None)
        return _code(value, text, text, module)
    if match:
        module = _imported(match[1], text)
        return _code(getattr(module, match[2], None), text, text, module)
    return None


def _defined(file: Path) -> list[str]:
    """The functions and values of a file, which is read and not run."""
    try:
        body = ast.parse(file.read_bytes()).body
    except (OSError, SyntaxError, ValueError, RecursionError):
        return []
    found = [node.name for node in body if isinstance(node, ast.FunctionDef)]
    found += [
        one.id for node in body if isinstance(node, ast.Assign) for one in node.targets if isinstance(one, ast.Name)
    ]
    return [name for name in found if not name.startswith("_")]


def _code(value: Any, name: str, text: str, module: ModuleType) -> Code:
    if value is None:
        known = [key for key, one in vars(module).items() if callable(one) and one.__module__ == module.__name__]
        raise CodeError(f"{text}: {nearest(name.rpartition(':')[2], known, 'function', 'the file has no such name')}")
    file = Path(getattr(module, "__file__", None) or "")
    return Code(value, name, f"{name} sha256 {sha256_of(file)[:16]}" if file.is_file() else name)


@cache
def _run(file: Path, sha256: str) -> ModuleType:
    """The module of a file, run once for each content; what lies beside it can be imported, as by a script."""
    if str(file.parent) not in sys.path:
        sys.path.insert(0, str(file.parent))
    spec = spec_from_file_location(f"{file.stem}_{sha256[:8]}", file)
    assert spec
    assert spec.loader
    module = sys.modules[spec.name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[spec.name]
        raise CodeError(f"{file} cannot be run: {fault(error)}") from error
    return module


def _imported(name: str, text: str) -> ModuleType:
    if str(Path.cwd()) not in sys.path and "" not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise CodeError(f"{text}: {name} cannot be imported: {fault(error)}") from error


def fault(error: BaseException) -> str:
    """An error of a user's code in one line, with the last line of that code that led to it."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [one for one in frames if not one.filename.startswith((*_OTHERS, "<"))]
    place = f" ({Path(theirs[-1].filename).name}, line {theirs[-1].lineno})" if theirs else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}{place}"
