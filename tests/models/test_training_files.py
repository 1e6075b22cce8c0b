"""Checkpoints as training scripts write them: their tensors are read, all else stays inert, wrong files are named."""

import argparse
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import gzip
import io
import json
import logging
import pathlib
import random
import tarfile
import time
import uuid
import zipfile

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import save, save_file

from fastsample.models.catalogue import open_model
from fastsample.models.checkpoints import CheckpointError
from fastsample.models.networks.registry import build_network
from fastsample.models.public.cards import card_named
from fastsample.models.public.conversion import load_converted
from fastsample.models.public.fetch import fetch
from fastsample.models.public.readers import read_weights

from ..cards import CONFIG, write_card
from ..command import command


@pytest.fixture(scope="module")
def own():
    torch.manual_seed(0)
    return {name: tensor.clone() for name, tensor in build_network("SongUNet", CONFIG).state_dict().items()}


@pytest.fixture
def converted(tmp_path):
    """A function that saves a content, converts it, and gives the tensors and what was told."""

    def convert(content, entry="", **how):
        card_file, file, told = write_card(tmp_path, entry=entry), tmp_path / "file.pt", io.StringIO()
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            torch.save(content, file, **how)
        console = Console(file=told, width=500)
        done = fetch(card_named(str(card_file)), tmp_path / "home", console, file)
        return load_converted(done)[0], told.getvalue()

    return convert


def assert_same(found, own):
    assert found.keys() == own.keys()
    assert all(torch.equal(found[name], own[name]) for name in own)


def without(tensors):
    """Other weights of the same names."""
    return {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntFlag):
    HIGH = 2


@dataclasses.dataclass
class Settings:
    lr: float = 1e-4
    steps: tuple = (1, 2)


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    lr: float = 1e-4


class EasyDict(dict):
    """As of easydict, ml_collections, lightning: a dictionary with attributes."""

    def __getattr__(self, name):
        return self[name]


class Named(collections.namedtuple("Named", "a b")):
    """A tuple with names."""


class Keyword:
    """Is pickled with keywords."""

    def __new__(cls, *, size=1):
        return super().__new__(cls)

    def __getnewargs_ex__(self):
        return (), {"size": 3}


class Tagged(torch.Tensor):
    """A class derived from a tensor's."""


def beside():
    """What stands beside the tensors, by its name."""
    rng = np.random.default_rng(0)
    attributed = torch.zeros(2)
    attributed.note = "kept with it"
    return {
        "namespace": argparse.Namespace(lr=1e-4, image_size=256, results=pathlib.Path("results")),
        "numpy scalars": [np.float64(3.2), np.float32(1), np.int64(7), np.bool_(True), np.complex128(1j), np.str_("a")],
        "numpy arrays": [np.zeros(3), np.arange(4, dtype=">i4"), np.array(["a"], object), np.datetime64("2024-01-01")],
        "paths": [pathlib.PurePosixPath("/a/b"), pathlib.PureWindowsPath("c:/x"), pathlib.Path("x")],
        "times": [datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC), datetime.date(2024, 1, 1), datetime.time(1, 2),
                  datetime.timedelta(seconds=3), datetime.timezone(datetime.timedelta(hours=1))],
        "numbers": [decimal.Decimal("1.5"), fractions.Fraction(1, 3), 1 + 2j, 10**40, float("inf"), range(3), slice(1)],
        "random states": [random.getstate(), np.random.get_state(), np.random.RandomState(0), rng,  # noqa: NPY002
                          rng.bit_generator.state, torch.get_rng_state(), b"state", bytearray(b"x")],
        "collections": [collections.OrderedDict(a=1), collections.defaultdict(list, a=[1]), collections.Counter("aab"),
                        collections.deque([1, 2], 3), {1, 2}, frozenset({"a"}), {(1, 2): 3, frozenset({1}): 4}],
        "enum": [Colour.RED, Level.HIGH, {Colour.RED: 1}, {Colour.RED, Level.HIGH}, {pathlib.Path("a"): 1}],
        "partial": functools.partial(torch.nn.functional.silu, inplace=True),
        "functions": [torch.nn.functional.silu, len, torch.optim.Adam, np.float32, str.upper],
        "dataclasses": [Settings(), Slotted(), Named(1, 2), Keyword()],
        "easydict": EasyDict(a=1, b=EasyDict(c=2)),
        "torch": [torch.Size([1, 2]), torch.device("cuda:0"), torch.float16, torch.float32,
                  torch.nn.Parameter(torch.ones(2)), torch.strided, torch.finfo(torch.float32).max],
        "modules": [torch.nn.Linear(2, 2), torch.nn.Sequential(torch.nn.SiLU())],
        "tensors": [torch.zeros(2, dtype=torch.complex64), torch.eye(2).to_sparse(), torch.zeros(2, dtype=torch.uint16),
                    torch.zeros(2).to(torch.float8_e4m3fn), torch.ones(2).as_subclass(Tagged), attributed,
                    torch.ones(3).untyped_storage()],
        "identity": [uuid.UUID(int=5), logging.getLogger("a"), NotImplemented, ..., None],
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("name", beside())
def test_what_stands_beside_the_tensors_stays_inert(name, protocol, own, tmp_path):
    content = {"before": beside()[name], "ema": own, "after": {"inside": beside()[name]}}
    torch.save(content, tmp_path / "file.pt", pickle_protocol=protocol)
    assert_same(read_weights(tmp_path / "file.pt", "state-dict", "ema").tensors, own)
    assert_same(read_weights(tmp_path / "file.pt", "state-dict").tensors, own)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(beside().keys() - {"tensors"}))
