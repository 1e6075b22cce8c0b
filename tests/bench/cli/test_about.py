"""What the tool says of itself: version, what is here, what to cite, names to complete; and what cannot be written."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fastsample.bench.cli.about import completion
from fastsample.bench.installation import code
from fastsample.models.catalogue import model_names
from fastsample.models.public.cards import cards
from fastsample.results.papers.bibtex import titles
from fastsample.results.store import Store
from fastsample.solvers.learned.kinds import LEARNED
from fastsample.solvers.own import all_solvers

ROOT = Path(__file__).parents[3]
FEW = ("bench", "--model", "gmm2d", "--nfe", 4, "--samples", 4, "--metrics", "psnr")


def git(folder, *words):
    given = os.environ | {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return subprocess.run(["git", *words], cwd=folder, env=given, check=True, capture_output=True, text=True).stdout


def test_the_commit_of_a_clone_and_whether_it_is_changed(tmp_path):
    (tmp_path / "a.py").write_text("1")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "one")
    digits = git(tmp_path, "rev-parse", "HEAD")[:12]
    assert code._of_git(tmp_path) == digits
    (tmp_path / "a.py").write_text("2")
    assert code._of_git(tmp_path) == f"{digits}+changed"
    (tmp_path / ".git" / "HEAD").unlink()  # what git cannot read is not known
    assert code._of_git(tmp_path) == ""


def test_the_commit_that_an_installer_noted(tmp_path, monkeypatch):
    """As pip writes it for an address with a commit, beside the metadata of the package."""
    facts = tmp_path / "fastsample-9.9.9.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: fastsample\nVersion: 9.9.9\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert code._of_installer() == ""
    noted = {"url": "https://example.org/fastsample.git", "vcs_info": {"vcs": "git", "commit_id": "0123456789abcdef"}}
    (facts / "direct_url.json").write_text(json.dumps(noted))
    assert code._of_installer() == "0123456789ab"


@pytest.mark.skipif(not (ROOT / ".git").exists() or not shutil.which("git"), reason="no clone")
def test_version_and_rows_tell_the_commit(command, tmp_path):
    digits = git(ROOT, "rev-parse", "HEAD")[:12]
    ended, out, _ = command("--version")
    assert ended == 0
    assert re.fullmatch(rf"fastsample \d+\.\d+\.\d+, commit {digits}(\+changed)?\n", out)
    command(*FEW, "--solver", "euler", "--out", tmp_path / "one")
    (row,) = Store(tmp_path / "one", create=False).rows()
    assert row.versions["commit"].startswith(digits)


def test_rows_of_two_commits_are_one_cell_and_compared(command, tmp_path, monkeypatch):
    """The commit decides no number: it is in no identity, and parts no rows in a table."""
    from fastsample.bench import run

    store = tmp_path / "store"
    for commit, solver in (("a" * 12, "euler"), ("b" * 12, "euler,heun"), ("", "euler,heun,ddim")):
        monkeypatch.setattr(run, "commit", lambda commit=commit: commit)
        assert command(*FEW, "--solver", solver, "--out", store)[0] == 0
    rows = Store(store, create=False).rows()
    assert sorted((row.solver, row.versions.get("commit", "")) for row in rows) == [
        ("ddim", ""), ("euler", "a" * 12), ("heun", "b" * 12)
    ]  # fmt: skip
    ended, out, err = command("table", store)
    assert ended == 0
    assert "not compar" not in out + err


def test_the_doctor_says_what_is_here_and_what_each_gives(command, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    ended, out, _ = command("doctor", "--format", "json")
    assert ended == 0
    found = {(one["group"], one["name"]): one for one in json.loads(out)}
    inception = found["weights", "inception-v3-compat"]
    assert inception["here"] is False
    assert {"fid", "fid-inf", "sfid"} <= {*inception["gives"].split(", ")}
    assert "weights-inception-2015-12-05-6726825d.pth" in inception["wanted"]
    assert str(tmp_path / "hub") in inception["wanted"]
    assert "lpips" in found["weights", "lpips-vgg16"]["gives"]
    assert str(tmp_path / "home") in found["cache", "FASTSAMPLE_HOME"]["told"]
    assert {name for group, name in found if group == "extras"} == {"efficientnet", "lsun", "diffusers", "ray"}
    assert found["models", "published"]["told"].startswith("0 of ")
    # Weights that are there, and a cache with something in it.
    file = tmp_path / "hub" / "hub" / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    (tmp_path / "home").mkdir(exist_ok=True)
    (tmp_path / "home" / "some").write_bytes(bytes(2_500_000))
    found = {(one["group"], one["name"]): one for one in json.loads(command("doctor", "--format", "json")[1])}
    assert found["weights", "inception-v3-compat"]["here"] is True
    assert "2.5 MB in 1 files" in found["cache", "FASTSAMPLE_HOME"]["told"]
    ended, out, _ = command("doctor")
    assert ended == 0
    assert all(word in out for word in ("torch", "missing", "fid, fid-inf", "FASTSAMPLE_HOME"))
    assert not [line for line in out.splitlines() if line != line.rstrip()]


def test_what_to_cite(command, tmp_path):
    ended, out, _ = command("cite", "scire:order=2@karras", "edm-cifar10-uncond-vp")
    assert ended == 0
    assert re.findall(r"@misc\{arxiv:([\d.]+),", out) == ["2308.07896", "2206.00364"]
    assert "title = {{Elucidating the Design Space of Diffusion-Based Generative Models}}" in out
    command(*FEW, "--solver", "euler,dopri5", "--out", tmp_path / "store")
    ended, out, _ = command("cite", tmp_path / "store")
    assert re.findall(r"@(\w+)\{", out) == ["software", "misc", "misc"]
    assert "doi = {10.1016/0771-050X(80)90013-3}" in out
    assert out.count("{") == out.count("}")
    ended, _, err = command("cite", "scir")
    assert (ended, "scire" in err) == (2, True)


def test_every_paper_of_the_registries_has_a_title():
    papers = {solver.paper for solver in all_solvers().values()} | {kind.paper for kind in LEARNED.values()}
    papers |= {paper for card in cards().values() for paper in card.papers}
    assert papers - {*titles()} - {""} == set()


@pytest.mark.parametrize(
    ("function", "typed", "offered"),
    [
        ("models", "cifar10-tiny-v", "cifar10-tiny-vp"),
        ("models", "gmm2d,edm-cifar10-uncond-v", "gmm2d,edm-cifar10-uncond-vp"),
        ("solvers", "scire:order=3,uni", "scire:order=3,unipc"),
        ("solvers", "scire@kar", "scire@karras"),
        ("grids", "logs", "logsnr"),
        ("metrics", "psnr,fi", "psnr,fid"),
        ("datasets", "cifar10-j", "cifar10-jpeg"),
    ],
)
def test_a_name_is_completed_behind_the_last_comma(function, typed, offered):
    assert offered in getattr(completion, function)(typed)


def test_all_models_are_offered():
    assert {*completion.models("")} == {*model_names(), *cards()}


def test_a_shell_completes_a_model_without_torch(tmp_path):
    """As bash asks: through the command, with what stands on the line."""
    line = "fastsample bench --model cifar10-tiny-v"
    given = os.environ | {"_FASTSAMPLE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": "3"}
    code = "import sys; sys.argv[:] = ['fastsample']; from fastsample.bench.cli.app import main\n"
    code += "try: main()\nfinally: assert 'torch' not in sys.modules"
    ended = subprocess.run([sys.executable, "-c", code], env=given, capture_output=True, text=True, check=False)
    assert ended.stdout.split() == ["cifar10-tiny-vp"], ended.stderr
    assert "Assertion" not in ended.stderr


def test_the_list_of_models_has_their_facts_and_those_of_one_data_set(command):
    ended, out, _ = command("list", "models")
    assert ended == 0
    lines = [line.replace("│", " ").split() for line in out.splitlines()]
    facts = [word for name, *words in filter(None, lines) if name == "edm-cifar10-uncond-vp" for word in words]
    assert facts == ["edm", "3x32x32", "cifar10", "1.97", "223", "CC-BY-NC-SA-4.0"]
    assert all(name in out for name in model_names())
    celeba = command("list", "models", "--data", "celeba")[1]
    assert "ddim-celeba64" in celeba
    assert "cifar10" not in celeba
    assert command("list", "models", "--data", "nothing")[0] == 2


WRITES = {
    "table": ("table", "store", "-o"),
    "show": ("show", "store", "-o"),
    "published": ("published", "-o"),
    "audit": ("audit", "-o"),
    "sample": ("sample", "-o"),
    "plot": ("plot", "store", "-o"),
    "report": ("report", "store", "-o"),
    "baseline": ("baseline", "store", "-o"),
    "summary": ("check", "store", "--baseline", "b.json", "--summary"),
    "junit": ("check", "store", "--baseline", "b.json", "--junit"),
    "encode": ("encode", "-o"),
    "reference": ("reference", "make", "folder:images", "-o"),
    "picture": ("verify", "--picture"),
}


@pytest.mark.parametrize("words", WRITES.values(), ids=WRITES)
def test_a_file_that_cannot_be_written_is_told_before_anything_is_done(command, tmp_path, words, monkeypatch):
    monkeypatch.chdir(tmp_path)  # there is neither a store nor a folder of images here: nothing was looked at
    ended, out, err = command(*words, "no/where/file.png")
    assert (ended, out) == (2, "")
    assert err == f"error: cannot write no/where/file.png: there is no folder {tmp_path / 'no'}\n"
    (tmp_path / "file").touch()
    assert "cannot write file/file.png" in command(*words, "file/file.png")[2]
    (tmp_path / "folder").mkdir()
    assert "it is a folder" in command(*words, "folder")[2]


def test_a_folder_that_alone_is_missing_is_made_with_the_file(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command("published", "--dataset", "cifar10", "--nfe", 10, "-o", "new/table.md")[0] == 0
    assert (tmp_path / "new" / "table.md").is_file()
    assert "there is no folder" not in command("verify", "--solver", "none-such", "--picture", "other/file.png")[2]
    assert not (tmp_path / "other").exists()  # of a command that wrote nothing


@pytest.mark.parametrize(
    "words",
    [
        ("bench", "--model", "edm-cifar10-uncond-vp", "--out", "file/store"),
        ("train", "flow", "gauss8-flow", "--out", "file/run"),
        ("train", "classifier", "cifar10-resnet", "--out", "file/run"),
        ("score", "images", "--name", "x", "--nfe", 1, "--model", "edm-cifar10-uncond-vp", "--out", "file/store"),
    ],
    ids=lambda words: words[0],
)
def test_a_folder_that_cannot_be_made_is_told_before_anything_is_done(command, tmp_path, words, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    ended, out, err = command(*words)
    assert (ended, out) == (2, "")
    assert err.startswith("error: cannot write to the output folder file/")
