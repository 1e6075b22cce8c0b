"""Small files that ask for gigabytes or hours, and a process that reads them all.

As a script it reads lines of JSON, [path, reader], and prints one for each: the error, seconds of CPU, and the peak of
the process so far in MB.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from fastsample.datasets.images import dataset_named
from fastsample.datasets.moments import ReferenceStats
from fastsample.datasets.published_moments import read_stats
from fastsample.models.checkpoints import load_model
from fastsample.models.public.cards import card_named
from fastsample.models.public.readers import LAYOUTS, read_weights
from fastsample.solvers.imported.files import read_published

MOST = 4_000_000  # bytes of a file

READERS: dict[str, Callable[[Path], object]] = {
    **{layout: lambda path, layout=layout: read_weights(path, layout) for layout in LAYOUTS},  # type: ignore[misc]
    "statistics": lambda path: read_stats(path, "inception-v3-compat"),
    "reference": ReferenceStats.load,
    "images": lambda path: dataset_named(f"folder:{path}").loaded(),
    "card": lambda path: card_named(str(path)),
    "model": load_model,
    "published": read_published,
}


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def integer(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def zipped(program: bytes, *records: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/version", b"3\n")
        for name, data in records:
            archive.writestr(name, data)
    return file.getvalue()


def legacy(program: bytes) -> bytes:
    facts = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    return b"".join(pickle.dumps(one, 2) for one in (0x1950A86A20F9469CFC6C, 1001, facts)) + program


def module(groups: bytes, name: bytes = b"Precond", extra: bytes = b"") -> bytes:
    """Pickle code of a module of EDM whose state is `groups` and `extra`, items of a dictionary."""
    return (
        b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n(}(" + text("type") + text("class")
        + text("class_name") + text(name.decode()) + text("state") + b"}(" + groups + extra + b"uutR"
    )  # fmt: skip


def edm(ema: bytes) -> bytes:
    return b"\x80\x02}" + text("ema") + ema + b"s."


EMPTY = text("_parameters") + b"}" + text("_buffers") + b"}"
PAIRS = b"N" + b"2\x86" * 60  # 2^60 leaves
SHARED = b"((" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + integer(100_000) + b"tQq\x00"
VIEW = b"ctorch._utils\n_rebuild_tensor_v2\nq\x01(h\x00K\x00" + integer(100_000) + b"\x85K\x01\x85\x89}tq\x020"


def programs() -> Iterator[tuple[str, bytes]]:
    """Pickles that are read as a file by itself, in a zip of torch.save, and in its older format."""
    yield "a bytearray of any size", b"\x80\x02}" + text("ema") + b"cbuiltins\nbytearray\nI9999999999\n\x85Rs."
    yield "bytes that are not there", b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x."
    yield "an integer of 4 MB as a key", b"\x80\x02}\x8b" + struct.pack("<i", 1_000_000) + b"\x01" * 1_000_000 + b"Ns."
    long = text("x" * 1_000_000) + b"q\x00" + text("latin1") + b"\x86q\x01c_codecs\nencode\nq\x020"
    yield "one text encoded again and again", b"\x80\x02](" + long + b"h\x02h\x01R" * 500_000 + b"e."
    numbers = b"}q\x00(" + b"".join(integer(n) + b"N" for n in range(200_000)) + b"u"
    for name in ("dnnlib.util\nEasyDict", "collections\nOrderedDict"):
        copies = b"\x85q\x01c" + name.encode() + b"\nq\x020"
        again = b"h\x02h\x01R" * 200_000
        yield f"copies of a dictionary by {name.split()[1]}", b"\x80\x02](" + numbers + copies + again + b"e."
    yield "nested pairs as a key", b"\x80\x02}" + PAIRS + b"Ns."
    yield "nested pairs in a set", b"\x80\x04\x8f(" + PAIRS + b"\x90."
    yield "nested pairs in a set of protocol 2", b"\x80\x02cbuiltins\nset\n](" + PAIRS + b"e\x85R."
    yield "nested pairs in a frozen set", b"\x80\x04(" + PAIRS + b"\x91."
    yield "nested pairs in short pairs as a key", b"\x80\x02}" + PAIRS + b"N\x86Ns."
    yield "objects filled like dictionaries", b"\x80\x02](" + b"ca\nb\n)\x81K\x01Ns" * 90_000 + b"e."
    words = b"}q\x00(" + b"".join(text(f"{n}") + b"N" for n in range(100_000)) + b"u0"
    yield "keywords without end", b"\x80\x04](" + words + b"ca\nb\n)h\x00\x92" * 90_000 + b"e."
    yield "objects called without end", b"\x80\x02ca\nb\n" + b")R" * 240_000 + b"."
    yield "nested pairs as a size", edm(b"ctorch._utils\n_rebuild_tensor_v2\n(NK\x00" + PAIRS + PAIRS + b"\x89}tR")
    yield "nested pairs as a type", edm(b"cnumpy\ndtype\n" + PAIRS + b"\x85R")
    yield "sets without end", b"\x80\x04" + b"\x8f" * (MOST - 1000) + b"."
    yield "classes without end", b"\x80\x02" + b"".join(b"ctorch.nn.modules.a\n%d\n" % n for n in range(140_000)) + b"."
    yield "other classes without end", b"\x80\x02" + b"".join(b"ca\n%d\n" % n for n in range(400_000)) + b"."
    yield "brackets", b"\x80\x02" + b"(" * 1_900_000 + b"t" * 1_900_000 + b"."
    own = b"}q\x00(" + text("_parameters") + b"}" + text("_buffers") + b"}" + text("_modules") + b"}"
    named = b"ctorch.nn.modules.container\nModuleDict\n)\x81q\x01"
    inside = b"(" + text("a") + b"h\x01" + text("b") + b"h\x01u"
    yield "a module that is its own children", edm(named + own + inside + b"ub")
    chain = b"".join(
        b"ctorch.nn.modules.container\nModuleDict\n)\x81}(" + EMPTY + text("_modules") + b"}("
        + (text("a") + b"h" + bytes([n]) + text("b") + b"h" + bytes([n]) if n else b"")
        + b"uubq" + bytes([n + 1]) + b"0"
        for n in range(60)
    )  # fmt: skip
    yield "a module in 2^60 places", b"\x80\x02" + chain + b"}" + text("ema") + b"h<s."
    yield "arguments of 2^60 parts", edm(module(EMPTY + text("_modules") + b"}", extra=text("_init_kwargs") + b"}"
                                                + text("x") + PAIRS + b"s"))  # fmt: skip
    inner = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + b"\x80\x02" + b"N0" * 480 + b"N."
    load = b"ctorch.storage\n_load_from_bytes\n(B" + struct.pack("<I", len(inner)) + inner + b"tR0"
    yield "nested files without end", b"\x80\x02" + load * (MOST // len(load) - 1) + b"N."


def torch_zips() -> Iterator[tuple[str, bytes]]:
    record = ("archive/data/0", bytes(400_000))
    state = b"\x80\x02}" + text("state_dict") + b"}("
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + integer(100_000) + b"tQ"
    view = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00" + integer(100_000) + b"\x85K\x01\x85\x89}tR"
    many = b"".join(text(f"{n}") + b"h\x00" for n in range(100_000))
    yield "one storage as 100,000 tensors", zipped(state + text("x") + view + b"q\x00" + many + b"us.", record)
    yield "a deflated record", zipped(state + text("x") + view + b"us.", ("archive/data/0", bytes(2 * 10**8)),
                                      compression=zipfile.ZIP_DEFLATED)  # fmt: skip
    yield "a deflated program", zipped(bytes(2 * 10**8), compression=zipfile.ZIP_DEFLATED)
    long = "n" * 1_000_000
    yield "long names", zipped(state + text(long) + view + text(long + "m") + view + b"us.", record)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", state + text("x") + view + b"us.")
        archive.writestr(*record)
        entry = archive.infolist()[-1]
        for n in range(1, 20_000):  # entries of the directory for one record
            other = zipfile.ZipInfo(f"archive/data/{n}")
            other.file_size = other.compress_size = entry.file_size
            other.header_offset, other.CRC = entry.header_offset, entry.CRC
            archive.filelist.append(other)
    yield "records over one another", file.getvalue()


def described(**changes: object) -> bytes:
    facts = {
        "id": "x", "title": "x", "network": "MLP", "network_args": {}, "image_shape": [2], "data": "",
        "data_sha256": "", "images_seen": 0, "ema_halflife_images": 0, "optimizer": {}, "loss": "", "precision": "",
        "kind": "denoiser",
        "path": "flow", "prediction": "velocity", "time_scale": 1, "times": "",
    }  # fmt: skip
    return save({"x": torch.zeros(2)}, {"fastsample": json.dumps(facts | changes)})


def npz(**arrays: tuple[str, tuple[int, ...], bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, (dtype, shape, data) in arrays.items():
            head = io.BytesIO()
            np.lib.format.write_array_header_1_0(head, {"descr": dtype, "fortran_order": False, "shape": shape})
            archive.writestr(f"{name}.npy", head.getvalue() + data)
    return file.getvalue()


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    body = zlib.compress(bytes(1000))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def files() -> Iterator[tuple[str, bytes, str]]:
    """(name with the suffix of its file, content, reader)."""
    for index, (name, program) in enumerate(programs()):
        forms = [
            ("pickle", program, "edm-pickle"), ("zip", zipped(program), "lightning"),
            ("older format", legacy(program), "state-dict"), ("statistics", program, "statistics"),
            ("statistics in a zip", zipped(program), "statistics"), ("solver", program, "published"),
            ("solver in a zip", zipped(program), "published"),
        ]  # fmt: skip
        for form, data, reader in (forms[0], forms[1 + index % 6]):
            yield f"{name}, {form}", data, reader
    for name, data in torch_zips():
        yield name, data, "lightning"
    yield "a deflated program, statistics", zipped(bytes(2 * 10**8), compression=zipfile.ZIP_DEFLATED), "statistics"
    wide = {"img_resolution": 8, "in_channels": 3, "out_channels": 3}
    for name, args in (
        ("width", {"model_channels": 2**17}), ("depth", {"model_channels": 32, "num_blocks": 2**20}),
        ("integer", {"model_channels": 10**15}), ("list", {"model_channels": 32, "channel_mult": [1] * 30_000}),
    ):  # fmt: skip
        yield f"{name}.safetensors", described(network="SongUNet", network_args=wide | args), "model"
    for network, args in (
        ("MLP", {"channels": 2, "width": 2**20, "layers": 2**20}),
        ("NCSNpp", {"model": {"num_scales": 10**9}, "image_size": 8, "centered": True}),
        ("iDDPMPrecond", {"img_resolution": 8, "img_channels": 3, "M": 10**9}),
        ("DiT", {"input_size": 2**20, "depth": 2**20, "hidden_size": 2**20}),
    ):
        yield f"{network}.safetensors", described(network=network, network_args=args), "model"
    deep = '{"a": ' + '{"network":"Velocity","network_args":' * 20_000 + "{}" + "}" * 20_000 + "}"
    yield "nested.safetensors", save({"x": torch.zeros(2)}, {"fastsample": deep}), "model"
    yield "shape.safetensors", described(image_shape=[10**9, 10**9]), "model"
    huge = npz(mu=("<f8", (2048,), bytes(16384)), sigma=("<f8", (5_000, 5_000), bytes(200_000_000)))
    yield "huge.npz", huge, "statistics"
    yield "huge reference.npz", huge, "reference"
    half = npz(mu=("<f2", (2048,), bytes(4096)), sigma=("<f2", (6_000, 6_000), bytes(72_000_000)))
    yield "half.npz", half, "statistics"
    yield "wide.npz", npz(pool_3=("<f2", (2, 900_000), bytes(3_600_000))), "statistics"
    yield "claim.npz", npz(mu=("<f8", (10**12,), b""), sigma=("<f8", (1, 1), bytes(8))), "statistics"
    yield "images.zip", zip_of({"a.png": png(30_000, 30_000)}), "images"
    yield "image.zip", zip_of({"a.png": bytes(3 * 10**8)}), "images"
    yield "labels.zip", zip_of({"a.png": png(8, 8), "dataset.json": b'{"labels": [' + b"[]," * 6 * 10**6}), "images"
    yield "pixels.npz", npz(arr_0=("|u1", (5_000, 64, 64, 3), bytes(5_000 * 64 * 64 * 3))), "images"
    yield "claimed pixels.npz", npz(arr_0=("|u1", (10**9, 64, 64, 3), b"")), "images"
    many = "<i8", (10**7,), bytes(8 * 10**7)
    yield "labels.npz", npz(arr_0=("|u1", (1, 8, 8, 3), bytes(192)), arr_1=many), "images"
    yield "steps.toml", STEPS.encode(), "card"
    yield "brackets.toml", b"a = " + b"[" * 500_000, "card"
    yield "long.toml", b"a = 1\n" * 500_000, "card"


def zip_of(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


STEPS = """
[mine]
like = "ddpm-cifar10"
title = "mine"
page = "https://example.org"
file = "mine.pt"
size_mb = 1
path = {name = "vp-discrete", steps = 100000000000}
"""


def peak() -> int:
    """Of this process, in MB; that of getrusage counts its parent's too, from before it was another program."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) // 1000


if __name__ == "__main__":
    torch.set_num_threads(1)
    for line in sys.stdin:
        told, (path, reader) = "", json.loads(line)
        begin = time.process_time()
        try:
            READERS[reader](Path(path))
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
        print(json.dumps([told, time.process_time() - begin, peak()]), flush=True)
