"""What cards say of their images, references, guides and files, checked over the whole catalogue."""

import math
import re
import tomllib
from pathlib import Path

import pytest
import torch

from fastsample.datasets.preprocessing import RECIPES
from fastsample.datasets.published_moments import published_references
from fastsample.models.checkpoints import CheckpointError
from fastsample.models.networks.registry import build_network
from fastsample.models.public.cards import card_named, cards
from fastsample.models.public.description import describe

FILES = (Path(__file__).parents[2] / "models" / "cards").glob("*.toml")
TABLES = {name: table for file in FILES for name, table in tomllib.loads(file.read_text("utf-8")).items()}


@pytest.mark.parametrize("name", cards())
def test_every_card_has_a_reference_and_a_preprocessing(name):
    """Both exist, or are said not to, by the card or the one that it is like; where they differ, a note says why."""
    card, known = card_named(name), {entry.id: entry for entry in published_references()}
    assert card.recipe in {*RECIPES, "?"}
    assert (card.recipe == "?") <= (card.path is None)
    if RECIPES.get(card.recipe, RECIPES["as-is"]).side:
        assert card.image_shape == (3, RECIPES[card.recipe].side, RECIPES[card.recipe].side)
    assert said(name, "reference") == card.reference
    if card.path is None:
        assert card.reference == "none"
    elif card.reference == "none":
        assert card.data in ("celebahq", "afhq-cat")  # and no published reference is of such images
        assert all(entry.data != card.data for entry in known.values())
    else:
        entry = known[card.reference]
        assert entry.data == card.data
        assert entry.extractor in ("inception-v3-compat", "pytorch-fid")
        told = "does not state how" if entry.preprocessing == "?" else f"prepared as {entry.preprocessing}"
        assert card.recipe == entry.preprocessing or ("Its reference" in card.note and told in card.note)
    told = dict(describe(card, Path("nowhere")))
    assert card.reference in told["reference"]
    assert ("not known" if card.recipe == "?" else card.recipe) in told["images"]


def said(name, key):
    """What the file of the card says, there or in a card that it is like."""
    table = TABLES[name]
    return table[key] if key in table else said(table["like"], key)


def test_guides_fit_what_they_guide():
    pairs = {(card.id, fid.guide) for card in cards().values() for fid in card.fid if fid.guide}
    assert len(pairs) == 19
    for card, guide in (map(card_named, pair) for pair in pairs):
        for field in ("latent_shape", "image_shape", "path", "first_stage", "latent_scale", "output", "reference"):
            assert getattr(guide, field) == getattr(card, field), (card.id, field)
        assert guide.labels in (card.labels, card_named("ddpm-cifar10").labels)
        (length, kimg), (guide_length, guide_kimg) = (
            re.findall(r"[\d.]+(?=\.pkl|-0\.)", c.file)[::-1] for c in (card, guide)
        )
        if "guided" in card.id:
            assert (guide_length, guide.labels.kind, guide.file[:22]) == (length, "none", "edm2-img512-xs-uncond-")
        else:
            assert int(guide_kimg) < int(kimg)


def test_a_file_belongs_to_one_card():
    places = [card.urls or (card.page, card.file, card.note) for card in cards().values()]
    assert len({*places}) == len(places) == len(TABLES)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("edm2-img512-s-autog", ("edm2-img512-s-2147483-0.070.pkl", "fid", 1.34, 2.1, "edm2-img512-xs-autog")),
        ("edm2-img512-xs-autog", ("edm2-img512-xs-0134217-0.125.pkl",)),
        ("edm2-img512-xl-dino", ("edm2-img512-xl-1342177-0.155.pkl", "fd_dinov2", 45.96, None, "")),
        ("sde-vp-ddpmpp-last", ("checkpoint.pth", "fid", 3.93, None, "")),
        ("sde-vp-ddpmpp", ("checkpoint.pth", "fid", 2.55, None, "")),
        ("sde-vp-ddpm-last", ("checkpoint.pth", "fid", 3.37, None, "")),
        ("sde-subvp-ddpm-cont", ("checkpoint.pth", "fid", 3.56, None, "")),
        ("adm-imagenet512", ("512x512_diffusion.pt", "fid", 7.72, None, "")),
    ],
)
def test_files_and_their_values(name, expected):
    card = card_named(name)
    values = [(fid.metric, fid.value, fid.cfg_scale, fid.guide) for fid in card.fid]
    assert (card.file, *(values[0] if values else ())) == expected
    assert len(values) <= 1


def test_nobody_is_said_to_have_used_a_model_that_is_not_published():
    assert not {"BNS", "Bespoke"} & {user for card in cards().values() for user in card.used_by}


@pytest.mark.parametrize(("side", "millions"), [(64, 296), (128, 422), (256, 554), (512, 559)])
def test_the_sizes_of_guided_diffusion(side, millions):
    """As the paper counts the parameters (arXiv 2105.05233, appendix I)."""
    card = card_named(f"adm-imagenet{side}")
    with torch.device("meta"):
        state = build_network(card.network.name, card.network.config).state_dict()
    assert round(sum(math.prod(tensor.shape) for tensor in state.values()) / 1e6) == millions
    assert card_named(card.classifier).file == f"{side}x{side}_classifier.pt"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('recipe = "imagenet512-edm2"', "unknown preprocessing .* did you mean imagenet512-adm"),
        ('reference = "edm-cifar"', "unknown reference .* did you mean edm-cifar10"),
        ('reference = "https://example.org/x.npz"', '"none" says that there is none'),
        ('reference = ""', '"none" says that there is none'),
    ],
)
def test_a_wrong_name_is_refused(line, told, tmp_path):
    (tmp_path / "own.toml").write_text(
        f'[mine]\nlike = "ddpm-cifar10"\ntitle = "x"\npage = "y"\nfile = "z"\nsize_mb = 1\n{line}\n'
    )
    with pytest.raises(CheckpointError, match=told):
        card_named(str(tmp_path / "own.toml"))
