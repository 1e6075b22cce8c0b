"""The gate on real runs of an exact model, and on runs that were made worse, better or incomparable."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from rich.console import Console

from fastsample.bench.metrics import integrator
from fastsample.bench.metrics.solution import reference_for
from fastsample.bench.request import Request
from fastsample.bench.sweep import run_sweep
from fastsample.models.catalogue import open_model
from fastsample.results.baseline import Baseline, BaselineError, baseline_of
from fastsample.results.comparable import FINGERPRINT, moved
from fastsample.results.forms.findings import outcome, sheet_of, to_junit
from fastsample.results.forms.sheet import write
from fastsample.results.gate import check, exit_code
from fastsample.results.protocol import Protocol
from fastsample.results.store import Store
from fastsample.solvers.families import dpm_multistep as dpm_solver_multistep

ROOT = Path(__file__).parents[2]
SOLVERS = ("heun", "dpmpp-2m", "unipc")
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs a sweep into a folder; all runs share their reference solutions."""
    home = tmp_path_factory.mktemp("home")

    def run(folder, **changes):
        facts = dict(model="gmm2d", solver=SOLVERS, nfe=(10,), samples=200, metrics=("psnr",), out=folder)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FASTSAMPLE_HOME", str(home))
            assert run_sweep(Request(**facts | changes), Console(quiet=True)) == []
        return Store(folder, create=False)

    return run


@pytest.fixture(scope="module")
def store(run, tmp_path_factory):
    return run(tmp_path_factory.mktemp("gate") / "store")


@pytest.fixture(scope="module")
def baseline(store):
    return baseline_of(store)


def changed(store, folder, psnr=lambda values: values, only="dpmpp-2m", **facts):
    """The store with the PSNR of one solver, or facts of all rows, changed."""
    other = Store(folder)
    for row in store.rows():
        values = store.per_sample(row.cell)["psnr"]
        values = psnr(values) if row.solver == only else values
        metrics = row.metrics | {"psnr": float(values.mean())}
        other.finish(row.model_copy(update={"metrics": metrics} | facts), {"psnr": values})
    return other


def verdicts(findings):
    return {finding.cell.split()[1]: finding.verdict for finding in findings}


def test_a_metric_of_the_first_samples_alone_is_compared_by_these(store, tmp_path):
    def of_few(folder, psnr):
        return changed(store, folder, lambda values: psnr(values[:50]), samples=400)

    few = of_few(tmp_path / "few", lambda values: values)
    baseline_of(few).write(tmp_path / "baseline.json")
    kept = Baseline.read(tmp_path / "baseline.json")
    assert {one.metrics["psnr"].samples for one in kept.cells} == {50, 200}
    assert set(verdicts(check(few, kept)).values()) == {"pass"}
    worse = of_few(tmp_path / "worse", lambda values: values - 1 - 0.01 * RNG.random(50))
    assert verdicts(check(worse, kept))["dpmpp-2m"] == "regression"


def test_the_same_run_passes(store, baseline, tmp_path):
    baseline.write(tmp_path / "new" / "baseline.json")
    read = Baseline.read(tmp_path / "new" / "baseline.json")
    assert read == baseline
    findings = check(store, read)
    assert verdicts(findings) == dict.fromkeys(SOLVERS, "pass")
    assert exit_code(findings) == 0
    assert outcome(findings) == "Passed: 0 worse, 3 unchanged."
    for finding in findings:
        assert finding.change.value == 0
        assert finding.p == 1
        assert 0 < finding.allowed < 0.1 * (finding.before - 10)


def test_rounding_of_another_machine_passes(store, baseline, tmp_path):
    for sign in (-1, 1):
        rounded = changed(
            store, tmp_path / str(sign), lambda v, sign=sign: v + 1e-3 * RNG.standard_normal(len(v)) + 1e-3 * sign
        )
        assert verdicts(check(rounded, baseline)) == dict.fromkeys(SOLVERS, "pass")


