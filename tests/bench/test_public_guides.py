"""EDM2's cards that exist for guidance, from pickles of the published layout at reduced width to rows."""

import pickle
import sys
from types import ModuleType
from unittest import mock

import pytest
import torch

from fastsample.bench.cells import plan_cells
from fastsample.bench.request import Request, RequestError
from fastsample.bench.sampling import Sampler
from fastsample.models.networks.registry import build_network
from fastsample.models.noise import labels
from fastsample.models.public.cards import card_named, cards
from fastsample.results.store import Store

from ..command import command
from .test_public import DD, FIRST_STAGE, autoencoder, network_of, saved, weights, write_card


class Stored:
    """A module as torch_utils.persistence pickles it."""

    def __init__(self, module, **state):
        self.meta = {
            "type": "class", "class_name": type(module).__name__.lstrip("_").removeprefix("EDM2"), "module_src": "",
            "state": {
                "_parameters": {name: value.detach() for name, value in module._parameters.items()},
                "_buffers": dict(module._buffers),
                "_modules": {name: Stored(child) for name, child in module._modules.items()},
                **state,
            },
        }  # fmt: skip

    def __reduce__(self):
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (self.meta,)


def edm2(like, width, **changes):
    """(the card it is like, what the card says otherwise, the file), as the forms of `test_public`."""
    name, config = network_of(like, model_channels=width, channel_mult=[1, 2], num_blocks=1, attn_resolutions=[4],
                              channels_per_head=8, img_resolution=8, **changes)  # fmt: skip
    network = build_network(name, config)
    network.load_state_dict(weights(name, config))
    module = ModuleType("torch_utils.persistence")
    exec("def _reconstruct_persistent_obj(meta): ...", vars(module))
    with mock.patch.dict(sys.modules, {"torch_utils": ModuleType("torch_utils"), module.__name__: module}):
        file = pickle.dumps({"ema": Stored(network, _init_args=(), _init_kwargs=config), "dataset_kwargs": {}})
    return like, {"network": {"config": config}}, file


def pixels(like, width):
    like, changes, file = edm2(like, width, label_dim=5)
    return like, changes | {"labels": {"classes": 5}, "image_shape": [3, 8, 8]}, file


def strong():
    return pixels("edm2-img64-s-autog", 16)


def weak():
    return pixels("edm2-img64-xs-autog", 8)


LATENT = {"latent_shape": [4, 8, 8], "image_shape": [3, 16, 16]}


def latent():
    like, changes, file = edm2("edm2-img512-xs-guided", 8, label_dim=5)
    return like, changes | {"labels": {"classes": 5}, **LATENT}, file


def uncond():
    like, changes, file = edm2("edm2-img512-xs-uncond", 8)
    return like, changes | LATENT, file


def other_stage():
    like, changes, _ = autoencoder()
    state = weights("AutoencoderKL", {"embed_dim": 4, "ddconfig": {**FIRST_STAGE["ddconfig"], **DD}})
    return like, changes, saved({name: 2 * value for name, value in state.items()})


def asked(tmp_path, model, guide, **changes):
    facts = dict(guide=guide, guidance=0.7, solver="heun", nfe=6, samples=8, metrics=("psnr",), out=tmp_path / "store")
    return Request(**dict(model=model) | facts | changes)


@pytest.mark.parametrize(
    ("own", "guide", "stages", "image"),
    [(strong, weak, (), (3, 8, 8)), (latent, uncond, (autoencoder,), (3, 16, 16))],
    ids=["autoguidance", "unconditional"],
)
def test_edm2_and_its_guide_from_published_files_to_a_row(own, guide, stages, image, tmp_path, server, coarse):
    file = write_card(tmp_path, server, own, guide, *stages)
    request = asked(tmp_path, f"{file}#{own.__name__}", f"{file}#{guide.__name__}")
    words = ["--model", request.model[0], "--guide", request.guide, "--cfg", 1.7, "--solver", "heun", "--nfe", 6]
    for interval in ([], ["--guidance-interval", "0.2,9"]):
        more = ["--samples", 8, "--metrics", "psnr", "--out", tmp_path / "store"]
        assert command("bench", *words, *interval, *more).code == 0
    row, within = sorted(Store(tmp_path / "store", create=False).rows(), key=lambda row: -row.forwards)
    (cell,), _ = plan_cells(request, ())
    assert (row.model, row.guide, row.nfe, row.forwards) == (own.__name__, guide.__name__, 6, 12)
    assert 6 < within.forwards < 12
    sha256 = cell.model.guide.split("(")[1].split()[0]
    assert len(sha256) == 64
    assert sha256 != row.checkpoint_sha256 == cell.model.sha256
    assert row.protocol["guide"] == cell.model.guide
    assert "labels" in row.protocol
    assert row.metrics["psnr"] > 3
    sampler = Sampler(torch.device("cpu"))
    with torch.inference_mode():
        x, _, _ = sampler.sample(cell, [0, 1])
        assert cell.model.decode(x).shape == (2, *image)
        # As EDM2's generate_images.py: ref_Dx.lerp(Dx, guidance), the guide's labels being none if it knows none.
        denoiser, networks = sampler.denoiser(cell, [0, 1]), cell.model.network
        given = torch.nn.functional.one_hot(labels(0, [0, 1], 5), 5).float()
        noisy, sigma = 2.0 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)), torch.full((2,), 2.0)
        d = networks.own.network(noisy, sigma, given)
        d_guide = networks.guide.network(noisy, sigma, *([given] if guide is weak else []))
        torch.testing.assert_close(denoiser.x0(noisy, 2.0), d_guide.lerp(d, 1.7), rtol=1e-5, atol=1e-5)


def test_latents_of_another_first_stage_and_pixels_do_not_guide(tmp_path, server):
    file = write_card(tmp_path, server, latent, uncond, strong, autoencoder, other_stage)
    first, card, rest = file.read_text().partition("[uncond]")
    file.write_text(first + card + rest.replace("#autoencoder", "#other-stage", 1))
    told = "uncond cannot guide latent: its samples are no latents of the first stage of latent"
    with pytest.raises(RequestError, match=told):
        plan_cells(asked(tmp_path, f"{file}#latent", f"{file}#uncond"), ())
    with pytest.raises(
        RequestError, match="strong cannot guide latent: its samples are 3x8x8, and those of latent 4x8x8"
    ):
        plan_cells(asked(tmp_path, f"{file}#latent", f"{file}#strong"), ())


def test_every_card_that_names_a_guide_can_be_guided_by_it():
    pairs = {(card.id, fid.guide) for card in cards().values() for fid in card.fid if fid.guide}
    assert {("edm2-img64-s-autog", "edm2-img64-xs-autog"), ("edm2-img512-xs-guided", "edm2-img512-xs-uncond")} <= pairs
    for own, guide in (map(card_named, pair) for pair in pairs):
        for fact in ("image_shape", "latent_shape", "path", "first_stage", "first_stage_range", "data_range", "data",
                     "latent_shift", "latent_scale"):  # fmt: skip
            assert getattr(own, fact) == getattr(guide, fact), f"{own.id} and {guide.id}: {fact}"
        assert guide.labels.classes in (0, own.labels.classes)
