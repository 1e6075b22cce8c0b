import pytest

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
        ({"nfe": (0,)}, "NFE must be at least 1"),
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
    with pytest.raises(RequestError, match=r"unknown key 'solvers'.*known: model, solver"):
        read_request(file)
