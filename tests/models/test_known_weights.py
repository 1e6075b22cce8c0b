"""A model's name belongs to the known weights: what is given, changed or trained further has a name of its own."""

import hashlib
import io
import json
import os
import threading

import pytest
import torch

from fastsample.bench.replay import Replay
from fastsample.datasets.files import locked
from fastsample.datasets.home import data_home
from fastsample.models.catalogue import open_model
from fastsample.models.checkpoints import load_checkpoint, model_file, save_checkpoint
from fastsample.models.networks.registry import build_network
from fastsample.models.public.cards import card_named
from fastsample.models.public.known import record
from fastsample.results.store import Store

from ..cards import CONFIG, write_card
from ..command import command


def weights(factor=1.0):
    torch.manual_seed(0)
    state = build_network("SongUNet", CONFIG).state_dict()
    return {name: factor * tensor for name, tensor in state.items()}


def saved(value):
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


GOOD, OTHER = saved(weights()), saved(weights(1.01))


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(autouse=True)
def files(tmp_path):
    """Two files of weights."""
    for name, content in {"good": GOOD, "other": OTHER}.items():
        (tmp_path / f"{name}.pt").write_bytes(content)


def said(*words):
    """(exit code, what it says) of a command."""
    ended = command(*words)
    return ended.code, ended.out + ended.err


@pytest.fixture
def bench(tmp_path, coarse):
    """The row of a cell of a model, computed or found again."""

    def run(model, *words, out="store"):
        told = ("--solver", "euler", "--nfe", 2, "--samples", 8, "--metrics", "psnr", "--out", tmp_path / out)
        before = {row.cell for row in rows(tmp_path / out)}
        code, text = said("bench", "--model", model, *told, *words)
        assert code == 0, text
        return [row for row in rows(tmp_path / out) if row.cell not in before]

    return run


def rows(folder):
    return Store(folder, create=False).rows() if folder.exists() else []


def at(server, name="/w"):
    return [f"http://127.0.0.1:{server.server_address[1]}{name}"]


def test_given_weights_are_another_model_and_never_replace_the_known_ones(bench, server, tmp_path):
    server.files["/w"] = GOOD
    card, other = write_card(tmp_path, urls=at(server)), f"mine@{sha256(OTHER)[:8]}"
    (first,) = bench(card, "--checkpoint", tmp_path / "other.pt")  # before the known file was ever seen
    assert (first.model, first.checkpoint_sha256) == (other, sha256(OTHER))
    assert first.protocol["weights"] == "not the known file; no hash is published"
    assert server.ranges == []
    (known,) = bench(card)
    assert (known.model, known.checkpoint_sha256) == ("mine", sha256(GOOD))
    assert known.protocol["weights"] == "first seen here; no hash is published"
    assert known.protocol["psnr reference"] != first.protocol["psnr reference"]
    assert bench(card, "--checkpoint", tmp_path / "other.pt") == []
    assert bench(card) == []
    assert bench(f"{card}@{sha256(OTHER)[:8]}") == []  # by the name that the row has
    _, told = said("table", tmp_path / "store")
    assert f"Weights of mine: first seen here; no hash is published; they have sha256 {sha256(GOOD)[:16]}." in told
    assert f"Weights of {other}: not the known file" in told
    _, told = said("models", "info", card)
    assert f"{sha256(GOOD)} (first seen here; no hash is published)" in " ".join(told.split())
    for words, why in (
        ((f"{card}@01234567",), "mine@01234567 is not here: give its file once"),
        ((f"{card}@01234567", "--checkpoint", tmp_path / "good.pt"), "names its weights already"),
    ):
        code, told = said("bench", "--out", tmp_path / "store", "--model", *words)
        assert code == 2
        assert why in told


