"""`baseline --accept` and what `check` says to people and to GitHub, through the command."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from fastsample.results.baseline import Baseline
from fastsample.results.store import Store

from ..command import command

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """PSNR of three solvers on an exact model."""
    folder = tmp_path_factory.mktemp("people")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTSAMPLE_HOME", str(folder / "home"))
        words = ["--solver", "heun,dpmpp-2m,unipc", "--nfe", 8, "--samples", 40, "--metrics", "psnr,snr"]
        assert command("bench", "--model", "gmm2d", *words, "--out", folder / "store").code == 0
    return Store(folder / "store", create=False)


@pytest.fixture(autouse=True)
def _a_repository(tmp_path, monkeypatch, store):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    assert command("baseline", store.folder, "-o", "base.json").code == 0


def changed(store, folder, **by):
    """The store with the PSNR of solvers moved by so many dB, or a solver's rows left out (None)."""
    other = Store(Path(folder))
    for row in store.rows():
        move = by.get(row.solver.replace("-", "_"), 0.0)
        if move is not None:
            values = dict(store.per_sample(row.cell))
            values["psnr"] = values["psnr"] + move
            metrics = row.metrics | {"psnr": float(values["psnr"].mean())}
            other.finish(row.model_copy(update={"metrics": metrics}), values)
    return other


def cells(file):
    return {one["solver"]: one for one in json.loads(Path(file).read_text())["cells"]}


def test_what_passes_is_a_count_and_all_shows_it(store):
    ended = command("check", store.folder, "--baseline", "base.json")
    assert (ended.code, ended.out.strip()) == (0, "Passed: 0 worse, 6 unchanged. --all shows them.")
    ended = command("check", store.folder, "--baseline", "base.json", "--all", "--summary", "s.md")
    assert ended.out.count("pass ") in (6, 12)  # a screen that is too narrow shows it in two parts
    assert "<details>" not in Path("s.md").read_text()
    changed(store, "worse", dpmpp_2m=-1.0)
    ended = command("check", "worse", "--baseline", "base.json", "--summary", "s.md")
    assert ended.code == 1
    assert "Failed: 1 worse, 5 unchanged." in ended.out
    assert "heun" not in ended.out
    assert "If this is intended: fastsample baseline worse -o base.json --accept" in ended.out
    summary = Path("s.md").read_text()
    assert "<details><summary>5 unchanged</summary>" in summary
    assert summary.index("| regression") < summary.index("<details>") < summary.index("| pass")


def test_what_is_missing_is_told_once_and_not_to_be_accepted(store):
    changed(store, "few", unipc=None, heun=None)
    ended = command("check", "few", "--baseline", "base.json", "--summary", "s.md")
    shared = "model gmm2d; solver heun, unipc; grid nsr, logsnr; NFE 8."
    line = f"2 cells, psnr, snr: the store has no such cell: {shared}"
    assert ended.code == 2
    assert ended.out.splitlines()[:2] == ["Not comparable: 0 worse, 4 not comparable, 2 unchanged.", line]
    assert line in Path("s.md").read_text()
    assert "--accept" not in ended.out
    assert "What is missing: measure it with bench --out few, or, for a baseline without it: " in ended.out
    changed(store, "one", unipc=None, heun=-1.0)
    ended = command("check", "one", "--baseline", "base.json")
    assert re.search(r"gmm2d unipc \S+ NFE 8, psnr, snr: the store has no such cell\.", " ".join(ended.out.split()))
    assert "If this is intended: fastsample baseline one -o base.json --accept" in ended.out


def test_annotations_are_for_github(store, monkeypatch):
    changed(store, "worse", dpmpp_2m=-1.0, unipc=1.0, heun=None)
    ended = command("check", "worse", "--baseline", "base.json")
    assert "::" not in ended.out
    for words in (["--github"], []):
        if not words:
            monkeypatch.setenv("GITHUB_ACTIONS", "true")
            monkeypatch.setenv("GITHUB_WORKSPACE", str(Path.cwd().parent))
        ended = command("check", "worse", "--baseline", "base.json", *words)
        lines = [line for line in ended.out.splitlines() if line.startswith("::")]
        root = "" if words else f"{Path.cwd().name}/"
        start = f"file={root}base.json,title=fastsample check%3A"
        kinds = [line.partition("::gmm2d")[0] for line in lines]
        assert sorted(kinds) == sorted([
            f"::error {start} regression", f"::notice {start} improvement", *[f"::error {start} not comparable"] * 2
        ])  # fmt: skip
        assert any("dpmpp-2m" in line and "moved by more than the" in line for line in lines)
    assert "::error" not in command("check", "worse", "--baseline", "base.json", "--no-github").out


def test_junit_has_the_seconds_of_the_rows(store):
    assert command("check", store.folder, "--baseline", "base.json", "--junit", "check.xml").code == 0
    suite = ElementTree.parse("check.xml").getroot()
    spent = sum(row.seconds["total"] for row in store.rows())
    assert float(suite.get("time")) == pytest.approx(spent, abs=2e-3)
    assert sum(float(case.get("time")) for case in suite) == pytest.approx(spent, abs=1e-2)
    assert all(float(case.get("time")) > 0 for case in suite)


