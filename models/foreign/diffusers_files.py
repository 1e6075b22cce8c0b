"""Folders of diffusers pipelines, here or on the Hugging Face hub: what is in them, as far as it is known and harmless.

`model_index.json` names a class for each part. Only classes of diffusers and transformers that are listed here are made
of a folder's files, weights are read as safetensors alone, and nothing that a folder holds is run.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path
from typing import Any

from fastsample.datasets.files import read_small
from fastsample.datasets.home import expanded, sha256_of
from fastsample.datasets.text import text_of
from fastsample.models.checkpoints import CheckpointError

__all__ = ["PREFIX", "Kind", "PipelineFolder", "import_extra", "open_folder", "snapshot"]

PREFIX = "diffusers:"
_HUB = re.compile(r"[\w.-]+/[\w.-]+")
_FILES = ("*.json", "*.txt", "*.model", "*.safetensors")
_VARIANTS = ("*.fp16.*", "*.fp16-*", "*.bf16.*", "*non_ema*", "openvino*", "flax*")  # of weights, beside the usual ones
_WEIGHTS = "*.safetensors"
_CLIP, _PROJECTED, _T5 = ("CLIPTextModel",), ("CLIPTextModelWithProjection",), ("T5EncoderModel",)
_WORDS = ("CLIPTokenizer", "CLIPTokenizerFast")
_PIECES = ("T5Tokenizer", "T5TokenizerFast")


@dataclass(frozen=True)
class Kind:
    """A class of pipelines.

    Attributes:
        network: the part that is sampled; its class.
        latent: whether its samples are latents of a part `vae`, an AutoencoderKL.
        texts: the classes that each part of text may have, encoders and their tokenizers; none where it takes no text.
        optional: parts of text that a folder may lack.
    """

    network: tuple[str, str]
    latent: bool = False
    texts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    optional: tuple[str, ...] = ()


_UNET = Kind(("unet", "UNet2DModel"))
KINDS = {
    "DDPMPipeline": _UNET,
    "DDIMPipeline": _UNET,
    "PNDMPipeline": _UNET,
    "ScoreSdeVePipeline": _UNET,
    "DiTPipeline": Kind(("transformer", "DiTTransformer2DModel"), latent=True),
    "StableDiffusionPipeline": Kind(
        ("unet", "UNet2DConditionModel"), latent=True, texts={"text_encoder": _CLIP, "tokenizer": _WORDS}
    ),
    "StableDiffusionXLPipeline": Kind(
        ("unet", "UNet2DConditionModel"),
        latent=True,
        texts={
            "text_encoder": _CLIP,
            "tokenizer": _WORDS,
            "text_encoder_2": _PROJECTED,
            "tokenizer_2": _WORDS,
        },
    ),
    "StableDiffusion3Pipeline": Kind(
        ("transformer", "SD3Transformer2DModel"),
        latent=True,
        texts={
            "text_encoder": _PROJECTED,
            "tokenizer": _WORDS,
            "text_encoder_2": _PROJECTED,
            "tokenizer_2": _WORDS,
            "text_encoder_3": _T5,
            "tokenizer_3": _PIECES,
        },
        optional=("text_encoder_3", "tokenizer_3"),
    ),
    "FluxPipeline": Kind(
        ("transformer", "FluxTransformer2DModel"),
        latent=True,
        texts={
            "text_encoder": _CLIP,
            "tokenizer": _WORDS,
            "text_encoder_2": _T5,
            "tokenizer_2": _PIECES,
        },
    ),
}


@dataclass(frozen=True)
class PipelineFolder:
    """A pipeline on disk whose parts are all known.

    Attributes:
        id: as `--model` takes it, with the commit where it is of the hub.
        folder: where it lies.
        pipeline, kind: its class.
        parts: the class of each part that is used.
        facts: the other entries of its index.
        sha256: over the names and contents of the files of these parts.
    """

    id: str
    folder: Path
    pipeline: str
    kind: Kind
    parts: Mapping[str, str]
    facts: Mapping[str, Any]
    sha256: str

    def config(self, part: str) -> dict[str, Any]:
        """The configuration of a part."""
        name = "scheduler_config.json" if part == "scheduler" else "config.json"
        return _json(self.folder / part / name)

    def load(self, part: str) -> Any:
        """A part, made by its class of its files; networks in float32, on the CPU and in eval mode.

        Raises:
            CheckpointError: for files that do not fit, or where the library is not installed.
        """
        library = import_extra("transformers" if part in self.kind.texts else "diffusers")
        weights = part != "scheduler" and not part.startswith("tokenizer")
        given = {"use_safetensors": True} if weights else {}
        try:
            made = getattr(library, self.parts[part]).from_pretrained(
                str(self.folder / part), local_files_only=True, **given
            )
        except Exception as error:  # of many classes, of two libraries
            told = " ".join(str(error).split())[:300]
            raise CheckpointError(f"{self.id}: its {part} cannot be read: {told}") from error
        return made.float().eval().requires_grad_(False) if weights else made


def import_extra(name: str) -> Any:
    """diffusers or transformers, which are optional; they say errors alone.

    Raises:
        CheckpointError: where it is not installed.
    """
    try:
        library = import_module(name)
    except ImportError:
        raise CheckpointError(f"this model needs {name}: pip install diffusers transformers") from None
    library.utils.logging.disable_progress_bar()
    library.utils.logging.set_verbosity_error()  # a line for each prompt that is cut, and advice
    return library


def open_folder(text: str) -> PipelineFolder:
    """The folder of `diffusers:FOLDER`, or of `diffusers:OWNER/NAME[@REVISION]`, which is fetched from the hub.

    Raises:
        CheckpointError: for one that cannot be had, is no known pipeline, or has weights that are no safetensors.
    """
    name = text.removeprefix(PREFIX)
    folder = expanded(name)
    if folder.is_dir():
        return _read(f"{PREFIX}{Path(name)}", folder)
    repository, _, revision = name.partition("@")
    if expanded(repository).is_dir():
        raise CheckpointError(f"{repository} is a folder and has no revision: leave @{revision} out")
    if not _HUB.fullmatch(repository):
        raise CheckpointError(f"{name!r} is neither a folder nor a repository of the hub, OWNER/NAME[@REVISION]")
    index = snapshot(repository, revision or None, ["model_index.json"])
    commit = index.name
    parts = _parts(f"{PREFIX}{repository}", index)[2]
    patterns = [f"{part}/{files}" for part in parts for files in _FILES]
    return _read(f"{PREFIX}{repository}@{commit}", snapshot(repository, commit, ["model_index.json", *patterns]))


def snapshot(repository: str, revision: str | None, patterns: list[str]) -> Path:
    """The files of these patterns of a repository of the hub, in a folder that is called as its commit.

    Raises:
        CheckpointError: if it cannot be had.
    """
    from huggingface_hub import snapshot_download  # takes long to import, and is seldom needed

    ignored = [f"*/{pattern}" for pattern in _VARIANTS]
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns, ignore_patterns=ignored))
    except Exception as error:  # of many classes: no network, no such repository, no access, a full disk
        told = " ".join(str(error).split())[:300]
        where = f"{repository}@{revision}" if revision else repository
        raise CheckpointError(f"{where} is no folder here, and the hub does not give it: {told}") from error


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(text_of(read_small(file)))
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{file} is no table of names and values")
    return found


def _parts(name: str, folder: Path) -> tuple[str, Kind, dict[str, str], dict[str, Any]]:
    """The class of a pipeline, its kind, the classes of the parts that are used, and what else its index says."""
    if not (folder / "model_index.json").is_file():
        raise CheckpointError(f"{name} is no pipeline: it has no model_index.json")
    index = _json(folder / "model_index.json")
    pipeline = index.pop("_class_name", None)
    if not isinstance(pipeline, str) or pipeline not in KINDS:
        raise CheckpointError(f"{name} is a {str(pipeline)[:60]}, which is not known here; known: {', '.join(KINDS)}")
    kind = KINDS[pipeline]
    network, network_class = kind.network
    wanted: dict[str, tuple[str, ...]] = {network: (network_class,), "scheduler": (), **kind.texts}
    wanted |= {"vae": ("AutoencoderKL",)} if kind.latent else {}
    parts = {}
    for part, classes in wanted.items():
        given = index.pop(part, None)
        if part in kind.optional and (given is None or given == [None, None]):
            continue
        library = "transformers" if part in kind.texts else "diffusers"
        if not (isinstance(given, list) and len(given) == 2 and given[0] == library):
            raise CheckpointError(f"{name}: its {part} is {str(given)[:80]}, and no class of {library}")
        if classes and given[1] not in classes:
            raise CheckpointError(f"{name}: its {part} is a {str(given[1])[:60]}; known: {', '.join(classes)}")
        parts[part] = str(given[1])
    return pipeline, kind, parts, index


def _read(name: str, folder: Path) -> PipelineFolder:
    pipeline, kind, parts, facts = _parts(name, folder)
    digest = hashlib.sha256()
    for part in ("", *sorted(parts)):
        files = [folder / "model_index.json"] if not part else sorted(filter(_used, (folder / part).glob("*")))
        weights = part and part != "scheduler" and not part.startswith("tokenizer")
        if weights and not any(fnmatch(file.name, _WEIGHTS) for file in files):
            pickled = any((folder / part).glob("*.bin"))
            told = "as a pickle, which may run code; save them as safetensors" if pickled else "not as safetensors"
            raise CheckpointError(f"{name} has the weights of its {part} {told}")
        for file in files:
            digest.update(f"{part}/{file.name} {sha256_of(file)}\n".encode())
    return PipelineFolder(name, folder, pipeline, kind, parts, facts, digest.hexdigest())


def _used(file: Path) -> bool:
    named = any(fnmatch(file.name, pattern) for pattern in _FILES)
    return file.is_file() and named and not any(fnmatch(file.name, pattern) for pattern in _VARIANTS)