@pytest.mark.parametrize("known", ["sha256", "md5"])
def test_a_published_hash_decides(known, bench, tmp_path):
    card = write_card(tmp_path, **{known: hashlib.new(known, GOOD).hexdigest()})
    (row,) = bench(card, "--checkpoint", tmp_path / "other.pt")
    assert row.model == f"mine@{sha256(OTHER)[:8]}"
    assert row.protocol["weights"] == "not the published file"
    assert said("models", "fetch", card)[0] == 2  # the other file is nothing to be found in its place
    (row,) = bench(card, "--checkpoint", tmp_path / "good.pt")
    assert (row.model, row.protocol["weights"]) == ("mine", "published, by its hash")
    assert bench(card) == []


def test_the_next_epoch_of_ones_own_model_is_a_model_of_its_own(bench, tmp_path):
    card = write_card(tmp_path)
    (first,) = bench(card, "--checkpoint", tmp_path / "good.pt")
    (second,) = bench(card, "--checkpoint", tmp_path / "other.pt")
    assert (first.model, second.model) == ("mine", f"mine@{sha256(OTHER)[:8]}")
    assert bench(card) == []
    code, told = said("models", "fetch", card, "--checkpoint", tmp_path / "other.pt")
    assert code == 0
    assert f"{second.model}: {tmp_path / 'other.pt'} is not the known file" in told


def test_a_changed_source_or_file_is_taken_under_a_name_of_its_own(bench, server, tmp_path):
    server.files |= {"/w": GOOD, "/next": OTHER}
    (first,) = bench(write_card(tmp_path, urls=at(server)))
    (second,) = bench(write_card(tmp_path, urls=at(server, "/next")))
    assert (first.model, second.model) == ("mine", f"mine@{sha256(OTHER)[:8]}")
    assert second.checkpoint_sha256 == sha256(OTHER)
    third = saved(weights(1.02))
    target = data_home() / "checkpoints" / "mine" / "weights.pt"
    assert target.read_bytes() == OTHER
    target.write_bytes(third)
    os.utime(target, ns=(2**61, 2**61))
    (row,) = bench(write_card(tmp_path, urls=at(server, "/next")))
    assert row.model == f"mine@{sha256(third)[:8]}"
    (row,) = bench(write_card(tmp_path, urls=at(server)), "--seed", 1)
    assert (row.model, row.checkpoint_sha256) == ("mine", sha256(GOOD))


def test_another_file_under_a_known_id_says_what_to_do_and_that_helps(bench, server, tmp_path):
    """The advice, followed as it is written: the sha256 on the card, or an id of its own."""
    server.files |= {"/w": GOOD, "/next": OTHER}
    bench(write_card(tmp_path, urls=at(server)))
    card = write_card(tmp_path, urls=at(server, "/next"))
    _, told = said("bench", "--model", card, "--solver", "euler", "--nfe", 2, "--samples", 8, "--metrics", "psnr",
                   "--out", tmp_path / "store")  # fmt: skip
    told = " ".join(told.split())
    assert (
        f"mine@{sha256(OTHER)[:8]} is not mine: under that id {data_home() / 'checkpoints' / 'lock.json'} has" in told
    )
    assert f'write sha256 = "{sha256(OTHER)}" on its card, or give the card an id of its own' in told
    assert "is not mine: under that id" in " ".join(said("models", "info", card)[1].split())
    card = write_card(tmp_path, urls=at(server, "/next"), sha256=sha256(OTHER))
    (row,) = bench(card, "--seed", 2)
    assert (row.model, row.checkpoint_sha256) == ("mine", sha256(OTHER))
    assert "is not mine" not in said("models", "info", card)[1]


def test_a_card_that_reads_its_file_in_another_way_converts_it_anew(bench, tmp_path):
    (tmp_path / "both.pt").write_bytes(saved({"raw": weights(), "averaged": weights(1.01)}))
    found = []
    for entry in ("raw", "averaged"):
        card = write_card(tmp_path, entry=entry)
        (row,) = bench(card, "--checkpoint", tmp_path / "both.pt")
        found.append(row.metrics["psnr"])
        network = open_model(str(card), checkpoint=tmp_path / "both.pt").network.network
        expected = weights(1.01 if entry == "averaged" else 1.0)
        assert torch.equal(network.state_dict()["map_layer0.weight"], expected["map_layer0.weight"])
    assert found[0] != found[1]


