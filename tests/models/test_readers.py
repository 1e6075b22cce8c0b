"""Checkpoint files in their published containers are read to their values; hostile ones are refused and run nothing."""

import collections
import gzip
import io
import json
import math
import os
import pickle
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fastsample.models.checkpoints import CheckpointError
from fastsample.models.networks.registry import build_network
from fastsample.models.public.readers import LAYOUTS, read_weights

from ..hash_rule import hashed, hashed_weight

FOLDER = Path(os.environ.get("FASTSAMPLE_FORMAT_GOLDEN", Path(__file__).parents[1] / "data" / "checkpoints"))


def content(name):
    plain = FOLDER / name
    return plain.read_bytes() if plain.is_file() else gzip.decompress((FOLDER / f"{name}.gz").read_bytes())


INDEX = json.loads(content("fmt_index.json"))


@pytest.fixture
def golden(tmp_path):
    """A function that unpacks a file of the index, and gives its path and what the index says."""

    def unpack(name):
        path = tmp_path / name
        path.write_bytes(content(name))
        return path, INDEX[name]

    return unpack


def assert_holds(weights, told, constructed=()):
    assert {name: list(weights.tensors[name].shape) for name in told["keys"]} == told["keys"]
    for name, shape in told["keys"].items():
        if not name.endswith(constructed):
            torch.testing.assert_close(weights.tensors[name], hashed_weight(name, shape), rtol=0, atol=0)


def assert_computes(network, weights, inputs, told):
    network.load_state_dict(weights.tensors)
    with torch.no_grad():
        out = network.eval()(*inputs).flatten()
    np.testing.assert_allclose(out[:32], told["first"], atol=2e-4 * told["std"])
    np.testing.assert_allclose(out[:: told["stride"]][:32], told["strided"], atol=2e-4 * told["std"])


def image(spec, shift=0.0):
    return hashed(spec["name"], spec["shape"], spec["scale"]) + shift


def test_edm_pickle(golden):
    path, told = golden("fmt_edm_tiny.pkl")
    weights = read_weights(path, "edm-pickle")
    assert list(weights.tensors) == list(told["keys"])
    assert (weights.network, weights.config) == (told["class_name"], told["init_kwargs"])
    assert_holds(weights, told, ("resample_filter",))
    forward, classes = told["forward"], told["init_kwargs"]["label_dim"]
    inputs = image(forward["x"]), torch.tensor(forward["sigma"]), torch.eye(classes)[forward["class_index"]]
    assert_computes(build_network(weights.network, weights.config), weights, inputs, forward["D"])


def test_score_sde(golden):
    path, told = golden("fmt_score_sde_tiny.pth")
    weights = read_weights(path, "score-sde")
    assert list(weights.tensors) == list(told["keys"])
    assert weights.tensors["sigmas"].dtype == torch.float64
    assert_holds(weights, told, ("sigmas",))
    forward = told["forward"]
    inputs = image(forward["x"], forward["shift"]), torch.tensor(forward["time_cond"])
    assert_computes(build_network("NCSNpp", told["config"]), weights, inputs, forward["raw"])


def test_ddim(golden):
    path, told = golden("fmt_ddim_tiny.pth")
    weights = read_weights(path, "ddim")
    assert list(weights.tensors) == list(told["keys"])
    assert_holds(weights, told)
    forward = told["forward"]
    inputs = image(forward["x"]), torch.tensor(forward["timesteps"])
    assert_computes(build_network("Model", told["config"]), weights, inputs, forward["eps"])


def test_lightning(golden):
    path, told = golden("fmt_ldm_tiny.ckpt")
    weights = read_weights(path, "lightning")
    assert_holds(weights, told)
    assert weights.tensors["scale_factor"].item() == pytest.approx(told["scale_factor"])
    assert not [name for name in weights.tensors if name.startswith("model_ema")]
    trained = read_weights(path, "state-dict", "state_dict")  # its foreign objects stay inert in every layout
    assert {name for name in trained.tensors if name.startswith("model_ema")}


STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2, dtype=torch.float16)}