def test_a_worse_sampler_fails_and_a_better_one_does_not(store, baseline, tmp_path):
    worse = check(changed(store, tmp_path / "worse", lambda v: v - 0.4 - 0.2 * RNG.random(len(v))), baseline)
    assert verdicts(worse) == {"heun": "pass", "dpmpp-2m": "regression", "unipc": "pass"}
    assert exit_code(worse) == 1
    (finding,) = [one for one in worse if one.verdict == "regression"]
    assert finding.change.low < -0.5 < finding.change.high < 0
    assert finding.allowed < 0.4
    assert finding.p < 1e-6
    improved = changed(store, tmp_path / "better", lambda v: v + 0.4 + 0.2 * RNG.random(len(v)))
    better = check(improved, baseline)
    assert verdicts(better) == {"heun": "pass", "dpmpp-2m": "improvement", "unipc": "pass"}
    assert exit_code(better) == 0
    strict = check(improved, baseline, strict=True)
    assert verdicts(strict) == {"heun": "pass", "dpmpp-2m": "change", "unipc": "pass"}
    assert exit_code(strict) == 1
    assert ElementTree.fromstring(to_junit(strict)).get("failures") == "1"


def test_a_coefficient_off_by_one_per_cent_is_caught(run, baseline, tmp_path, monkeypatch):
    right = dpm_solver_multistep.adams_half
    monkeypatch.setattr(dpm_solver_multistep, "adams_half", lambda b: right(lambda h: 1.01 * b(h)))
    findings = check(run(tmp_path / "store", solver=("heun", "dpmpp-2m"), seed=0), baseline)
    assert verdicts(findings) == {"heun": "pass", "dpmpp-2m": "regression", "unipc": "not comparable"}


def test_another_seed_is_an_independent_sample(run, baseline, tmp_path):
    findings = check(run(tmp_path / "store", seed=7), baseline)
    assert verdicts(findings) == dict.fromkeys(SOLVERS, "pass")
    same = check(run(tmp_path / "same", seeds=2), baseline)
    for one, paired in zip(findings, same, strict=True):
        assert one.change.value != 0 == paired.change.value  # of seeds 0 and 1, seed 0 is the baseline's
        assert one.allowed > 10 * paired.allowed


@pytest.mark.parametrize(("shifts", "verdict"), [((0.5, 0.5), "regression"), ((0.6, 0.1), "pass")])
def test_two_seeds_that_differ_make_nothing_sure(shifts, verdict, run, tmp_path):
    before, now = run(tmp_path / "before", solver="dpmpp-2m", seeds=2), Store(tmp_path / "now")
    for row, shift in zip(before.rows(), shifts, strict=True):
        values = before.per_sample(row.cell)["psnr"] - shift - 0.01 * RNG.random(row.samples)
        metrics = row.metrics | {"psnr": float(values.mean())}
        now.finish(row.model_copy(update={"metrics": metrics}), {"psnr": values})
    assert verdicts(check(now, baseline_of(before))) == {"dpmpp-2m": verdict}


def test_what_is_not_comparable_is_named(run, store, baseline, tmp_path):
    (row, *_) = store.rows()
    for number, (facts, told) in enumerate([
        ({"checkpoint_sha256": "f" * 64}, "checkpoint_sha256 is not given in the baseline and ffffffffffff... in the"),
        ({"precision": "bf16"}, "precision is 'float32' in the baseline and 'bf16' in the store"),
        ({"nfe": 11}, "nfe is '10' in the baseline and '11' in the store"),
        ({"protocol": row.protocol | {"psnr reference": "coarse"}}, "and 'coarse' in the store"),
        ({"model": "other"}, "the store has no such cell"),
    ]):  # fmt: skip
        findings = check(changed(store, tmp_path / str(number), **facts), baseline)
        assert verdicts(findings) == dict.fromkeys(SOLVERS, "not comparable")
        assert all(told in finding.why for finding in findings)
        assert all(finding.now is None for finding in findings)
        assert exit_code(findings) == 2
    findings = check(run(tmp_path / "count", samples=100), baseline)
    assert {finding.why for finding in findings} == {"samples is '200' in the baseline and '100' in the store"}


def test_a_regression_counts_more_than_what_is_not_comparable(store, baseline, tmp_path):
    worse = changed(store, tmp_path, lambda v: v - 1)
    next(file for file in (tmp_path / "rows").iterdir() if '"heun"' in file.read_text()).unlink()
    findings = check(worse, baseline)
    assert verdicts(findings) == {"heun": "not comparable", "dpmpp-2m": "regression", "unipc": "pass"}
    assert exit_code(findings) == 1
    assert outcome(findings) == "Failed: 1 worse, 1 not comparable, 1 unchanged."


