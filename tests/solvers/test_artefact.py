"""Table files: what is written comes back, and what cannot be a solver is refused."""

import json

import pytest
from pydantic import ValidationError

from fastsample.models.path import DiscreteVP, Edm, LinearFlow, VPLinear
from fastsample.solvers.learned.parameters import coordinate_of
from fastsample.solvers.solver import get
from fastsample.solvers.table import trace
from fastsample.solvers.table_file import TableFile, TableFileError, read_table


def table_file(name="heun", path=None, nfe=4):
    path = path or VPLinear()
    table = trace(get(name).plan(path, nfe), coordinate_of(path))
    return TableFile.of(table, path, solver=name, title=name, paper="")


@pytest.mark.parametrize("path", [VPLinear(), LinearFlow(), Edm(), DiscreteVP.ddpm(), VPLinear(beta_max=12.0)], ids=str)
@pytest.mark.parametrize("name", ["heun", "unipc", "ddpm"])
def test_a_file_keeps_every_bit(name, path, tmp_path):
    file, target = table_file(name, path, 6), tmp_path / "table.json"
    target.write_text(file.to_json())
    back = read_table(target)
    assert back == file
    assert back.noise_path == path
    for field in ("times", "a", "b", "w"):
        assert (getattr(back.table, field) == getattr(file.table, field)).all()
    assert back.sha256 == file.sha256


def test_the_hash_is_of_the_numbers():
    file = table_file()
    assert file.model_copy(update={"title": "other"}).sha256 == file.sha256
    assert file.model_copy(update={"end": file.end + 1e-16}).sha256 != file.sha256
    assert table_file(path=VPLinear(beta_max=19.0)).sha256 != file.sha256


def broken(facts, change):
    times = facts["times"]
    match change:
        case "decreasing":
            times[1], times[3] = times[3], times[1]
        case "nan":
            facts["b"][2][0] = float("nan")
        case "infinite":
            facts["a"][1] = float("inf")
        case "outside":
            times[0] = 1.2
        case "row":
            facts["b"][3].pop()
        case "count":
            facts["nfe"] = 5
        case "version":
            facts["version"] = 2
        case "key":
            facts["code"] = "import os"
        case "path":
            facts["path"]["name"] = "vp-liner"
        case "constant":
            facts["path"]["beta"] = 1.0
        case "noise":
            facts["w"] = [[1.0], [1.0]]
    return facts


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("decreasing", "the times do not run from noise to data"),
        ("nan", "a number is NaN or infinite"),
        ("infinite", "a number is NaN or infinite"),
        ("outside", "a time lies outside the path's interval from 1 to 0.001"),
        ("row", "i numbers in row i of b"),
        ("count", "a table of 5 evaluations has 5 times"),
        ("version", "version: Input should be 1"),
        ("key", "code: Extra inputs are not permitted"),
        ("path", "unknown path 'vp-liner'"),
        ("constant", "path 'vp-linear'"),
        ("noise", "the noise coefficients w are 5 rows of one length"),
    ],
)
def test_what_cannot_be_a_solver_is_refused(change, message, tmp_path):
    target = tmp_path / "table.json"
    target.write_text(json.dumps(broken(json.loads(table_file().to_json()), change)))
    with pytest.raises(TableFileError, match=r"table\.json is no table") as refusal:
        read_table(target)
    assert message in str(refusal.value)


def test_a_file_that_is_cut_short_or_missing(tmp_path):
    target = tmp_path / "table.json"
    target.write_text(table_file().to_json()[:200])
    with pytest.raises(TableFileError, match="is no table: Invalid JSON: EOF"):
        read_table(target)
    target.write_bytes(b"")
    with pytest.raises(TableFileError, match="is no table"):
        read_table(target)
    with pytest.raises(TableFileError, match=r"cannot read .*No such file"):
        read_table(tmp_path / "missing.json")


def test_a_flipped_bit_is_found_or_changes_nothing(flips, tmp_path):
    file, target = table_file(), tmp_path / "table.json"
    target.write_text(file.to_json())
    found = 0
    for _ in flips(target, 37):
        try:
            assert read_table(target) == file
        except TableFileError:
            found += 1
    assert found > 100


def test_files_of_older_versions_have_no_checksum(tmp_path):
    file, target = table_file(), tmp_path / "table.json"
    target.write_text(file.model_dump_json(indent=1))
    assert read_table(target) == file


@pytest.mark.parametrize("changes", [{"guidance": float("nan")}, {"options": {"eta": float("inf")}}])
def test_no_field_takes_nan_or_infinity(changes):
    with pytest.raises(ValidationError, match="finite number"):
        TableFile(**table_file().model_dump() | changes)
