"""What is packaged says what it is: types, versions, the Pythons that the example workflow runs."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]


def test_every_room_is_packaged_and_typed():
    packages, folders, data = SETUPTOOLS["packages"], {**SETUPTOOLS["package-dir"]}, SETUPTOOLS["package-data"]
    assert sorted(packages) == sorted(folders)
    assert folders.pop("fastsample") == "."  # for the face, and the one file that `python -m fastsample` runs
    rooms = {folder.partition("/")[0] for folder in folders.values()}
    found = {file.parent.relative_to(ROOT).as_posix() for room in rooms for file in (ROOT / room).rglob("*.py")}
    assert found == set(folders.values())
    folders["fastsample"] = "."
    for package in packages:
        if package.count(".") <= 1:  # marks hold for what is below
            assert (ROOT / folders[package] / "py.typed").is_file()
            assert "py.typed" in data[package]
        assert all(list((ROOT / folders[package]).glob(pattern)) for pattern in data.get(package, ()))


def test_citation_and_workflow_agree_with_the_project():
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert (citation["version"], citation["license"]) == (PROJECT["project"]["version"], PROJECT["project"]["license"])
    workflow = yaml.safe_load((ROOT / "docs" / "workflows" / "fastsample.yml").read_text("utf-8"))
    first, last = (int(bound.partition("3.")[2]) for bound in PROJECT["project"]["requires-python"].split(","))
    matrix = workflow["jobs"]["check"]["strategy"]["matrix"]["python"]
    assert matrix == [f"3.{minor}" for minor in range(first, last)]


def test_python_runs_the_package(tmp_path):
    (tmp_path / "fastsample").symlink_to(ROOT)  # as package-dir maps it, whatever is installed
    run = [sys.executable, "-m", "fastsample", "--help"]
    done = subprocess.run(run, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"Usage: python -m fastsample" in done.stdout