def test_a_moved_reference_is_told_from_a_worse_solver(run, baseline, tmp_path, monkeypatch):
    monkeypatch.setattr(integrator, "CORRECTOR", integrator.CORRECTOR | {2: (0.505, 0.5)})
    findings = check(run(tmp_path / "store"), baseline)
    assert verdicts(findings) == dict.fromkeys(SOLVERS, "reference moved")
    assert exit_code(findings) == 2
    assert outcome(findings) == "Not comparable: 0 worse, 3 not judged because the reference moved."
    assert all("the integrator of the reference solutions is" in one.why for one in findings)
    (case, *_) = ElementTree.fromstring(to_junit(findings)).iter("error")
    assert case.get("type") == "reference moved"


def test_solutions_that_moved_with_the_same_integrator_are_told_too(store, baseline, tmp_path):
    row = store.rows()[0]
    name, *numbers = row.protocol[FINGERPRINT].split()

    def gate(folder, shift):
        text = " ".join([name, *(f"{float(value) + shift:.5f}" for value in numbers)])
        return check(changed(store, tmp_path / folder, protocol=row.protocol | {FINGERPRINT: text}), baseline)

    assert exit_code(gate("rounding", 2e-5)) == 0
    findings = gate("moved", 1e-3)
    assert verdicts(findings) == dict.fromkeys(SOLVERS, "reference moved")
    assert "0.001 (root mean square) from those of the baseline" in findings[0].why
    assert exit_code(findings) == 2


