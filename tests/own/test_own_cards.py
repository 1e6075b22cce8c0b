"""A card of a TOML file whose network is a class of one's own: `name = "module:Class"`."""

import pytest
import torch

from fastsample.results.store import Store

from ..cards import write_card

NETWORK = '''
import torch


class Scaled(torch.nn.Module):
    """The exact velocity of N(0, variance) on the linear path, of times 0..1000."""

    def __init__(self, variance, note=None):
        super().__init__()
        assert note is None
        self.variance = torch.nn.Parameter(torch.tensor(variance))

    def forward(self, x, time):
        t = time.reshape(-1, 1, 1, 1) / 1000
        return (t * self.variance - (1 - t)) / (t**2 * self.variance + (1 - t) ** 2) * x


class Number:
    def __init__(self, **config):
        pass
'''


@pytest.fixture
def card(tmp_path, monkeypatch):
    """Writes FILE.toml of a class with its configuration, beside the file of weights and the module."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lab_cards.py").write_text(NETWORK, "utf-8")
    torch.save({"variance": torch.tensor(0.25)}, tmp_path / "weights.pt")
    return lambda name, **config: write_card(tmp_path, network={"name": name, "config": config})


@pytest.mark.parametrize("name", ["lab_cards.py:Scaled", "lab_cards:Scaled"])
def test_a_class_of_ones_own_is_built_loaded_and_sampled(name, card, tmp_path, command):
    file = card(name, variance=9.0, note="null")
    asked = ("--checkpoint", "weights.pt", "--solver", "euler", "--nfe", 4, "--samples", 8, "--metrics", "psnr")
    assert command("bench", "--model", file, *asked, "--out", "store")[0] == 0
    (row,) = Store(tmp_path / "store").rows()
    plain = tmp_path / "plain.py"
    plain.write_text(
        "import torch\nfrom fastsample.models.foreign.own import OwnModel\nfrom lab_cards import Scaled\n"
        "def model():\n    return OwnModel(Scaled(0.25), (3, 8, 8), time_scale=1000.0)\n"
    )
    assert command("bench", "--model", "plain.py:model", *asked[2:], "--out", "plain")[0] == 0
    (same,) = Store(tmp_path / "plain").rows()
    assert row.metrics["psnr"] == pytest.approx(same.metrics["psnr"], rel=1e-5)


@pytest.mark.parametrize(
    ("name", "config", "told"),
    [
        ("lab_cards.py:Scaled", {"width": 3}, "lab_cards.py:Scaled refuses its configuration: TypeError"),
        ("lab_cards.py:Number", {}, "lab_cards.py:Number makes Number, not a torch.nn.Module"),
        ("lab_cards.py:Scale", {}, "did you mean Scaled"),
        ("no_such_lab:Scaled", {}, "no_such_lab cannot be imported"),
    ],
)
def test_a_class_that_is_no_network_ends_with_one_sentence(name, config, told, card, command):
    file = card(name, **config)
    words = ("--solver", "euler", "--nfe", 2, "--samples", 2, "--out", "store")
    code, _, err = command("bench", "--model", file, "--checkpoint", "weights.pt", *words)
    assert code == 2
    assert told in err
    assert len(err.strip().splitlines()) == 1