def test_in_the_older_format_too(name, own, tmp_path):
    torch.save({"before": beside()[name], "ema": own}, tmp_path / "file.pt", _use_new_zipfile_serialization=False)
    assert_same(read_weights(tmp_path / "file.pt", "state-dict", "ema").tensors, own)


def test_objects_of_libraries_that_are_not_here(own, tmp_path):
    """The classes are there when the file is written, and gone when it is read."""
    made = type("DictConfig", (EasyDict,), {"__module__": "omegaconf.dictconfig"})
    module = type("Module", (), {"__module__": "omegaconf.dictconfig", "DictConfig": made})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "omegaconf.dictconfig", module)
        patch.setitem(__import__("sys").modules, "omegaconf", module)
        torch.save({"hyper_parameters": made(lr=1), "ema": made(own), "cfg": made}, tmp_path / "file.pt")
    assert_same(read_weights(tmp_path / "file.pt", "state-dict", "ema").tensors, own)


@pytest.mark.parametrize("layout", ["score-sde", "ddim", "lightning"])
def test_other_layouts_take_foreign_objects_too(layout, own, tmp_path):
    args = argparse.Namespace(when=datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC), best=np.float64(1))
    content = {
        "score-sde": {"model": own, "ema": {"shadow_params": list(own.values()), "decay": np.float64(1)}, "args": args},
        "ddim": [args, {"lr": np.float64(1)}, np.int64(3), 4, own],
        "lightning": {"state_dict": own, "hyper_parameters": args},
    }[layout]
    torch.save(content, tmp_path / "file.pt")
    assert_same(read_weights(tmp_path / "file.pt", layout).tensors, own)


PREFIXES = (
    "_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module.", "model.", "_forward_module.", "net.",
    "denoiser.", "model._orig_mod.", "_forward_module.module.", "module.model.", "net.module._orig_mod.",
    "_fsdp_wrapped_module.", "diffusion_model.unet.",
)  # fmt: skip


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("count", ["", "n_averaged", "_orig_mod.n_averaged"])
def test_what_wrappers_add_to_names(prefix, count, own, converted):
    before = "" if not count else "module." if count == "n_averaged" else "_orig_mod.module."
    wrapped = {f"{before}{prefix}{name}": tensor for name, tensor in own.items()}
    counted = {count: torch.tensor(3)} if count else {}
    found, _ = converted({"ema": counted | wrapped, "model": without(own)}, "ema")
    assert_same(found, own)


def test_the_reader_alone_takes_wrappers_off(own, tmp_path):
    """Of names that no network is compared with."""
    for count in ("n_averaged", "_orig_mod.n_averaged"):
        wrapped = {f"_orig_mod.module._orig_mod.{name}": tensor for name, tensor in own.items()}
        torch.save({count: torch.tensor(3)} | wrapped, tmp_path / "file.pt")
        assert_same(read_weights(tmp_path / "file.pt", "state-dict").tensors, own)