def test_a_fingerprint_moves_as_the_solutions_do(tmp_path):
    mine = reference_for(open_model("gmm2d"), 0, Protocol(precision="float64"), "cpu")
    x = torch.randn(64, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    prints = []
    for size in (0.0, 1e-6, 1e-2):
        noise = torch.randn(64, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        solved = replace(mine, folder=tmp_path / str(size))
        solved.folder.mkdir()
        np.savez(solved.folder / "0.npz", x=(x + size * noise).numpy(), denoised=x.numpy())
        prints.append(solved.fingerprint(None))
    assert not moved(prints[0], prints[1], same_noise=True)
    assert moved(prints[0], prints[2], same_noise=True)
    assert not moved(prints[0], prints[2], same_noise=False)  # of another seed nothing is known


def test_one_solver_off_by_a_per_cent_is_the_only_verdict_that_changes(run, store, baseline, tmp_path, monkeypatch):
    right = dpm_solver_multistep.adams_half
    monkeypatch.setattr(dpm_solver_multistep, "adams_half", lambda b: right(lambda h: 1.01 * b(h)))
    wrong = run(tmp_path / "store")
    found = verdicts(check(wrong, baseline, strict=True))
    assert found.pop("dpmpp-2m") in ("regression", "change")
    assert set(found.values()) == {"pass"}
    before, after = ({row.solver: row.metrics for row in one.rows()} for one in (store, wrong))
    assert all(before[name] == after[name] for name in SOLVERS if name != "dpmpp-2m")


def test_beyond_the_accuracy_of_the_reference_nothing_is_worse(store, tmp_path):
    bound = store.rows()[0].metrics["psnr_reference"]
    far = changed(store, tmp_path / "far", lambda v: v - v.mean() + bound + 9)
    near = changed(store, tmp_path / "near", lambda v: v - v.mean() + bound + 1)
    below = changed(store, tmp_path / "below", lambda v: v - v.mean() + bound - 5)
    findings = check(near, baseline_of(far))
    assert verdicts(findings)["dpmpp-2m"] == "pass"
    assert "nearer to the reference" in next(one.why for one in findings if "dpmpp-2m" in one.cell)
    assert verdicts(check(below, baseline_of(far)))["dpmpp-2m"] == "regression"


def test_reports(store, baseline, tmp_path):
    worse = changed(store, tmp_path, lambda v: v - 1)
    next(file for file in (tmp_path / "rows").iterdir() if '"heun"' in file.read_text()).unlink()
    findings = check(worse, baseline)
    lines = write(sheet_of(findings), "markdown").splitlines()
    assert lines[0] == "Failed: 1 worse, 1 not comparable, 1 unchanged."
    assert [line.split(" | ")[0] for line in lines if line.startswith("| ")] == [
        "| verdict", "| ---", "| regression", "| pass",
    ]  # fmt: skip
    assert any("the store has no such cell" in line for line in lines)
    suite = ElementTree.fromstring(to_junit(findings))
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "1")
    cases = {case.get("classname").split()[1]: case for case in suite}
    assert "moved by more than the" in cases["dpmpp-2m"].find("failure").get("message")
    assert cases["heun"].find("error").get("message") == "the store has no such cell"
    assert cases["unipc"].find("failure") is cases["unipc"].find("error") is None


def test_a_mixed_store_makes_no_baseline(run, store, tmp_path):
    mixed = changed(store, tmp_path)
    run(tmp_path, samples=100, solver=("euler",))
    with pytest.raises(BaselineError, match="mixed store: psnr: samples is '200' in one row and '100' in another"):
        baseline_of(mixed)
    with pytest.raises(BaselineError, match="holds no number"):
        baseline_of(Store(tmp_path / "empty"))


def test_files_that_are_no_baselines_are_refused(baseline, tmp_path):
    file = tmp_path / "baseline.json"
    good = json.loads(baseline.model_dump_json())
    with pytest.raises(BaselineError, match=r"cannot read .*baseline.json: No such file"):
        Baseline.read(file)

    def broken(change):
        facts = json.loads(json.dumps(good))
        change(facts)
        return json.dumps(facts)

    def figure(facts):
        return facts["cells"][0]["metrics"]["psnr"]

    for text, told in [
        ("{", "Invalid JSON"),
        (broken(lambda facts: facts.update(version=2)), "version: Input should be 1"),
        (broken(lambda facts: facts.update(format="other")), "format"),
        (broken(lambda facts: facts.update(extra=1)), "extra: Extra inputs"),
        (broken(lambda facts: facts.update(cells=[])), "cells"),
        (broken(lambda facts: figure(facts).update(influence="AAAA")), "not those of 200 samples"),
        (broken(lambda facts: figure(facts).update(influence="?")), "cells.0"),
        (broken(lambda facts: figure(facts).update(value="high")), "value"),
        (broken(lambda facts: figure(facts).update(standard_error=-1)), "standard_error"),
    ]:
        file.write_text(text)
        with pytest.raises(BaselineError, match=f"is no baseline that this version reads: .*{told}"):
            Baseline.read(file)


def test_the_projects_own_baseline_is_of_the_embedded_models():
    baseline = Baseline.read(ROOT / "results" / "baselines" / "embedded.json")
    assert {entry.model for entry in baseline.cells} == {"cifar10-tiny-vp", "cifar10-tiny-flow"}
    for entry in baseline.cells:
        assert entry.facts["checkpoint_sha256"] == open_model(entry.model).sha256
        assert len(entry.metrics) == 2


@pytest.mark.slow  # three times PyTorch is imported
def test_the_example_workflow_runs(tmp_path):
    """Every step of docs/workflows/fastsample.yml that runs fastsample, on a small exact model."""
    yaml = pytest.importorskip("yaml")
    workflow = yaml.safe_load((ROOT / "docs" / "workflows" / "fastsample.yml").read_text("utf-8"))
    small = {"MODEL": "gmm-image", "SOLVERS": "dpmpp-2m,unipc", "SAMPLES": "16", "NFE": "6", "METRICS": "psnr"}
    summary = tmp_path / "summary.md"
    settings = workflow["env"] | small | {"GITHUB_STEP_SUMMARY": str(summary)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {name: str(value) for name, value in settings.items()} | {"PATH": path}

    def shell(command):
        words = ["bash", "-e", "-o", "pipefail", "-c", command]
        return subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    sample, check = (step["run"] for step in workflow["jobs"]["check"]["steps"] if "fastsample " in step.get("run", ""))
    made = shell(sample)
    assert made.returncode == 0, made.stderr
    made = shell('fastsample baseline store -o "$BASELINE"')
    assert made.returncode == 0, made.stderr
    passed = shell(check)
    assert passed.returncode == 0, passed.stderr + passed.stdout
    assert "Passed: 0 worse, 2 unchanged." in summary.read_text()
    assert ElementTree.parse(tmp_path / "check.xml").getroot().get("tests") == "2"