def assert_is_state(weights):
    assert list(weights.tensors) == list(STATE)
    assert all(torch.equal(weights.tensors[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("entry", ["", "ema_model"])
def test_state_dict_plain_wrapped_and_in_either_format(tmp_path, zipped, entry):
    wrapped = {f"module.{name}": tensor for name, tensor in STATE.items()}
    data = {"ema_model": wrapped, "optimizer": {"lr": 1}} if entry else STATE
    torch.save(data, tmp_path / "file.pt", _use_new_zipfile_serialization=zipped)
    assert_is_state(read_weights(tmp_path / "file.pt", "state-dict", entry))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_every_kind_of_tensor_has_the_values_that_torch_reads(tmp_path, zipped):
    whole = torch.arange(60.0).reshape(5, 12)
    named = torch.nn.Parameter(torch.ones(3))
    named.tag = "kept with it"
    state = {
        "rows": whole[1:4], "columns": whole[:, ::3], "turned": whole.T, "scalar": torch.tensor(3.5), "named": named,
        "none": torch.zeros(0, 4), "bytes": torch.arange(7, dtype=torch.uint8), "flags": torch.tensor([True, False]),
        "bf16": torch.randn(3).bfloat16(), "wide": torch.arange(5), "double": torch.ones(2, 2, dtype=torch.float64),
    }  # fmt: skip
    content = {"m": collections.OrderedDict(state), "size": whole.shape}
    torch.save(content, tmp_path / "f", _use_new_zipfile_serialization=zipped)
    found = read_weights(tmp_path / "f", "state-dict", "m").tensors
    theirs = torch.load(tmp_path / "f", weights_only=True)["m"]
    assert list(found) == list(theirs)
    for name, tensor in theirs.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
        assert found[name].stride() == tensor.stride()


def test_a_flipped_bit_of_a_record_is_told(tmp_path):
    torch.save(STATE, tmp_path / "file.pt")
    data = bytearray((tmp_path / "file.pt").read_bytes())
    data[data.index(torch.tensor([4.0, 5.0]).numpy().tobytes())] ^= 1
    (tmp_path / "file.pt").write_bytes(data)
    with pytest.raises(CheckpointError, match="record 0 is damaged"):
        read_weights(tmp_path / "file.pt", "state-dict")


def test_safetensors_is_told_by_its_content(tmp_path):
    save_file(STATE, tmp_path / "file.pt")
    weights = read_weights(tmp_path / "file.pt", "state-dict")
    assert all(torch.equal(weights.tensors[name], STATE[name]) for name in STATE)


def test_protocol_2_of_an_edm_pickle(golden, tmp_path):
    """Older pickles write bytes through _codecs.encode and names as GLOBAL."""
    storage = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(torch.arange(4.0).storage(), storage, _use_new_zipfile_serialization=False)
    # A module with one parameter, written by hand: pickle itself would import the classes.
    text = storage.getvalue().decode("latin1")
    module = (
        b"\x80\x02}X\x03\x00\x00\x00emactorch_utils.persistence\n_reconstruct_persistent_obj\n(}("
        + _items(type="class", version=6, module_src="raise SystemExit", class_name="Precond")
        + b"X\x05\x00\x00\x00state}("
        + b"X\x0b\x00\x00\x00_parameters}X\x01\x00\x00\x00pctorch._utils\n_rebuild_tensor_v2\n("
        + b"ctorch.storage\n_load_from_bytes\n(c_codecs\nencode\n("
        + _text(text) + _text("latin1") + b"tRtRK\x00(K\x02K\x02t(K\x02K\x01t\x89}tRs"
        + b"X\x08\x00\x00\x00_buffers}X\x08\x00\x00\x00_modules}uutRs."
    )  # fmt: skip
    (tmp_path / "old.pkl").write_bytes(module)
    assert torch.equal(read_weights(tmp_path / "old.pkl", "edm-pickle").tensors["p"], torch.tensor([[0.0, 1], [2, 3]]))


def _text(value):
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def _items(**values):
    return b"".join(_text(key) + (_text(v) if isinstance(v, str) else b"K" + bytes([v])) for key, v in values.items())


# Hostile files. Each would leave a canary if anything in it ran.


class Reduce:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Foreign(torch.nn.Module):
    """A class that no checkpoint knows."""


def edm_like(ema):
    return {"ema": ema, "loss_fn": None, "augment_pipe": None, "dataset_kwargs": {}}


def persistent(state, name="Precond"):
    """Bytes of a pickle {"ema": module with that state}; `state` is the pickle code of a value."""
    return (
        b"\x80\x04}" + _text("ema") + b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n(}("
        + _items(type="class", module_src="raise SystemExit", class_name=name) + _text("state") + state + b"utRs."
    )  # fmt: skip


def tensor_code(storage, size=b"(K\x02t", stride=b"(K\x01t"):
    """Pickle code of a state with one parameter over that nested storage."""
    nested = b"ctorch.storage\n_load_from_bytes\n(B" + struct.pack("<I", len(storage)) + storage + b"tR"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + nested + b"K\x00" + size + stride + b"\x89}tR"
    groups = b"}" + _text("p") + tensor + b"s" + _text("_buffers") + b"}" + _text("_modules") + b"}"
    return b"}(" + _text("_parameters") + groups + b"u"


def storage_bytes(values=2):
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(torch.zeros(values).storage(), file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def torch_zip(value, records=(), compression=zipfile.ZIP_STORED):
    """A zip of the form of torch.save with that pickle, or that value pickled."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("archive/data.pkl", value if isinstance(value, bytes) else pickle.dumps(value, 2))
        archive.writestr("archive/version", b"3\n")
        for name, data in records:
            archive.writestr(name, data)
    return file.getvalue()


def claims(count, size, stride=b"(K\x01t", kind=b"FloatStorage"):
    """A torch zip with a state_dict of one tensor of `size` (pickle code) over two values that claims `count`."""
    storage = b"(" + _text("storage") + b"ctorch\n" + kind + b"\n" + _text("0") + _text("cpu") + count + b"tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00" + size + stride + b"\x89}tR"
    data = b"\x80\x02}" + _text("state_dict") + b"}" + _text("p") + tensor + b"ss."
    return torch_zip(data, [("archive/data/0", bytes(8))])


CLAIM = b'{"p":{"dtype":"F32","shape":[99999999],"data_offsets":[0,8]}}'
HUGE = b"\x8a\x06" + (2**44).to_bytes(6, "little")


def attacks(canary):
    run = f"touch {canary}"
    evil = Reduce(os.system, run)
    fork = Reduce(eval, f"__import__('os').system({run!r})")
    nested = Reduce(getattr, Reduce(__import__, "os"), "system")
    right = persistent(tensor_code(storage_bytes()))
    return {
        "os.system": pickle.dumps(evil),
        "os.system, protocol 0": pickle.dumps(evil, 0),
        "builtins.eval": pickle.dumps(edm_like(fork), 2),
        "nested reduce": pickle.dumps(edm_like([Reduce(map, os.system, [run]), nested]), 2),
        "state set on a function": b"\x80\x04}" + _text("ema") + b"ctorch._utils\n_rebuild_tensor_v2\nN}" + _text("x")
        + b"K\x01s\x86bs.",
        "state set on a class": b"\x80\x04}" + _text("ema") + b"cnumpy\ndtype\nN}" + _text("x") + b"K\x01s\x86bs.",
        "persistent id": b"\x80\x04}" + _text("ema") + _text("os") + b"Qs.",
        "persistent id as text": b"\x80\x04}" + _text("ema") + b"Pos.system\ns.",
        "extension registry": b"\x80\x04}" + _text("ema") + b"\x82\x01s.",
        "instance": b"(" + _text(run) + b"ios\nsystem\n.",
        "truncated": right[: len(right) // 2],
        "empty": b"",
        "no pickle": b"\x80\x05 this is no pickle",
        "giant bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**45) + b"x.",
        "giant text": b"\x80\x04X" + struct.pack("<I", 2**32 - 1) + b"x.",
        "giant frame": b"\x80\x04\x95" + struct.pack("<Q", 2**45) + b"N.",
        "giant memo": b"\x80\x04Nr" + struct.pack("<I", 2**32 - 1) + b".",
        "giant tensor": persistent(tensor_code(storage_bytes(), b"(" + HUGE + b"t")),
        "giant by stride 0": persistent(tensor_code(storage_bytes(), b"(" + HUGE + b"t", b"(K\x00t")),
        "negative stride": persistent(tensor_code(storage_bytes(), stride=b"(J\xff\xff\xff\xfft")),
        "nested storage that runs code": persistent(tensor_code(pickle.dumps(evil, 2))),
        "nested storage that is a model": persistent(tensor_code(_saved(Foreign()))),
        "nested storage that is a zip": persistent(tensor_code(_saved(evil))),
        "foreign class": persistent(tensor_code(storage_bytes()), "Subprocess"),
        "network of a foreign class": persistent(b"cos\nsystem\n"),
        "dtype of objects": b"\x80\x04}" + _text("ema") + b"cnumpy\ndtype\n(" + _text("O8") + b"tRs.",
        "module with foreign parts": pickle.dumps(edm_like(Foreign()), 2),
        "torch.load that runs code": _saved(edm_like(evil)),
        "torch.load of a model": _saved(edm_like(Foreign())),
        "torch.load, legacy, that runs code": _saved(edm_like(evil), False),
        "zip that runs code": torch_zip({"state_dict": {"p": evil}}),
        "zip with code in the state dict": torch_zip({"state_dict": {"p": torch.nn.Linear}}),
        "zip without data.pkl": _zip({"model.ckpt": b"x"}),
        "zip with two data.pkl": _zip({"a/data.pkl": b"N.", "b/data.pkl": b"N."}),
        "zip bomb": torch_zip(bytes(10**6), compression=zipfile.ZIP_DEFLATED),
        "zip cut off": torch_zip({"state_dict": {}})[:-30],
        "zip tensor larger than its record": claims(HUGE, b"(" + HUGE + b"t"),
        "zip view larger than its storage": claims(b"K\x02", b"(" + HUGE + b"t"),
        "zip view by stride 0": claims(b"K\x02", b"(" + HUGE + b"t", b"(K\x00t"),
        "zip storage of a foreign class": claims(b"K\x02", b"(K\x02t", kind=b"EvilStorage"),
        "names that are no text": _saved({"state_dict": {1: torch.zeros(2)}, 2: torch.zeros(2)}),
        "not finite": _saved({"p": torch.tensor([1.0, math.nan])}),
        "complex": _saved({"p": torch.zeros(2, dtype=torch.complex64)}),
        "sparse": _saved({"p": torch.eye(2).to_sparse()}),
        "expanded": _saved({"p": torch.zeros(1).expand(2**40)}),
        "html": b"<!DOCTYPE html><html>quota exceeded</html>",
        "safetensors that claims more": struct.pack("<Q", len(CLAIM)) + CLAIM + bytes(8),
    }  # fmt: skip


def _saved(value, zipped=True):
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def _zip(members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", attacks("canary"))
def test_hostile_files_are_refused_and_run_nothing(name, layout, tmp_path):
    canary, file = tmp_path / "canary", tmp_path / "file"
    file.write_bytes(attacks(canary)[name])
    with pytest.raises(CheckpointError, match="file"):
        read_weights(file, layout)
    assert not canary.exists()


def test_the_attacks_are_real(tmp_path):
    """The canary sings when a file is opened the usual way."""
    canary = tmp_path / "canary"
    pickle.loads(attacks(canary)["os.system"])
    assert canary.exists()


def test_a_right_file_made_the_same_way_is_read(tmp_path):
    """So the attacks on it fail for what they do, not for their form."""
    (tmp_path / "right.pkl").write_bytes(persistent(tensor_code(storage_bytes())))
    assert torch.equal(read_weights(tmp_path / "right.pkl", "edm-pickle").tensors["p"], torch.zeros(2))
    (tmp_path / "right.ckpt").write_bytes(claims(b"K\x02", b"(K\x02t"))
    assert torch.equal(read_weights(tmp_path / "right.ckpt", "lightning").tensors["p"], torch.zeros(2))


def test_a_malicious_storage_in_an_otherwise_right_edm_pickle(golden, tmp_path):
    path, _ = golden("fmt_edm_tiny.pkl")
    canary, data = tmp_path / "canary", path.read_bytes()
    start = data.index(b"_load_from_bytes")
    # The first nested storage: BINBYTES or SHORT_BINBYTES after the name; its content is replaced byte for byte.
    begin = data.index(b"\x80\x02\x8a\n", start)
    evil = pickle.dumps(Reduce(os.system, f"touch {canary}"), 2)
    (tmp_path / "evil.pkl").write_bytes(data[:begin] + evil + data[begin + len(evil) :])
    with pytest.raises(CheckpointError, match="nested storage"):
        read_weights(tmp_path / "evil.pkl", "edm-pickle")
    assert not canary.exists()


def test_score_sde_averages_must_match_the_model(tmp_path):
    model = collections.OrderedDict(a=torch.zeros(2), b=torch.zeros(3))
    for shadow, told in (([torch.zeros(2)], "1 entries for 2"), ([torch.zeros(3), torch.zeros(2)], "order of model")):
        torch.save({"model": model, "ema": {"shadow_params": shadow}}, tmp_path / "file.pth")
        with pytest.raises(CheckpointError, match=told):
            read_weights(tmp_path / "file.pth", "score-sde")


def test_a_missing_file_and_another_layout_are_told(tmp_path):
    with pytest.raises(CheckpointError, match="is not a file"):
        read_weights(tmp_path / "nothing.pt", "state-dict")
    torch.save(STATE, tmp_path / "file.pt")
    expected = (("score-sde", "no entry 'model'"), ("ddim", "not a list"), ("lightning", "no entry 'state_dict'"))
    for layout, told in expected:
        with pytest.raises(CheckpointError, match=told):
            read_weights(tmp_path / "file.pt", layout)