def test_accept_takes_what_changed_and_keeps_the_rest(store):
    before = cells("base.json")
    changed(store, "now", dpmpp_2m=-1.0, unipc=1.0, heun=1e-6)
    assert command("check", "now", "--baseline", "base.json").code == 1
    ended = command("baseline", "now", "-o", "base.json", "--accept")
    assert ended.code == 0
    old = before["dpmpp-2m"]["metrics"]["psnr"]["value"]
    assert f"psnr: {old:.6g} -> {old - 1:.6g}" in ended.out
    assert "2 numbers changed in base.json, 4 are as they were" in ended.out
    after = cells("base.json")
    assert after["heun"] == before["heun"]
    assert after["unipc"]["metrics"]["psnr"]["value"] == pytest.approx(before["unipc"]["metrics"]["psnr"]["value"] + 1)
    for name in ("unipc", "dpmpp-2m"):
        assert after[name]["metrics"]["snr"] == before[name]["metrics"]["snr"]
        assert after[name]["facts"] == before[name]["facts"]
    assert command("check", "now", "--baseline", "base.json", "--strict").code == 0
    text = Path("base.json").read_bytes()
    ended = command("baseline", "now", "-o", "base.json", "--accept")
    assert "nothing changed: base.json is as it was, 6 numbers" in ended.out
    assert Path("base.json").read_bytes() == text


def test_accept_takes_new_cells_and_says_what_it_has_nothing_for(store):
    changed(store, "few", unipc=None)
    assert command("baseline", "few", "-o", "few.json").code == 0
    ended = command("baseline", store.folder, "-o", "few.json", "--accept")
    assert "unipc" in ended.out
    assert "psnr: new -> " in ended.out
    assert cells("few.json").keys() == cells("base.json").keys()
    changed(store, "moved", heun=None, unipc=-1.0)
    ended = command("baseline", "moved", "-o", "few.json", "--accept")
    assert ended.code == 0
    assert "stays: the store has no such cell" in ended.out
    assert "1 numbers changed" in ended.out
    assert command("check", "moved", "--baseline", "few.json").code == 2


def test_accept_of_another_checkpoint_takes_all_of_a_cell_or_nothing(store):
    other, bare = Store(Path("other")), Store(Path("bare"))
    for row in store.rows():
        update, values = {"checkpoint_sha256": "f" * 64}, store.per_sample(row.cell)
        other.finish(row.model_copy(update=update), values)
        metrics = {"psnr": row.metrics["psnr"]}
        bare.finish(row.model_copy(update=update | {"metrics": metrics}), {"psnr": values["psnr"]})
    text = Path("base.json").read_bytes()
    ended = command("baseline", "bare", "-o", "base.json", "--accept")
    assert ended.code == 2
    assert "which has no snr: run bench with all metrics of the baseline" in " ".join(ended.err.split())
    assert Path("base.json").read_bytes() == text
    assert command("check", "other", "--baseline", "base.json").code == 2
    assert command("baseline", "other", "-o", "base.json", "--accept").code == 0
    assert {one.facts["checkpoint_sha256"] for one in Baseline.read(Path("base.json")).cells} == {"f" * 64}
    assert command("check", "other", "--baseline", "base.json").code == 0


def test_accept_needs_a_baseline(store):
    ended = command("baseline", store.folder, "-o", "none.json", "--accept")
    assert ended.code == 2
    assert "cannot read none.json" in ended.err


def workflow():
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load((ROOT / "docs" / "workflows" / "fastsample.yml").read_text("utf-8"))


def test_the_workflow_keeps_references_under_what_decides_them(store):
    steps = workflow()["jobs"]["check"]["steps"]
    (step,) = (one for one in steps if one.get("id") == "references")
    (cache,) = (one["with"] for one in steps if one.get("uses", "").startswith("actions/cache"))
    assert cache["key"].endswith("${{ steps.references.outputs.key }}")
    assert cache["path"] == "~/.cache/fastsample/references"

    def key():
        facts = os.environ | {"BASELINE": "base.json", "GITHUB_OUTPUT": "out.txt"}
        subprocess.run(["bash", "-e", "-o", "pipefail", "-c", step["run"]], env=facts, check=True)
        return Path("out.txt").read_text().splitlines()[-1]

    first = key()
    assert re.fullmatch("key=[0-9a-f]{16}", first)
    changed(store, "now", dpmpp_2m=-1.0)
    assert command("baseline", "now", "-o", "base.json", "--accept").code == 0
    assert key() == first
    text = Path("base.json").read_text()
    Path("base.json").write_text(re.sub(r'("psnr reference fingerprint": "\w+ )', r"\g<1>0", text))
    assert key() != first


@pytest.mark.slow  # pip builds the package
def test_it_is_installed_from_a_url_with_a_commit(tmp_path):
    assert re.fullmatch(r"fastsample @ git\+https://[^@ ]+\.git@COMMIT", workflow()["env"]["FASTSAMPLE"])
    git = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    found = subprocess.run(git, capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip("this is no clone")
    place = f"fastsample @ git+file://localhost{ROOT}@{found.stdout.strip()}"
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path / "made"), place]
    subprocess.run(words, check=True)
    assert (tmp_path / "made" / "fastsample" / "bench" / "cli" / "gate.py").is_file()
