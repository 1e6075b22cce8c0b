"""Text to image: prompts, encoders that run once and go, CLIP score, and runs that are killed."""

import os
import signal
import subprocess
import sys
import time
import weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms.functional import normalize
from transformers import CLIPConfig, CLIPModel, CLIPTextModel

from fastsample.bench.cells import plan_cells
from fastsample.bench.request import read_request
from fastsample.bench.sampling import Sampler
from fastsample.models.foreign.text import prompts_of
from fastsample.results.store import Store

from ..command import command
from ..pipelines import LENGTH, clip_tokenizer, saved


@pytest.fixture(scope="module")
def sd1(tmp_path_factory):
    return f"diffusers:{saved('sd1', tmp_path_factory.mktemp('sd1'))[1]}"


def written(tmp_path, *prompts):
    file = tmp_path / f"{len(list(tmp_path.iterdir()))}.txt"
    file.write_text("\n".join(prompts), "utf-8")
    return str(file)


def planned(model, **asked):
    (cell,), _ = plan_cells(read_request(None, model=(model,), solver=("ddim",), nfe=2, **asked), ())
    return cell


@torch.inference_mode()
def test_encoders_run_once_for_each_prompt_and_are_gone_while_sampling(sd1, tmp_path, monkeypatch):
    calls, encoders, forward = [], set(), CLIPTextModel.forward

    def counted(own, ids, *given, **named):
        calls.append(len(ids))
        encoders.add(weakref.ref(own))
        return forward(own, ids, *given, **named)

    monkeypatch.setattr(CLIPTextModel, "forward", counted)
    file = written(tmp_path, "a boat", "two dogs", "a boat", "a red apple")
    cell = planned(sd1, prompts=file, samples=8, cfg=2.0, negative="fog")
    assert calls == [1] * 4, "three prompts and the negative one, one at a time"
    sampler, seen = Sampler(torch.device("cpu")), []
    cell.model.network.network.register_forward_hook(lambda *_: seen.append([one() for one in encoders]))
    sampler.sample(cell, list(range(8)))
    assert seen == [[None]] * 4
    assert len(calls) == 4


@torch.inference_mode()
def test_prompt_i_belongs_to_sample_i(sd1, tmp_path):
    """Whatever the batch, and from the first on again where there are more samples than prompts."""
    sampler = Sampler(torch.device("cpu"))
    cell = planned(sd1, prompts=written(tmp_path, "a boat", "two dogs"), samples=4)
    whole = sampler.sample(cell, [0, 1, 2, 3])[0]
    torch.testing.assert_close(sampler.sample(cell, [3])[0], whole[3:], rtol=0, atol=1e-4)
    other = sampler.sample(planned(sd1, prompts=written(tmp_path, "a tree", "two dogs"), samples=4), [0, 1, 2, 3])[0]
    torch.testing.assert_close(other[[1, 3]], whole[[1, 3]], rtol=0, atol=1e-4)
    assert not torch.allclose(other[[0, 2]], whole[[0, 2]], atol=1e-3)
    listed = planned(sd1, prompts=written(tmp_path, "a tree", "two dogs"), samples=4, labels="1")
    torch.testing.assert_close(sampler.sample(listed, [1])[0], whole[[1]], rtol=0, atol=1e-4)


def test_prompts_of_the_package():
    prompts = prompts_of("")
    assert len(prompts) == len({*prompts}) == 64
    assert all(prompt.isascii() and len(prompt) < 77 for prompt in prompts)


def test_clip_score(sd1, tmp_path):
    """By a small CLIP of random weights: 100 cos, or 0 where it is negative; not of a model without prompts."""
    tokenizer, words = clip_tokenizer(tmp_path / "clip")
    text = dict(
        vocab_size=words, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=LENGTH, bos_token_id=words - 2, eos_token_id=words - 1, pad_token_id=words - 1,
    )  # fmt: skip
    vision = dict(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8
    )
    torch.manual_seed(3)
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).eval()
    clip.save_pretrained(tmp_path / "clip")
    tokenizer.save_pretrained(tmp_path / "clip")
    prompts = ["a boat", "two dogs", "a red apple"]
    words = [
        "bench", "--model", sd1, "--solver", "ddim", "--nfe", 2, "--samples", 6, "--prompts",
        written(tmp_path, *prompts), "--metrics", "clip-score", "--extractor-weights",
        f"clip-score={tmp_path / 'clip'}",
    ]  # fmt: skip
    assert command(*words, "--out", tmp_path / "store").code == 0
    (row,) = Store(tmp_path / "store").rows()
    cell, sampler = planned(sd1, prompts=words[10], samples=6), Sampler(torch.device("cpu"))
    with torch.inference_mode():
        images = sampler.images(cell, sampler.sample(cell, list(range(6)))[0])
        mean, deviation = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
        x = normalize(((images + 1) * 127.5).clamp(0, 255).round() / 255, mean, deviation)
        found = clip(
            **tokenizer(prompts * 2, padding=True, truncation=True, max_length=LENGTH, return_tensors="pt"),
            pixel_values=x,
        )
    scores = 100 * F.cosine_similarity(found.image_embeds, found.text_embeds).clamp(min=0)
    assert scores.max() > 1
    assert row.metrics["clip-score"] == pytest.approx(scores.mean().item(), rel=1e-4)
    assert row.standard_errors["clip-score"] == pytest.approx(scores.std().item() / 6**0.5, rel=1e-3)
    assert "sha256" in row.protocol["clip-score"]
    ended = command(*words[:1], "--model", "cifar10-tiny-vp", *words[3:9], *words[11:], "--out", tmp_path / "none")
    assert ended.code == 2
    assert "it has no prompts" in ended.out + ended.err


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_rows(sd1, tmp_path):
    words = [
        sys.executable, "-m", "fastsample.bench", "bench", "--model", sd1, "--solver", "ddim,unipc", "--nfe", "2",
        "--samples", "260", "--metrics", "truncation", "--cfg", "3", "--reference-steps", "20", "--out", "store",
    ]  # fmt: skip
    stores = []
    for kill in (True, False):
        folder = tmp_path / str(kill)
        folder.mkdir()
        environment = os.environ | {"FASTSAMPLE_HOME": str(folder / "home")}
        if kill:
            run = subprocess.Popen(words, cwd=folder, env=environment)
            while not list((folder / "store").glob("partial/*/*")):
                assert run.poll() is None
                time.sleep(0.05)
            os.kill(run.pid, signal.SIGKILL)
            assert run.wait() == -signal.SIGKILL
            assert not list((folder / "store").glob("rows.csv"))
        subprocess.run(words, cwd=folder, env=environment, check=True)
        stores.append({row.cell: row for row in Store(folder / "store").rows()})
    killed, whole = stores
    assert killed.keys() == whole.keys()
    for cell, row in whole.items():
        assert row.metrics == killed[cell].metrics
        assert row.protocol == killed[cell].protocol
        assert np.isfinite(row.metrics["truncation"])