def test_wrappers_inside_names(own, converted):
    inner = {name.replace("enc.", "enc._orig_mod.", 1).replace("dec.", "dec._checkpoint_wrapped_module.", 1): tensor
             for name, tensor in own.items()}  # fmt: skip
    assert inner.keys() != own.keys()
    assert_same(converted({"ema": inner})[0], own)


def test_the_averaged_weights_are_taken_of_flat_names_too(own, converted):
    """As Lightning writes a module with two networks."""
    trained = {f"net.{name}": tensor for name, tensor in without(own).items()}
    averaged = {f"net_ema.{name}": tensor for name, tensor in own.items()}
    assert_same(converted({"state_dict": trained | averaged | {"loss.weight": torch.ones(3)}})[0], own)
    twins = {f"other.{name}": tensor for name, tensor in own.items()}
    asked = converted({"state_dict": trained | twins}, "state_dict.other")[0]
    assert_same(asked, own)
    with pytest.raises(CheckpointError, match=r"weights stand under left\. and right\.; an `entry` must say which"):
        converted({f"{side}.{name}": tensor for side in ("left", "right") for name, tensor in own.items()})


@pytest.mark.parametrize(
    ("entry", "content"),
    [
        ("model.ema", lambda own: {"model": {"ema": own, "raw": without(own)}}),
        ("state.ema_model", lambda own: {"state": {"ema_model": own, "model": without(own)}, "step": torch.tensor(3)}),
        ("ema.0.999", lambda own: {"ema": {0.999: own, 0.9: without(own)}}),
        ("model.ema", lambda own: {"model.ema": own, "model": without(own)}),
        ("1", lambda own: [without(own), own]),
        ("ema.ema_model", lambda own: {"ema": {f"{k}.{n}": t for k, w in (("online_model", without(own)),
                                      ("ema_model", own)) for n, t in w.items()}}),
        ("ema", lambda own: EasyDict(ema=EasyDict(own), model=without(own))),
    ],
)  # fmt: skip
def test_nested_entries(entry, content, own, converted):
    assert_same(converted(content(own), entry)[0], own)


def optimizer(own):
    return {"state": {n: {"step": torch.tensor(1.0), "exp_avg": t} for n, t in enumerate(own.values())}}


@pytest.mark.parametrize(
    ("taken", "content"),
    [
        ("ema", lambda own: {"model": without(own), "ema": own, "opt": optimizer(own), "args": argparse.Namespace()}),
        ("swa_model", lambda own: {"model": without(own), "swa_model": own}),
        ("model_ema", lambda own: {"state_dict": without(own), "model_ema": own, "rng": torch.get_rng_state()}),
        ("model", lambda own: {"model": own, "optimizer": optimizer(own), "scheduler": {"base_lrs": [1e-4]}}),
        ("net", lambda own: {"net": own, "vae": without(own), "loss": {"logvar": torch.zeros(1)}}),
        ("state.ema", lambda own: {"state": {"ema": own, "model": without(own)}, "step": torch.tensor(4)}),
        ("ema.model", lambda own: {"ema": {"decay": 0.999, "model": own}, "model": without(own)}),
    ],
)
def test_the_entry_that_is_taken_unasked(taken, content, own, converted):
    found, told = converted(content(own))
    assert_same(found, own)
    assert f"the entry {taken!r} is taken, of " in told
    assert f"{taken} ({len(own)})" in told


def test_a_wrong_choice_is_told_with_the_entries_that_there_are(own, converted):
    other = {"x": torch.zeros(2)}
    content = {"model": own, "nested": {"ema": dict(own)}, "vae": other, "args": argparse.Namespace(lr=1)}
    n = len(own)
    there = rf"model \({n}\), vae \(1\), nested\.ema \({n}\)"
    with pytest.raises(CheckpointError, match=rf"no entry 'ema'; tensors are in {there}"):
        converted(content, "ema")
    with pytest.raises(CheckpointError, match=rf"does not fit its network.*; its entries with tensors are {there}"):
        converted(content, "vae")
    with pytest.raises(CheckpointError, match="args is not a state dict: it is an object of a class of its own"):
        converted(content, "args")
    with pytest.raises(CheckpointError, match=rf"holds several: ema1 \({n}\), ema_2 \({n + 1}\); an `entry` must say"):
        converted({"ema1": own, "ema_2": own | other})
    with pytest.raises(CheckpointError, match=r"not a state dict: it is an object .* save its state_dict\(\)"):
        converted(build_network("SongUNet", CONFIG))


