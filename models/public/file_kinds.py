"""What a file is that was taken for a checkpoint and is none, in words."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["no_checkpoint", "torchscript", "wrong_file"]

_HEAD = 512
_LONGEST_TEXT = 2**26  # bytes of an index of shards
_WEIGHTS = (".pt", ".pth", ".ckpt", ".safetensors", ".bin", ".pkl")
_MAGIC: Mapping[bytes, str] = {
    b"\x1f\x8b": "a gzip file: unpack it first (gunzip, or tar -xzf)",
    b"BZh": "a bzip2 file: unpack it first (bunzip2)",
    b"\xfd7zXZ\0": "an xz file: unpack it first (unxz)",
    b"\x28\xb5\x2f\xfd": "a zstd file: unpack it first (unzstd)",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive: unpack it first",
    b"Rar!\x1a\x07": "a RAR archive: unpack it first",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file (.h5, of Keras), which is not PyTorch's",
    b"GGUF": "a GGUF file, which is quantised and not PyTorch's",
    b"\x93NUMPY": "an array of NumPy (.npy), not a state dict of PyTorch",
    b"\x89PNG": "a picture (PNG)",
    b"\xff\xd8\xff": "a picture (JPEG)",
    b"GIF8": "a picture (GIF)",
    b"%PDF": "a PDF",
    b"\x7fELF": "a program",
    b"SQLite format 3\0": "a database (SQLite)",
    b"PAR1": "a table in the format Parquet",
}


def no_checkpoint(head: bytes) -> str:
    """What a file is, from its first bytes, that is no checkpoint and stands in the place of one; "" if it may be one.

    A safetensors file may begin with a brace too, as its length, but always has one at its ninth byte.
    """
    if not head:
        return "an empty file"
    text = head[:_HEAD].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<script", b"<!--")):
        return "a web page"
    if text.startswith((b"<?xml", b"<error")):
        return "an answer in XML"
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, which `git lfs pull` replaces by the file"
    if text.startswith((b"{", b"[")) and head[8:9] != b"{":
        return "a text in JSON"
    if head[257:262] == b"ustar":
        return "a tar archive: unpack it first (tar -xf)"
    if head[4:8] == b"TFL3":
        return "a file of TensorFlow Lite, which is not PyTorch's"
    if head[:1] == b"\x08" and 3 <= head[1] <= 32 and head[2:3] in (b"\x12", b"\x1a", b"\x3a"):
        return "an ONNX graph, which holds no state dict"
    if head[:3] == b"\x08\x01\x12" or (head[:1] == b"\x0a" and b"Placeholder" in head):
        return "a graph of TensorFlow (.pb), which is not PyTorch's"
    if (0x81 <= head[0] <= 0x8F or head[0] in (0xDE, 0xDF)) and _msgpack_key(head):
        return "a msgpack file (of Flax), which is not PyTorch's"
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), "")


def _msgpack_key(head: bytes) -> bool:
    """Whether a map begins with a text of letters, as every state of Flax does."""
    start = {0xDE: 3, 0xDF: 5}.get(head[0], 1)
    code = head[start : start + 1]
    if code == b"\xd9":
        start, length = start + 2, head[start + 1]
    elif code and 0xA1 <= code[0] <= 0xBF:
        start, length = start + 1, code[0] & 0x1F
    else:
        return False
    return head[start : start + length].decode("latin1").isidentifier()


def wrong_file(path: Path) -> str:
    """What a path is that cannot be read as a checkpoint, by all of it; "" if that cannot be told.

    It is asked once reading has failed: of a file that can be read it may say anything.
    """
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        head, size = file.read(_HEAD), path.stat().st_size
        file.seek(max(0, size - 8))
        tail = file.read()
    if head[:4] == b"PK\3\4":
        return _zip(path)
    if head[8:9] == b"{":
        return _cut_safetensors(path, size)
    if tail == b"\x57\xfb\x80\x8b\x24\x75\x47\xdb":
        return "the index of a checkpoint of TensorFlow, which is not PyTorch's"
    kind = no_checkpoint(head)
    if kind == "a text in JSON" and size <= _LONGEST_TEXT:
        return _json(path)
    return kind or _text(head)


def _folder(path: Path) -> str:
    names = sorted(entry.name for entry in path.iterdir())
    if any(name.endswith(".distcp") for name in names):
        return (
            "a folder of torch.distributed.checkpoint: `python -m torch.distributed.checkpoint.format_utils "
            "dcp_to_torch FOLDER FILE` makes one file of it"
        )
    inside = [name for name in names if name.endswith(_WEIGHTS)]
    return f"a folder: give the file with the weights in it{_listed(inside)}"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f" ({', '.join(names[:5])}{more})" if names else ""


def _zip(path: Path) -> str:
    if not zipfile.is_zipfile(path):
        return "a zip without its end, so cut short"
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # zipfile raises many things for damaged files
        return "a damaged zip"
    if names and all(name.endswith(".npy") for name in names):
        return "an archive of arrays of NumPy (.npz), not a state dict of PyTorch"
    if _is_torchscript(names):
        return "a TorchScript archive (torch.jit.save): save the state_dict() of what torch.jit.load returns"
    if any(name.endswith("model.weights.h5") for name in names):
        return "a model of Keras, which is not PyTorch's"
    inside = [name for name in names if name.endswith(_WEIGHTS) and not name.endswith("/data.pkl")]
    return f"a zip of files: name one of them as `member` on a card, or unpack it{_listed(inside)}" if inside else ""


def _is_torchscript(names: list[str]) -> bool:
    return any(name.endswith("constants.pkl") for name in names) and any("/code/" in name for name in names)


def torchscript(path: Path) -> bool:
    """Whether a file is an archive of torch.jit.save."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return _is_torchscript(archive.namelist())


def _cut_safetensors(path: Path, size: int) -> str:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > _LONGEST_TEXT:
            return ""
        header = file.read(length)
    if len(header) < length:
        return f"a safetensors file cut short: {size:,} bytes, where its header alone has {8 + length:,}"
    try:
        tensors = [entry for name, entry in json.loads(header).items() if name != "__metadata__"]
        whole = 8 + length + max(entry["data_offsets"][1] for entry in tensors)
    except Exception:  # a damaged header can be anything
        return ""
    return f"a safetensors file cut short: {size:,} of {whole:,} bytes" if size < whole else ""


def _json(path: Path) -> str:
    try:
        content: Any = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return "a text in JSON"
    if not isinstance(content, dict):
        return "a text in JSON"
    if isinstance(shards := content.get("weight_map"), dict):
        files = sorted({str(name) for name in shards.values()})
        return (
            f"an index of {len(files)} shards{_listed(files)}, without weights: join them in one file, as "
            "`save_file` of safetensors does of a dictionary of all their tensors"
        )
    told = next((content[key] for key in ("error", "message", "detail") if isinstance(content.get(key), str)), "")
    return f'a text in JSON, which says "{told[:100]}"' if told else "a text in JSON"


def _text(head: bytes) -> str:
    """Servers answer with a line of text too."""
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # not a letter that the end of the head cuts
            return ""
        text = head[: error.start].decode()
    if not text.strip() or not all(letter.isprintable() or letter in "\r\n\t" for letter in text):
        return ""
    return f'a text, which begins with "{text.strip().splitlines()[0][:60]}"'
