"""Runs a page of the documentation, block by block, in the folder that it is called in: run_page.py docs/PAGE.md.

Commands run as they stand but for their amounts (samples, training images, pairs), which are cut to what a test can
wait for, and for --compile. Python runs as it stands; where a block of text follows, that is what it prints, to the
last digits but two.
"""

import contextlib
import glob
import io
import re
import sys

import conftest
import pytest
from command import command
from pages import Block, blocks, commands

from fastsample.bench.learning import training
from fastsample.datasets.image_set import ImageDataset

# Option -> the most that is given, by command.
_MOST = {
    "bench": {"--samples": 8}, "sample": {"--samples": 8}, "score": {"--samples": 8}, "encode": {"--samples": 8},
    "find": {"--samples": 8}, "distill": {"--train": 32, "--validation": 32, "--steps": 1},
    "flow": {"--images": 128}, "curvature": {"--images": 128}, "reflow": {"--images": 128},
}  # fmt: skip
_PAIRS, _IMAGES = 1024, 512
_NUMBER = re.compile(r"-?\d+\.\d+")


def small(words: list[str]) -> list[str]:
    """The words of a command with its amounts cut."""
    given = [word for word in words if word != "--compile"]
    for option, most in _MOST.get(words[1] if words[0] == "train" else words[0], {}).items():
        if option in given:
            place = given.index(option) + 1
            given[place] = str(min(int(given[place]), most))
        else:
            given += [option, str(most)]
    return given


def cut() -> None:
    """Reference solutions, data sets and pairs of a test's size."""
    conftest.coarsen(setattr, nfe=40)  # so that 30 dB are reached
    ImageDataset.loaded = lambda self: ImageDataset(self.name, self.split, self.images[:_IMAGES], self.labels[:_IMAGES])
    make = training.make_pairs

    def few(recipe, *given, **named):
        fewer = recipe.coupling.model_copy(update={"count": min(recipe.coupling.count, _PAIRS)})
        return make(recipe.model_copy(update={"coupling": fewer}), *given, **named)

    training.make_pairs = few


def expanded(word: str) -> list[str]:
    """The files that a word with a star means, as a shell has it."""
    return sorted(glob.glob(word)) or [word] if "*" in word else [word]  # noqa: PTH207 - as a shell


def run(block: Block) -> None:
    for program, *words in commands(block):
        if program != "fastsample":
            continue
        words = [name for word in small(words) for name in expanded(word)]
        print(f"{block}: fastsample {' '.join(words)}", flush=True)
        if code := command(*words).code:
            sys.exit(f"{block}: exit code {code}")


def numbers(text: str) -> list[float]:
    return [float(number) for number in _NUMBER.findall(text)]


def execute(block: Block, told: str | None, names: dict[str, object]) -> None:
    print(f"{block}: python", flush=True)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(block.text, str(block), "exec"), names)
    print(printed.getvalue())
    if told is not None:
        assert _NUMBER.sub("", printed.getvalue()).split() == _NUMBER.sub("", told).split(), f"{block}: other words"
        assert numbers(printed.getvalue()) == pytest.approx(numbers(told), rel=2e-3, abs=2e-4)


def main(page: str) -> None:
    cut()
    sys.path.insert(0, "")
    names: dict[str, object] = {"__name__": "page"}
    found = blocks(page)
    for block, after in zip(found, [*found[1:], None], strict=True):
        if block.mark:
            continue
        if block.language == "python":
            execute(block, after.text if after and after.language == "text" else None, names)
        elif not block.language:
            run(block)


if __name__ == "__main__":
    main(sys.argv[1])