@pytest.mark.parametrize("name", ["edm-cifar10-uncond-vp", "cifar10-tiny-vp", "gmm2d", "sd-vae-ft-ema"])
def test_a_card_of_ones_own_cannot_take_a_shipped_name(name, tmp_path):
    card = write_card(tmp_path, name)
    code, told = said("bench", "--model", card, "--checkpoint", tmp_path / "good.pt", "--out", tmp_path / "store")
    assert code == 2
    assert f"'{name}' is a model of the package" in told
    assert rows(tmp_path / "store") == []


def test_nor_can_a_card_beside_it(tmp_path):
    card = write_card(tmp_path, head='[edm-cifar10-uncond-ve]\nlike = "edm-cifar10-uncond-vp"\n')
    code, told = said("models", "info", f"{card}#mine")
    assert code == 2
    assert "'edm-cifar10-uncond-ve' is a model of the package" in told


def test_a_checkpoint_with_a_shipped_name_has_a_name_of_its_own(tmp_path):
    tensors, metadata = load_checkpoint(model_file("cifar10-tiny-flow"))
    file = tmp_path / "copy.safetensors"
    file.write_bytes(model_file("cifar10-tiny-flow").read_bytes())
    assert open_model(str(file)).id == "cifar10-tiny-flow"
    for name in ("cifar10-tiny-flow", "edm-cifar10-uncond-vp", "gmm2d"):
        save_checkpoint(file, {k: 1.01 * t for k, t in tensors.items()}, metadata.model_copy(update={"id": name}))
        model = open_model(str(file))
        assert model.id == f"{name}@{model.sha256[:8]}"
    save_checkpoint(file, tensors, metadata.model_copy(update={"id": "my-own"}))
    assert open_model(str(file)).id == "my-own"


def test_given_weights_of_a_shipped_model_have_no_published_numbers(bench, tmp_path, monkeypatch):
    """The whole way with the name of a shipped model, whose network is made small."""
    shipped = card_named("edm-cifar10-uncond-vp")
    own = card_named(str(write_card(tmp_path)))
    facts = {"network": own.network, "output": "edm-F", "layout": own.layout, "image_shape": own.image_shape}
    small = shipped.model_copy(update=facts)
    monkeypatch.setattr("fastsample.models.catalogue.card_named", lambda name: small)
    (row,) = bench("edm-cifar10-uncond-vp", "--checkpoint", tmp_path / "good.pt")
    assert row.model == f"edm-cifar10-uncond-vp@{sha256(GOOD)[:8]}"
    _, told = said("table", tmp_path / "store", "--published")
    assert f"No published numbers are known for {row.model}." in told
    store = Store(tmp_path / "store", create=False)
    assert Replay(store, "cpu").cell(row.cell).model.id == row.model
    (data_home() / "checkpoints" / f"edm-cifar10-uncond-vp-{sha256(GOOD)[:12]}.safetensors").unlink()
    with pytest.raises(ValueError, match=f"{row.model} is not here: give its file once"):
        Replay(store, "cpu").cell(row.cell)


def test_many_processes_record_what_they_found(tmp_path):
    cards = [card_named("edm-cifar10-uncond-vp").model_copy(update={"id": f"one-{i}", "md5": ""}) for i in range(24)]
    threads = [threading.Thread(target=record, args=(card, "0" * 64, tmp_path)) for card in cards]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = json.loads((tmp_path / "checkpoints" / "lock.json").read_text())
    assert {card.id for card in cards} <= {*kept}


def test_a_lock_is_free_when_its_process_has_ended(tmp_path):
    """The child ends inside the lock without giving it back."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        with locked(tmp_path / ".x.lock"):
            os.write(write, b"1")
            os._exit(1)
    assert os.read(read, 1) == b"1"
    with locked(tmp_path / ".x.lock"):
        assert os.waitpid(child, 0)[1] >> 8 == 1
