"""Every page of the documentation: its commands are commands, its code runs, its site builds."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from fastsample.bench.cli.app import app
from fastsample.bench.cli.model_page import model_page

from . import pages
from .pages import PAGES, ROOT, blocks, commands, spoken
from .pipelines import saved

COMMAND = get_command(app)
UsageError = typer.BadParameter.__base__  # of click, or of typer's own copy of it
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
ROOMS = ("bench", "datasets", "docs", "models", "results", "solvers")


def ours(block):
    """Whether a block is run: Python, or commands of fastsample."""
    python, shell = block.language == "python", not block.language
    return not block.mark and (python or (shell and any(words[0] == "fastsample" for words in commands(block))))


RUN = [page for page in PAGES if any(map(ours, blocks(page)))]
FAST = {"docs/python.md", "docs/own.md"}


def parsed(words):
    """Read the words as the command line does, down to the last option, without doing anything."""
    group, words, context = COMMAND, list(words), None
    name = "fastsample"
    while True:
        with pytest.MonkeyPatch.context() as patch:  # a folder to write into is made by the page's earlier commands
            patch.setattr("fastsample.bench.cli.words.check_file", lambda file: None)
            context = group.make_context(name, words, parent=context)
        if not hasattr(group, "resolve_command"):
            return
        name, group, words = group.resolve_command(context, [*context._protected_args, *context.args])


def check(program, words):
    """Raise or fail where a command of a page is none."""
    if program == "fastsample":
        parsed(words)
    elif program in ("cd", "python"):
        assert any((folder / words[0]).exists() for folder in (ROOT, ROOT / "docs"))
    elif program == "make":
        assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text("utf-8"), re.M), f"make {words[0]}"
    elif program == "pip":
        assert words[0] == "install"
        for extra in re.findall(r"(?:fastsample|\.)\[(\w+)\]", " ".join(words)):
            assert extra in PROJECT["project"]["optional-dependencies"]
    else:
        pytest.fail(f"{program!r} begins no command: a block of what is printed is `text`")


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_are_what_they_say(page):
    for block in blocks(page):
        assert block.language in ("", "python", "text", "toml", "yaml"), f"{block}: {block.language}"
        if block.language == "python":
            compile(block.text, str(block), "exec")
        elif block.language == "toml":
            tomllib.loads(block.text)
        elif not block.language:
            for program, *words in commands(block):
                try:
                    check(program, words)
                except UsageError as error:
                    pytest.fail(f"{block}: {shlex.join([program, *words])}: {error.format_message()}")


@pytest.mark.parametrize("page", PAGES)
def test_the_options_that_prose_names_are_there(page):
    """Words that stand for something (STORE, FILE.py:NAME, N) may be no values; what is left out may be needed."""
    for text in spoken(page):
        try:
            program, *words = shlex.split(text)
        except ValueError:  # no words of a shell
            continue
        if program != "fastsample":
            if program not in COMMAND.commands or not any(word.startswith("--") for word in words):
                continue
            words = [program, *words]
        try:
            parsed(words)
        except typer.Exit:  # --help
            continue
        except UsageError as error:
            told = error.format_message()
            assert not told.startswith(("No such option", "No such command")), f"{page}: `{text}`: {told}"


def test_a_page_that_is_wrong_is_seen(tmp_path, monkeypatch):
    for words in (["bench", "--solvr", "scire"], ["bnch"], ["distill"], ["train", "flow", "a", "b"]):
        with pytest.raises(UsageError):
            parsed(words)
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    for text in ("```\nfastsample bench\n", "<!-- not run: far off -->\n\n```\nfastsample bench\n```\n"):
        (tmp_path / "page.md").write_text(text)
        with pytest.raises(ValueError, match=r"page\.md has a block that does not end"):
            blocks("page.md")


@pytest.fixture
def clone(tmp_path):
    """A copy of the packages and pages, and the environment in which it is the `fastsample` that is imported."""
    folder = tmp_path / "clone"
    folder.mkdir()
    for name in ROOMS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("__init__.py", "__main__.py"):
        shutil.copy(ROOT / name, folder)
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "fastsample").symlink_to(folder)
    home = {"FASTSAMPLE_HOME": str(tmp_path / "home"), "PYTHONPATH": str(tmp_path / "path"), "COLUMNS": "80"}
    return folder, os.environ | home | {"PYTHONDONTWRITEBYTECODE": "1"}


def pipelines(folder):
    for name, called in (("sd1", "sd15"), ("flux", "flux"), ("ddpm", "ddpm")):
        saved(name, folder / "made")[1].rename(folder / called)
    (folder / "prompts.txt").write_text("a boat\ntwo dogs\n", "utf-8")


BEFORE = {"docs/diffusers.md": pipelines}  # what a user of the page has
TOLD = {  # what is added is there by its file alone
    "docs/extend.md": (
        "Adams-Bashforth 3", "│ power", "share of values beyond [-1, 1]", "64 boards 8x8 of random squares", "my-flow"
    ),
    "docs/own.md": ("mine.py:step", "mine.py:roughness"),
    "docs/export.md": ("my-2m", "k-euler"),
}  # fmt: skip


@pytest.mark.parametrize("page", [pytest.param(page, marks=() if page in FAST else pytest.mark.slow) for page in RUN])
def test_a_page_runs(page, clone):
    folder, environment = clone
    for block in blocks(page):
        if block.mark == "file":
            (folder / block.said).write_text(block.text, "utf-8")
    BEFORE.get(page, lambda _: None)(folder)
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "run_page.py", page], cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=3600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:]
    assert [block for block in blocks(page) if ours(block) and f"{block}: " not in done.stdout] == []
    for told in TOLD.get(page, ()):
        assert told in done.stdout


def test_the_page_of_models_is_what_the_code_says():
    assert (ROOT / "docs" / "models.md").read_text("utf-8") == model_page()


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_loads_nothing(tmp_path):
    pytest.importorskip("mkdocs")
    for name in ("docs", "mkdocs.yml"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / ".ns" / "fastsample").mkdir(parents=True)
    for name in ("__init__.py", *(set(ROOMS) - {"docs"})):
        (tmp_path / ".ns" / "fastsample" / name).symlink_to(ROOT / name)
    words, quiet = [sys.executable, "-m", "mkdocs", "build", "--strict"], {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(words, cwd=tmp_path, env=os.environ | quiet, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = sorted((tmp_path / "site").glob("*.html"))
    assert {page.stem for page in made} >= {Path(page).stem for page in PAGES if page.startswith("docs/")}
    loaded = re.compile(r'(?:src="|<link [^>]*href="|url\()(?:https?:)?//[^")]*')
    for file in [*made, *(tmp_path / "site").rglob("*.css")]:
        assert loaded.findall(file.read_text("utf-8")) == [], file


def test_the_image_copies_what_is_there():
    """No daemon is needed to see that the Dockerfile's files exist and get past .dockerignore, and what it installs."""
    text = (ROOT / "Dockerfile").read_text("utf-8")
    steps = [line.split(maxsplit=1) for line in text.replace("\\\n", " ").splitlines() if line and line[0] != "#"]
    known = {"FROM", "ARG", "RUN", "WORKDIR", "COPY", "ENV", "ENTRYPOINT"}
    assert {step for step, _ in steps} <= known
    copied = [word for step, words in steps if step == "COPY" for word in words.split()[:-1]]
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    for name in copied:
        assert (ROOT / name).exists()
        assert name in kept or any(Path(name).match(pattern) for pattern in kept), f"{name} is ignored"
    needed = {folder.partition("/")[0] for folder in PROJECT["tool"]["setuptools"]["package-dir"].values()} - {"."}
    needed |= {PROJECT["project"]["readme"], *PROJECT["project"]["license-files"], "pyproject.toml", "__init__.py"}
    assert needed <= {*copied}
    base = next(words for step, words in steps if step == "FROM")
    assert re.fullmatch(r"python:3\.1[123]-slim", base)
    assert steps[-1] == ["ENTRYPOINT", '["fastsample"]']


@pytest.mark.slow
def test_it_installs_from_an_address(tmp_path):
    """The form of the install line, with the repository's own folder as its address: a wheel with everything."""
    if not (ROOT / ".git").exists():
        pytest.skip("no repository")
    address = f"fastsample[ray] @ git+file://localhost{ROOT}"
    words = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, address]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True)
    (wheel,) = tmp_path.glob("fastsample-*.whl")
    listed = subprocess.run([sys.executable, "-m", "zipfile", "-l", wheel], capture_output=True, text=True, check=True)
    for name in ("datasets/data/cifar10_jpeg_train.npz", "models/embedded/", "bench/cli/app.py", "__init__.py"):
        assert f"fastsample/{name}" in listed.stdout
