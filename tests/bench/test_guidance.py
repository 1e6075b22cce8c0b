"""Guidance has one convention in every place: `--guidance W` is w of (1 + w) cond - w uncond."""

import re
import tomllib
from pathlib import Path

import pytest
import typer

import fastsample
from fastsample.bench.cli.app import app
from fastsample.bench.cli.words import GUIDANCE
from fastsample.models.public.cards import cards

from ..command import command

ROOT = Path(fastsample.__path__[0])


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("dit-xl2-256", "2.27 (ancestral, NFE 250; cfg-scale 1.5, here --guidance 0.5)"),
        ("dit-xl2-512", "3.04 (ancestral, NFE 250; cfg-scale 1.5, here --guidance 0.5)"),
        ("sit-xl2-256", "2.06 (SDE; cfg-scale 1.5, here --guidance 0.5)"),
        ("ldm-cin256", "3.6 (DDIM, NFE 250; cfg-scale 1.5, here --guidance 0.5)"),
        ("edm2-img512-xs-guided", "cfg-scale 1.4, here --guidance 0.4 --guide edm2-img512-xs-uncond)"),
        ("edm2-img512-xs-guided", "by another model: --guide edm2-img512-xs-uncond; --guidance W is w of D + w (D -"),
        ("edm2-img512-xs-uncond", "it guides edm2-img512-xs-guided, as --guide edm2-img512-xs-uncond there"),
        ("edm2-img64-s-autog", "cfg-scale 1.7, here --guidance 0.7 --guide edm2-img64-xs-autog)"),
        ("edm2-img64-xs-autog", "it guides edm2-img64-s-autog, as --guide edm2-img64-xs-autog there"),
        ("adm-imagenet256", "4.59 (ancestral, NFE 250; classifier scale 1, here --classifier-scale 1)"),
        ("adm-imagenet256-uncond", "the classifier with scale 10, here --classifier-scale 10"),
        ("dit-xl2-256", "--guidance W is w of (1 + w) cond - w uncond, a published cfg-scale less 1, on the first 3"),
    ],
)
def test_info_states_the_published_scale_and_what_to_type(name, told, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTSAMPLE_HOME", str(tmp_path))
    code, out, _ = command("models", "info", name)
    assert code == 0
    assert told in " ".join(out.split())


def test_published_numbers_state_both():
    code, out, _ = command("published", "--model", "dit-xl2-256", "--solver", "dpm-solver++", "--nfe", 10)
    assert code == 0
    assert "cfg-scale 1.5, here --guidance 0.5" in " ".join(out.split())


def test_no_card_says_a_scale_in_words_alone():
    """A number beside the word is one of the typed fields, which say what to type."""
    loose = re.compile(r"(guidance|cfg\S*|scale)[ =]+\d", re.IGNORECASE)
    for card in cards().values():
        texts = [card.title, card.note, *(fid.sampler for fid in card.fid)]
        said = [text for text in texts if loose.search(text) and "here --" not in text]
        assert not said, card.id
        for fid in card.fid:
            assert not fid.guide or fid.guide in cards()
            assert fid.cfg_scale is None or fid.guide or card.labels.null, card.id
            assert fid.classifier_scale is None or card.classifier, card.id
    for file in (ROOT / "models" / "cards").glob("*.toml"):
        assert tomllib.loads(file.read_text("utf-8"))


def test_every_help_text_says_which_weight():
    found = 0
    group = typer.main.get_command(app)
    waiting = list(group.commands.values())
    for one in waiting:
        waiting += getattr(one, "commands", {}).values()
        for option in one.params:
            if "--guidance" in option.opts:
                found += 1
                assert option.help.startswith(GUIDANCE), one.name
    assert found >= 5