def test_a_content_without_end_ends(own, tmp_path):
    """Entries that contain themselves, or one another in very many ways."""
    knot: dict = {"ema": own}
    knot["itself"] = knot
    wide: dict = {"x": torch.ones(1)}
    for _ in range(4):
        wide = {f"{n}": wide for n in range(100)}
    torch.save(knot | {"wide": wide}, tmp_path / "file.pt")
    begin = time.process_time()
    assert_same(read_weights(tmp_path / "file.pt", "state-dict", "ema").tensors, own)
    assert time.process_time() - begin < 5


def test_safetensors_of_a_training_script(own, converted, tmp_path):
    wrapped = {f"module._orig_mod.{name}": tensor for name, tensor in own.items()}
    assert_same(converted(save(wrapped), "ema")[0], own)
    both = {f"model.{name}": t for name, t in without(own).items()} | {f"ema.{name}": t for name, t in own.items()}
    assert_same(converted(save(both), "ema")[0], own)
    assert_same(converted(save(both))[0], own)


def test_a_network_of_v_as_a_card_says(own, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTSAMPLE_HOME", str(tmp_path / "home"))
    torch.save({"ema": own}, tmp_path / "file.pt")
    card = write_card(tmp_path, entry="ema", output="v", path={"name": "vp-discrete"})
    opened = open_model(str(card), checkpoint=tmp_path / "file.pt")
    path, x = opened.path, torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    t = 0.5
    v = opened.network(x, torch.full((2,), 1000 * t))
    x0 = opened.make(opened.network, None, 0.0, None).x0(x, t)
    assert v.any()
    torch.testing.assert_close(x0, path.alpha(t) * x - path.sigma(t) * v)


@pytest.mark.parametrize(
    ("output", "path"),
    [
        ("v", {"name": "vp-discrete", "zero_terminal_snr": True}),
        ("x0", {"name": "vp-discrete", "schedule": "cosine", "zero_terminal_snr": True}),
        ("eps", {"name": "vp-discrete", "zero_terminal_snr": True}),
        ("v", {"name": "vp-discrete", "beta_last": 1.0}),
        ("eps", {"name": "flow"}),
    ],
)
def test_cards_whose_noise_end_has_no_data_in_it(output, path, own, tmp_path, monkeypatch):
    """Networks of eps, which says nothing there, start where lambda is finite."""
    monkeypatch.setenv("FASTSAMPLE_HOME", str(tmp_path / "home"))
    torch.save({"ema": own}, tmp_path / "file.pt")
    card = write_card(tmp_path, entry="ema", output=output, path=path)
    opened = open_model(str(card), checkpoint=tmp_path / "file.pt")
    assert (opened.path.alpha(opened.path.t_noise) == 0) == (output != "eps")
    words = ("bench", "--model", card, "--checkpoint", tmp_path / "file.pt", "--nfe", "4")
    words += ("--solver", "ddim,euler,edm-heun,unipc", "--samples", "2", "--reference-steps", "20", "--metrics", "psnr")
    code, _, told = command(*words, "--out", tmp_path / "store")
    assert code == 0, told
    assert len(list((tmp_path / "store" / "rows").glob("*.json"))) == 4


def test_rescaled_betas_are_those_of_a_table_alone(tmp_path):
    card = write_card(tmp_path, path={"name": "flow", "zero_terminal_snr": True})
    with pytest.raises(CheckpointError, match="zero_terminal_snr rescales the betas of vp-discrete"):
        card_named(str(card))


def _zip(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), data)
    return file.getvalue()


