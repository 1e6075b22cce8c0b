"""Downloads from a server on this machine: interrupted, resumed, verified, refused; and conversion of what came."""

import gzip
import hashlib
import http.server
import io
import json
import threading
import urllib.request
import zipfile
from collections import OrderedDict
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path

import pytest
import torch
from rich.console import Console

from fastsample.models.checkpoints import CheckpointError
from fastsample.models.networks.registry import build_network
from fastsample.models.public import transfer as transfers
from fastsample.models.public.cards import card_named
from fastsample.models.public.conversion import load_converted, open_converted
from fastsample.models.public.description import describe
from fastsample.models.public.download import download
from fastsample.models.public.fetch import fetch
from fastsample.models.public.known import DownloadError, current_sha256, identity, target_of
from fastsample.models.public.readers import read_weights

CONTENT = bytes(range(256)) * 4000


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.files` with ranges; cuts the connection after `server.cut` bytes, `server.cuts` times.

    `server.etag` None is no validator, `server.length` False no length, `server.whole` True no ranges; `server.deaf`
    True sends ranges whatever If-Range says. `server.moved` are redirects; each answer waits for `server.open`.
    """

    def do_GET(self):
        self.server.ranges.append(self.headers.get("Range"))
        self.server.open.wait(10)
        if self.path in self.server.moved:
            self.send_response(HTTPStatus.FOUND)
            self.send_header("Location", self.server.moved[self.path])
            self.end_headers()
            return
        data = self.server.files.get(self.path.partition("?")[0])
        if data is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        start, wanted = 0, self.headers.get("Range")
        same = self.server.deaf or self.headers.get("If-Range", self.server.etag) == self.server.etag
        if wanted and same and not self.server.whole:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start and start >= len(data):
            self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            self.send_header("Content-Range", f"bytes */{len(data)}")
            self.end_headers()
            return
        self.send_response(HTTPStatus.PARTIAL_CONTENT if start else HTTPStatus.OK)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if self.server.length:
            self.send_header("Content-Length", str(len(data) - start))
        if self.server.etag:
            self.send_header("ETag", self.server.etag)
        self.end_headers()
        body = data[start:]
        if self.server.cuts:
            self.server.cuts -= 1
            body = body[: self.server.cut]
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.files, server.ranges, server.etag, server.cuts, server.cut = {"/file": CONTENT}, [], '"1"', 0, 300_000
        server.length, server.whole, server.deaf, server.moved, server.open = True, False, False, {}, threading.Event()
        server.open.set()
        server.url = f"http://127.0.0.1:{server.server_address[1]}/file"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def card_at(*urls, like="edm-cifar10-uncond-vp", **changes):
    """A card of the catalogue with other urls."""
    return card_named(like).model_copy(update={"urls": urls, **changes})


def get(card, home):
    """The download alone, of what is read as nothing."""
    return download(card, home, lambda file, sha256: None, wait=0.0)


def test_a_download_is_whole_recorded_and_not_repeated(server, tmp_path):
    card = card_at(server.url)
    path = get(card, tmp_path)
    assert path == target_of(card, tmp_path)
    assert path.read_bytes() == CONTENT
    assert current_sha256(card, tmp_path) == hashlib.sha256(CONTENT).hexdigest()
    assert [file.name for file in path.parent.iterdir()] == [card.file]
    assert get(card, tmp_path) == path
    assert len(server.ranges) == 1


def test_an_interrupted_download_goes_on_where_it_stopped(server, tmp_path):
    server.cuts = 2
    assert get(card_at(server.url), tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=300000-", "bytes=600000-"]


def test_it_goes_on_in_the_next_process_too(server, tmp_path, monkeypatch):
    monkeypatch.setattr(transfers, "_ATTEMPTS", 1)
    server.cuts, card = 1, card_at(server.url)
    with pytest.raises(DownloadError, match="300000 of 1024000 bytes"):
        get(card, tmp_path)
    assert not target_of(card, tmp_path).exists()
    assert get(card, tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=300000-"]


def test_a_file_that_changed_meanwhile_is_fetched_anew(server, tmp_path, monkeypatch):
    monkeypatch.setattr(transfers, "_ATTEMPTS", 1)
    server.cuts, card = 1, card_at(server.url)
    with pytest.raises(DownloadError):
        get(card, tmp_path)
    server.files["/file"], server.etag = CONTENT[::-1], '"2"'
    assert get(card, tmp_path).read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("where", ["in one process", "in the next"])
def test_nothing_is_continued_without_a_validator(where, server, tmp_path, monkeypatch):
    server.cuts, server.etag, card = 1, None, card_at(server.url)
    if where == "in the next":
        monkeypatch.setattr(transfers, "_ATTEMPTS", 1)
        with pytest.raises(DownloadError):
            get(card, tmp_path)
        server.files["/file"] = CONTENT[::-1]
    assert get(card, tmp_path).read_bytes() == server.files["/file"]
    assert server.ranges == [None, None]


def test_a_server_that_knows_no_ranges(server, tmp_path):
    server.cuts, server.whole = 1, True
    assert get(card_at(server.url), tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=300000-"]


def test_a_part_of_another_file_is_not_joined(server, tmp_path, monkeypatch):
    """The server sends the range of what it has by now, whatever it was asked for."""
    monkeypatch.setattr(transfers, "_ATTEMPTS", 1)
    server.cuts, server.deaf, card = 1, True, card_at(server.url)
    with pytest.raises(DownloadError):
        get(card, tmp_path)
    server.files["/file"], server.etag = CONTENT[::-1], '"2"'
    monkeypatch.setattr(transfers, "_ATTEMPTS", 5)
    assert get(card, tmp_path).read_bytes() == CONTENT[::-1]
    assert server.ranges == [None, "bytes=300000-", None]


@pytest.mark.parametrize("place", ["ftp://127.0.0.1:9/file", "file:///etc/hostname"])
def test_redirects_go_to_no_other_protocol(place, server, tmp_path):
    server.moved["/file"] = place
    with pytest.raises(DownloadError, match=r"from http to ftp, which is not followed|answers 302"):
        get(card_at(server.url), tmp_path)
    server.moved["/file"] = server.url.replace("/file", "/other")
    server.files["/other"] = CONTENT
    assert get(card_at(server.url), tmp_path).read_bytes() == CONTENT


def test_https_does_not_fall_to_http(server):
    """By the handler of redirects itself: a server of https needs a certificate that is known."""
    request = urllib.request.Request("https://example.org/file")
    (handler,) = (one for one in transfers._OPENER.handlers if isinstance(one, urllib.request.HTTPRedirectHandler))
    with pytest.raises(DownloadError, match="from https to http"):
        handler.redirect_request(request, None, 302, "", {}, server.url)
    assert handler.redirect_request(request, None, 302, "", {}, "https://example.com/x").type == "https"


def test_a_part_that_is_whole_already_or_too_long(server, tmp_path):
    for part in (CONTENT, CONTENT + b"more"):
        home = tmp_path / str(len(part))
        target = target_of(card_at(server.url), home)
        target.parent.mkdir(parents=True)
        target.with_name(f"{target.name}.part").write_bytes(part)
        target.with_name(f"{target.name}.part.json").write_text(json.dumps({"url": server.url, "validator": '"1"'}))
        assert get(card_at(server.url), home).read_bytes() == CONTENT


@pytest.mark.parametrize("known", [{"sha256": "0" * 64}, {"md5": "0" * 32}])
def test_another_content_than_the_card_says_is_refused(server, tmp_path, known):
    card = card_at(server.url, **known)
    with pytest.raises(DownloadError, match=f"its {next(iter(known))} is"):
        get(card, tmp_path)
    assert list(target_of(card, tmp_path).parent.glob("*.pkl*")) == []
    assert not (tmp_path / "checkpoints" / "lock.json").exists()


def test_right_hashes_pass(server, tmp_path):
    known = {name: hashlib.new(name, CONTENT).hexdigest() for name in ("md5", "sha256")}
    assert get(card_at(server.url, **known), tmp_path).is_file()


def test_another_content_than_the_first_download_is_refused(server, tmp_path):
    card = card_at(server.url)
    get(card, tmp_path).unlink()
    server.files["/file"] = CONTENT[::-1]
    with pytest.raises(DownloadError, match=r"recorded in lock\.json"):
        get(card, tmp_path)
    target_of(card, tmp_path).write_bytes(b"put there by hand")
    with pytest.raises(DownloadError, match="not the known file"):
        get(card, tmp_path)


def test_the_next_url_is_tried_and_all_faults_are_told(server, tmp_path):
    missing = server.url.replace("/file", "/missing")
    assert get(card_at(missing, server.url), tmp_path).read_bytes() == CONTENT
    with pytest.raises(DownloadError, match=r"missing: the server answers 404.*hub.*--checkpoint"):
        get(card_at(missing, "hf://hub"), tmp_path / "other")


def test_offline_names_the_url_and_the_place(tmp_path):
    card = card_at("http://127.0.0.1:9/file")
    with pytest.raises(DownloadError, match="no connection") as raised:
        get(card, tmp_path)
    assert card.urls[0] in str(raised.value)
    assert str(target_of(card, tmp_path)) in str(raised.value)


def test_a_file_in_a_folder_for_browsers_names_the_folder(tmp_path):
    card = card_named("sde-vp-ddpmpp-deep")
    with pytest.raises(DownloadError, match="only be fetched in a browser") as raised:
        get(card, tmp_path)
    assert card.page in str(raised.value)


def test_the_licence_is_shown_at_the_download_only(server, tmp_path):
    first, second = (Console(file=io.StringIO(), width=200) for _ in range(2))
    for console in (first, second):
        download(card_at(server.url), tmp_path, lambda file, sha256: None, console)
    assert "non-commercial" in first.file.getvalue()
    assert second.file.getvalue() == ""


def test_describe_needs_no_network(tmp_path):
    for name in ("edm-cifar10-uncond-vp", "sde-vp-ddpmpp-deep"):
        card = card_named(name)
        told = dict(describe(card, tmp_path))
        assert (card.urls or (card.page,))[0] in told["from"]
        assert f"{card.size_mb:,.0f} MB" in told["size"]
        assert str(target_of(card, tmp_path)) in told["to"]


# From the published file to the network.


def reduced(like, **config):
    """A card whose network has a reduced width."""
    card = card_named(like)
    network = card.network.model_copy(update={"config": {**card.network.config, **config}})
    return card.model_copy(update={"network": network})


def weights_of(card):
    torch.manual_seed(0)
    return build_network(card.network.name, card.network.config).state_dict()


def served(server, card, value):
    """The card with the url of the server, which has that value in a file of torch.save."""
    file = io.BytesIO()
    torch.save(value, file)
    server.files["/file"] = file.getvalue()
    return card.model_copy(update={"urls": (server.url,)})


def assert_same(path, expected):
    tensors, manifest = load_converted(path)
    assert {*tensors} == {*expected}
    for name, tensor in expected.items():
        torch.testing.assert_close(tensors[name], tensor, rtol=0, atol=0)
    return manifest


DDPM = {"type": "simple", "in_channels": 3, "out_ch": 3, "ch": 32, "ch_mult": [1, 2], "num_res_blocks": 1,
        "attn_resolutions": [4], "dropout": 0.1, "resamp_with_conv": True}  # fmt: skip


def test_fetch_converts_bit_for_bit_and_once(server, tmp_path):
    card = reduced("ddpm-cifar10", image_size=8, model=DDPM).model_copy(update={"md5": ""})
    weights = weights_of(card)
    card = served(server, card, weights)
    path = fetch(card, tmp_path)
    manifest = assert_same(path, weights)
    assert path.name == f"{card.id}-{manifest.source_sha256[:12]}.safetensors"
    assert manifest.urls == (server.url,)
    assert manifest.licence == card.licence
    opened = open_converted(path)
    assert all(torch.equal(opened.network.state_dict()[name], weights[name]) for name in weights)
    target_of(card, tmp_path).unlink()
    assert fetch(card, tmp_path) == path
    assert len(server.ranges) == 1


def test_fetch_takes_a_file_given_by_hand(server, tmp_path):
    card = reduced("ddim-celeba64", image_size=8, model=DDPM)
    weights = weights_of(card)
    torch.save([{}, {}, 0, 0, weights], tmp_path / "mine.pth")
    path = fetch(card, tmp_path / "home", checkpoint=tmp_path / "mine.pth")
    assert_same(path, weights)
    assert server.ranges == []
    with pytest.raises(DownloadError, match="is not a file"):
        fetch(card, tmp_path / "home", checkpoint=tmp_path / "nothing.pth")


def test_conversion_of_diffusers_weights(server, tmp_path):
    card = reduced("hf-ddpm-cifar10", sample_size=8, layers_per_block=1, block_out_channels=[32, 64],
                   down_block_types=["DownBlock2D", "AttnDownBlock2D"],
                   up_block_types=["AttnUpBlock2D", "UpBlock2D"])  # fmt: skip
    weights = weights_of(card)
    foreign = {name.replace(".to_q.", ".query."): tensor for name, tensor in weights.items()}
    assert_same(fetch(served(server, card, foreign), tmp_path), weights)


def test_conversion_of_4d_attention_weights(server, tmp_path):
    card = reduced("cm-edm-bedroom", model_channels=32, channel_mult=[1, 2], num_res_blocks=1,
                   attention_resolutions=[2], num_head_channels=16)  # fmt: skip
    weights = weights_of(card)
    foreign = {name: t[..., None] if t.ndim == 3 else t for name, t in weights.items()}
    assert any(t.ndim == 3 for t in weights.values())
    assert_same(fetch(served(server, card, foreign), tmp_path), weights)


def test_conversion_of_a_latent_model_in_a_zip(server, tmp_path):
    card = reduced("ldm-church", model_channels=32, channel_mult=[1, 2], num_res_blocks=1, attention_resolutions=[2],
                   num_heads=2)  # fmt: skip
    dd = {**card.first_stage.config["ddconfig"], "ch": 32, "ch_mult": [1, 2], "num_res_blocks": 1, "resolution": 16}
    first = card.first_stage.model_copy(update={"config": {"embed_dim": 4, "ddconfig": dd}})
    card = card.model_copy(update={"first_stage": first, "urls": (server.url,)})
    unet, stage = weights_of(card), build_network(first.name, dict(first.config)).state_dict()
    state = OrderedDict((f"model.diffusion_model.{name}", torch.zeros_like(t)) for name, t in unet.items())
    state |= {f"model_ema.diffusion_model{name.replace('.', '')}": t for name, t in unet.items()}
    state |= {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(5)}
    state |= {f"first_stage_model.{name}": t for name, t in stage.items()}
    state |= {"betas": torch.zeros(5), "scale_factor": torch.tensor(0.2276)}
    inner, outer = io.BytesIO(), io.BytesIO()
    torch.save({"state_dict": state, "callbacks": {}}, inner)
    with zipfile.ZipFile(outer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.ckpt", inner.getvalue())
    server.files["/file"] = outer.getvalue()
    path = fetch(card.model_copy(update={"latent_scale": (2.0,)}), tmp_path)
    assert open_converted(path).latent_scale is None
    assert fetch(card, tmp_path) == path  # made anew
    expected = {**unet, **{f"first_stage.{name}": t for name, t in stage.items()}}
    assert_same(path, {**expected, "scale_factor": torch.tensor(0.2276)})
    opened = open_converted(path)
    assert opened.latent_scale == pytest.approx(0.2276)
    assert torch.equal(opened.first_stage.state_dict()["post_quant_conv.weight"], stage["post_quant_conv.weight"])
    kept = sorted(file.name for file in path.parent.iterdir() if not file.name.startswith(".lock"))
    assert kept == sorted([card.id, path.name, "lock.json"])


def test_conversion_of_an_edm_pickle_compares_what_it_says_of_itself(server, tmp_path):
    data = Path(__file__).parents[1] / "data" / "checkpoints"
    server.files["/file"] = gzip.decompress((data / "fmt_edm_tiny.pkl.gz").read_bytes())
    said = json.loads(gzip.decompress((data / "fmt_index.json.gz").read_bytes()))["fmt_edm_tiny.pkl"]["init_kwargs"]
    card = reduced("edm-cifar10-cond-ve", **said).model_copy(update={"urls": (server.url,)})
    assert_same(fetch(card, tmp_path), read_weights(target_of(card, tmp_path), "edm-pickle").tensors)
    file, other = target_of(card, tmp_path), tmp_path / "other"
    # What either leaves out has its default: the file is made with channel_mult_emb 4 and sigma_data 0.5.
    for change, told in (
        ({"model_channels": 16}, "model_channels is 8 in the file and 16 on the card"),
        ({"channel_mult_emb": 2}, "channel_mult_emb is 4 in the file and 2 on the card"),
        ({"sigma_data": 0.3}, "sigma_data is 0.5 in the file and 0.3 on the card"),
        ({"colour": "red"}, "no argument 'colour' .'red'."),
        ({"model_type": "VGG"}, "model_type = 'VGG' is not known"),
    ):
        with pytest.raises(CheckpointError, match=told):
            fetch(reduced("edm-cifar10-cond-ve", **said | change), other, checkpoint=file)
    silent = reduced("edm-cifar10-cond-ve", **said)
    del silent.network.config["resample_filter"]
    with pytest.raises(CheckpointError, match=r"resample_filter is \[1, 3, 3, 1\] in the file and \[1, 1\] on"):
        fetch(silent, other, checkpoint=file)
    assert fetch(reduced("edm-cifar10-cond-ve", **said, channel_mult_emb=4), other, checkpoint=file).is_file()


def small(server, factor=1.0):
    """A card of the catalogue with a reduced network, and a file of its weights."""
    card = reduced("ddpm-cifar10", image_size=8, model=DDPM).model_copy(update={"md5": ""})
    file = io.BytesIO()
    torch.save({name: factor * tensor for name, tensor in weights_of(card).items()}, file)
    return card.model_copy(update={"urls": (server.url,)}), file.getvalue()


def garbage(good):
    zipped = io.BytesIO()
    torch.save({"foreign": torch.zeros(3)}, zipped)
    return {
        "a zip without its end": good[:-500],
        "a web page": b"<!DOCTYPE html><html>sign in</html>",
        "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
        "a text in JSON": b'{"error": "Invalid username or password."}',
        "an answer in XML": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
        "an empty file": b"",
        "does not fit its network": zipped.getvalue(),
        "it is no pickle: byte 0x00 is no opcode": b"\x00" * 1000,
    }


@pytest.mark.parametrize("kind", garbage(b""))
@pytest.mark.parametrize("given", ["served", "given", "put in place"])
def test_what_is_no_checkpoint_is_told_and_blocks_nothing(kind, given, server, tmp_path):
    card, good = small(server)
    wrong, target = garbage(good)[kind], target_of(card, tmp_path)
    server.length, server.deaf = False, True  # nothing tells the transport that a body is cut
    (tmp_path / "wrong.pt").write_bytes(wrong)
    if given == "served":
        server.files["/file"] = wrong
    elif given == "put in place":
        target.parent.mkdir(parents=True)
        target.write_bytes(wrong)
    with pytest.raises(CheckpointError, match=kind) as told:
        fetch(card, tmp_path, checkpoint=tmp_path / "wrong.pt" if given == "given" else None)
    assert not (tmp_path / "checkpoints" / "lock.json").exists()
    if given == "put in place":
        assert f"remove {target}" in str(told.value)
        target.unlink()
    server.files["/file"] = good
    assert_same(fetch(card, tmp_path), weights_of(card))
    assert current_sha256(card, tmp_path) == hashlib.sha256(good).hexdigest()


def test_a_url_with_something_else_is_passed_over(server, tmp_path):
    card, server.files["/file"] = small(server)
    server.files["/old"] = garbage(server.files["/file"])["does not fit its network"]
    old = server.url.replace("/file", "/old")
    assert_same(fetch(card.model_copy(update={"urls": (old, server.url)}), tmp_path), weights_of(card))


def test_given_weights_leave_the_place_of_the_published_ones(server, tmp_path):
    card, server.files["/file"] = small(server)
    (tmp_path / "other.pt").write_bytes(small(server, 1.01)[1])
    other = fetch(card, tmp_path, checkpoint=tmp_path / "other.pt")
    known = fetch(card, tmp_path)
    assert known != other
    assert_same(known, weights_of(card))
    assert fetch(card, tmp_path, checkpoint=tmp_path / "other.pt") == other
    assert fetch(card, tmp_path) == known
    assert len(server.ranges) == 1


def test_a_later_other_download_of_a_shipped_model_is_refused_and_says_what_to_remove(server, tmp_path):
    card, server.files["/file"] = small(server)
    fetch(card, tmp_path).unlink()
    target_of(card, tmp_path).unlink()
    server.files["/file"] = small(server, 1.01)[1]
    with pytest.raises(DownloadError, match=r"remove 'ddpm-cifar10' from .*lock\.json"):
        fetch(card, tmp_path)
    lock = tmp_path / "checkpoints" / "lock.json"
    lock.write_text("{}")
    assert fetch(card, tmp_path).is_file()


def test_a_published_hash_counts_more_than_what_was_seen_first(server, tmp_path):
    card, server.files["/file"] = small(server)
    lock = tmp_path / "checkpoints" / "lock.json"
    lock.parent.mkdir()
    lock.write_text(json.dumps({card.id: "0" * 64}))
    card = card.model_copy(update={"md5": hashlib.md5(server.files["/file"]).hexdigest()})
    sha256 = hashlib.sha256(server.files["/file"]).hexdigest()
    assert identity(card, sha256, tmp_path)[0] == f"{card.id}@{sha256[:8]}"
    fetch(card, tmp_path)
    assert identity(card, sha256, tmp_path) == (card.id, "published, by its hash")


def test_two_that_want_one_file_make_one_download(server, tmp_path):
    card, server.files["/file"] = small(server)
    server.open.clear()
    found, console = [], Console(file=io.StringIO(), width=500)
    threads = [threading.Thread(target=lambda: found.append(fetch(card, tmp_path, console))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(500):
        if console.file.getvalue().count("waiting for it") == 2:
            break
        threads[0].join(0.01)
    server.open.set()
    for thread in threads:
        thread.join()
    assert len({*found}) == 1
    assert len(found) == 3
    assert server.ranges == [None]


def test_weights_that_do_not_fit_are_told_at_once(server, tmp_path):
    card = reduced("ddpm-cifar10", image_size=8, model=DDPM).model_copy(update={"md5": ""})
    weights = weights_of(card)
    weights["stray"] = weights.pop("conv_in.bias")
    weights["conv_out.bias"] = torch.zeros(7)
    with pytest.raises(CheckpointError, match=r"missing: conv_in\.bias; unexpected: stray; mis-shaped: conv_out\.bias"):
        fetch(served(server, card, weights), tmp_path)
    assert list((tmp_path / "checkpoints").glob("*.safetensors")) == []


def test_a_file_that_is_no_converted_one(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_converted(tmp_path / "x.safetensors")


def test_a_flipped_bit_of_converted_weights_is_found(server, flips, tmp_path):
    card = reduced("ddpm-cifar10", image_size=8, model=DDPM).model_copy(update={"md5": ""})
    weights = weights_of(card)
    card = served(server, card, weights)
    path = fetch(card, tmp_path)
    whole, size = path.read_bytes(), path.stat().st_size
    for _ in flips(path, 8 * size // 12):
        with pytest.raises(CheckpointError, match=r"is damaged|cannot be read|has no manifest"):
            open_converted(path)
    head = 8 + int.from_bytes(whole[:8], "little")
    for bit in range(64, 8 * head, 2003):  # names, shapes, the manifest
        path.write_bytes(whole[: bit // 8] + bytes([whole[bit // 8] ^ 1 << bit % 8]) + whole[bit // 8 + 1 :])
        with suppress(CheckpointError):
            assert_same(path, weights)
    path.unlink()
    assert_same(fetch(card, tmp_path), weights)
