import pytest
from typer.testing import CliRunner

from fastsample.bench.cli.app import app
from fastsample.bench.learning.distillation import TRAIN_SEED, VALIDATION_SEED
from fastsample.bench.request import RequestError, read_request


def test_a_file_and_the_command_line(tmp_path):
    file = tmp_path / "sweep.toml"
    file.write_text('model = "gmm2d"\nsolver = ["heun", "euler"]\nnfe = [5, 10]\nsamples = 64\n')
    request = read_request(file, samples=32, seed=None)
    assert request.model == ("gmm2d",)
    assert request.solver == ("heun", "euler")
    assert request.nfe == (5, 10)
    assert (request.samples, request.seed) == (32, 0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"nfe": (0,)}, "nfe takes whole numbers from 1 to 10000, not 0"),
        ({"nfe": ("ten",)}, "nfe"),
        ({"samples": 1}, "samples"),
        ({"precision": "float8"}, "precision"),
    ],
)
def test_bad_values_are_named(values, message):
    with pytest.raises(RequestError, match=message):
        read_request(None, **values)


def test_bad_files_are_named(tmp_path):
    with pytest.raises(RequestError, match="cannot read"):
        read_request(tmp_path / "absent.toml")
    file = tmp_path / "bad.toml"
    file.write_text("nfe = [")
    with pytest.raises(RequestError, match="not TOML"):
        read_request(file)
    file.write_text("solvers = 'heun'")
    with pytest.raises(RequestError, match=r"unknown key 'solvers'.*known: .*model, solver"):
        read_request(file)


@pytest.mark.parametrize(
    ("seed", "seeds"), [(2**31 - 1, 3), (2**31 - 3, 4), (0, 2**31 + 1), (2**31, 1), (-1, 1), (1, 2**63)]
)
def test_no_repeat_has_a_seed_of_distillation(seed, seeds, tmp_path):
    with pytest.raises(RequestError, match="seed"):
        read_request(None, seed=seed, seeds=seeds)
    words = ["bench", "--model", "gmm2d", "--seed", str(seed), "--seeds", str(seeds), "--out", str(tmp_path / "store")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code != 0
    assert "seed" in str(result.exception) + result.output
    assert not (tmp_path / "store").exists()


def test_the_last_seeds_are_below():
    asked = read_request(None, seed=2**31 - 3, seeds=3)
    assert asked.seed + asked.seeds == 2**31 <= min(TRAIN_SEED, VALIDATION_SEED)


@pytest.mark.parametrize("seed", [-1, 2**31, 2**64])
@pytest.mark.parametrize(
    "words",
    [
        ["train", "flow", "gauss8-flow"],
        ["train", "reflow", "gauss8-reflow"],
        ["distill", "bns", "--model", "gmm2d-flow", "--nfe", "4"],
        ["sample", "--model", "gmm2d-flow", "--samples", "2"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_seeds_of_every_command_are_below(words, seed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, [*words, "--seed", str(seed)])
    assert result.exit_code != 0
    assert "seed" in str(result.exception) + result.output
    assert not list(tmp_path.glob("[!h]*"))