def wrong_files():
    """(name, content, what is told of it)."""
    saved, tensors = io.BytesIO(), save({"x": torch.zeros(1000), "y": torch.zeros(2)})
    torch.save({"ema": {"x": torch.zeros(1000)}}, saved)
    torch_file = saved.getvalue()
    legacy = io.BytesIO()
    torch.save({"x": torch.zeros(1000)}, legacy, _use_new_zipfile_serialization=False)
    scripted = _zip(m__data_dot_pkl=b"N.", m__constants_dot_pkl=b"N.", m__code__x_dot_py=b"")
    packed, tar = io.BytesIO(), io.BytesIO()
    np.savez(packed, x=np.zeros(3))
    with tarfile.open(fileobj=tar, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x"), None)
    index = {"metadata": {"total_size": 1}, "weight_map": {"a": "model-00001-of-00002.safetensors",
                                                          "b": "model-00002-of-00002.safetensors"}}  # fmt: skip
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    yield from (
        ("a Git LFS pointer", pointer, "a Git LFS pointer, which `git lfs pull` replaces by the file"),
        ("a web page", "\n<!DOCTYPE html><html>Sign in</html>", "a web page"),
        ("a page with a mark", "\ufeff<html><body>quota</body></html>", "a web page"),
        ("a page without doctype", "<head><title>404</title></head>", "a web page"),
        ("an error in XML", '<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "an answer in XML"),
        ("an error in JSON", '{"error": "Invalid password."}', 'a text in JSON, which says "Invalid password."'),
        ("a list in JSON", "[1, 2]", "a text in JSON"),
        ("a line of text", "Not Found\n", 'a text, which begins with "Not Found"'),
        ("an index", json.dumps(index), r"an index of 2 shards \(model-00001-of-00002.safetensors, model-00002"),
        ("an indented index", json.dumps(index, indent=2), "an index of 2 shards"),
        ("an empty file", b"", "an empty file"),
        ("a cut zip", torch_file[:-100], "a zip without its end, so cut short"),
        ("a cut older file", legacy.getvalue()[:-100], "has not the 1000 values|truncated"),
        ("a cut pickle", legacy.getvalue()[:80], "truncated"),
        ("cut safetensors", tensors[:-100], "a safetensors file cut short: [0-9,]+ of [0-9,]+ bytes"),
        ("safetensors cut in the header", tensors[:60], "a safetensors file cut short: 60 bytes, where its header"),
        ("gzip", gzip.compress(torch_file), "a gzip file: unpack it first"),
        ("tar", tar.getvalue(), "a tar archive: unpack it first"),
        ("7z", b"7z\xbc\xaf\x27\x1c\0\4" + bytes(99), "a 7z archive: unpack it first"),
        ("onnx", b"\x08\x08\x12\x07pytorch\x1a\x051.9.0:\x01" + bytes(99), "an ONNX graph"),
        ("TensorFlow", b"\x08\x01\x12\xfa\xf4\x05\x0a" + bytes(99), "a graph of TensorFlow"),
        ("TensorFlow's index", bytes(99) + b"\x57\xfb\x80\x8b\x24\x75\x47\xdb", "index of a checkpoint of TensorFlow"),
        ("h5", b"\x89HDF\r\n\x1a\n" + bytes(99), "an HDF5 file"),
        ("gguf", b"GGUF\x03\0\0\0" + bytes(99), "a GGUF file"),
        ("npz", packed.getvalue(), r"an archive of arrays of NumPy \(.npz\)"),
        ("npy", b"\x93NUMPY\x01\0" + bytes(99), "an array of NumPy"),
        ("flax", b"\x82\xa6params\x81\xa6kernel\xc7" + bytes(99), "a msgpack file"),
        ("TorchScript", scripted, "a TorchScript archive"),
        ("a zip of checkpoints", _zip(run__best_dot_pt=b"x", notes_dot_txt=b"y"), r"a zip of files.*run/best\.pt"),
        ("a picture", b"\x89PNG\r\n\x1a\n" + bytes(99), "a picture"),
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "content", "told"), [pytest.param(*one, id=one[0]) for one in wrong_files()])
def test_a_wrong_file_is_named_for_what_it_is(name, content, told, converted):
    content = content.encode() if isinstance(content, str) else content
    for entry in ("", "ema"):
        with pytest.raises(CheckpointError, match=told) as error:
            converted(content, entry)
        assert "file.pt" in str(error.value)
        assert len(str(error.value).splitlines()) == 1


def test_a_folder_is_named_for_what_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FASTSAMPLE_HOME", str(tmp_path / "home"))
    card = write_card(tmp_path)
    folder = tmp_path / "run"
    folder.mkdir()
    save_file({"x": torch.zeros(1)}, folder / "model.safetensors")
    words = ("models", "fetch", card, "--checkpoint", folder)
    code, _, told = command(*words)
    assert code == 2, told
    assert "a folder: give the file with the weights in it (model.safetensors)" in " ".join(told.split())
    (folder / "__0_0.distcp").touch()
    code, _, told = command(*words)
    assert "a folder of torch.distributed.checkpoint" in " ".join(told.split())
