"""Every network by the name of its original class and the configuration that its checkpoint was published with."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from fastsample.models.networks.adm_unet import ADMClassifier
from fastsample.models.networks.cifar_resnet import CifarResNet
from fastsample.models.networks.conv_classifier import ConvClassifier
from fastsample.models.networks.ddpm_unet import DDPMUNet
from fastsample.models.networks.dhariwal_unet import DhariwalUNet
from fastsample.models.networks.diffusers_unet import DiffusersUNet
from fastsample.models.networks.dit import DiT, SiT
from fastsample.models.networks.edm2_unet import EDM2Precond
from fastsample.models.networks.edm_precond import EDMPrecond, EDMPrecondVel, VEPrecond, VPPrecond, iDDPMPrecond
from fastsample.models.networks.ldm_autoencoder import AutoencoderKL, AutoencoderVQ
from fastsample.models.networks.ldm_unet import ClassTokenUNet, ldm_unet
from fastsample.models.networks.limits import Counted, check_integers
from fastsample.models.networks.mlp import MLP, ResidualMLP
from fastsample.models.networks.ncsnpp import NCSNpp
from fastsample.models.networks.song_unet import SongUNet
from fastsample.models.networks.velocity import Velocity

__all__ = ["build_network", "network_names"]

_Config = Mapping[str, Any]

# Keys of configurations that are no arguments here, with the values that they may have: all for _ANY, as they do not
# decide what the network computes in evaluation. Any other key is an argument, or refused by the network.
_ANY: tuple[Any, ...] = ()
_Passed = Mapping[str, tuple[Any, ...]]
_EXECUTION: _Passed = {"use_fp16": _ANY, "use_checkpoint": _ANY, "num_params": _ANY}
# The way that heads are counted under `legacy` is the same wherever channels are a multiple of them.
_UNET: _Passed = {"image_size": _ANY, "dims": (2,), "legacy": (True, False), "use_spatial_transformer": (True, False)}


def _plain(make: Callable[..., nn.Module]) -> Callable[[_Config], nn.Module]:
    return lambda config: make(**_arguments(config))


def _arguments(config: _Config, passed: _Passed = {}) -> dict[str, Any]:  # noqa: B006 - never written to
    """The keys that are arguments.

    Raises:
        ValueError: for a key of `passed` with a value that it may not have.
    """
    passed = {**_EXECUTION, **passed}
    for name in config.keys() & passed.keys():
        if passed[name] and config[name] not in passed[name]:
            raise ValueError(f"{name} = {config[name]!r} is not supported; known: {', '.join(map(repr, passed[name]))}")
    return {name: value for name, value in config.items() if name not in passed}


def _check_context(config: _Config) -> None:
    if bool(config.get("use_spatial_transformer")) != (config.get("context_dim") is not None):
        raise ValueError(
            f"use_spatial_transformer = {config.get('use_spatial_transformer')!r} with context_dim = "
            f"{config.get('context_dim')!r} is not supported; known: both, or neither"
        )


def _adm(config: _Config) -> nn.Module:
    """UNetModel of guided-diffusion, improved-diffusion, consistency_models and latent-diffusion."""
    _check_context(config)
    return ldm_unet(**_arguments(config, _UNET))


def _adm_classifier(config: _Config) -> nn.Module:
    """EncoderUNetModel of guided-diffusion; the published ones are pooled by attention."""
    passed = {"dims": (2,), "num_heads_upsample": _ANY, "pool": ("attention",)}
    return ADMClassifier(**_arguments({"pool": "adaptive", **config}, passed))


def _class_token(config: _Config) -> nn.Module:
    """UNetModel with `num_tokens`, the rows of the embedding of classes that it attends to."""
    _check_context(config)
    unet = ldm_unet(**_arguments(config, {**_UNET, "num_tokens": _ANY}))
    return ClassTokenUNet(unet, config["num_tokens"], config["context_dim"])


_TORCHCFM_MULTIPLES = {
    512: (0.5, 1, 1, 2, 2, 4, 4),
    256: (1, 1, 2, 2, 4, 4),
    128: (1, 1, 2, 3, 4),
    64: (1, 2, 3, 4),
    32: (1, 2, 2, 2),
    28: (1, 2, 2),
}


def _torchcfm(config: _Config) -> nn.Module:
    """UNetModelWrapper of torchcfm, which counts attention in pixels and classes only with `class_cond`."""
    used = "dim", "num_channels", "learn_sigma", "class_cond", "num_classes", "attention_resolutions"
    kept = _arguments(config, {**dict.fromkeys(used, _ANY), "dims": (2,)})
    channels, *sides = config["dim"]
    size = sides[-1]
    if len(sides) != 2 or sides[0] != size:
        raise ValueError(f"dim = {config['dim']!r} is not supported; known: [channels, side, side]")
    if kept.get("channel_mult") is None:
        if size not in _TORCHCFM_MULTIPLES:
            raise ValueError(f"dim = {config['dim']!r} needs a channel_mult")
        kept["channel_mult"] = _TORCHCFM_MULTIPLES[size]
    return ldm_unet(
        in_channels=channels,
        out_channels=channels * (2 if config.get("learn_sigma") else 1),
        model_channels=config["num_channels"],
        num_classes=config.get("num_classes", 1000) if config.get("class_cond") else None,
        attention_resolutions=[size // int(pixels) for pixels in config.get("attention_resolutions", "16").split(",")],
        **kept,
    )


def _edm_velocity(config: _Config) -> nn.Module:
    """EDMPrecondVel of rfpp, which names channels as its network does, and the network by `unet_type`."""
    types = {"songunet": "SongUNet", "adm": "DhariwalUNet"}
    passed = {"in_channels": _ANY, "out_channels": (config["in_channels"],), "unet_type": tuple(types)}
    kept = _arguments(config, passed)
    if "unet_type" in config:
        kept["model_type"] = types[config["unet_type"]]
    return EDMPrecondVel(img_channels=config["in_channels"], **kept)


# What ermongroup/ddim and score_sde say of the files of a data set and of training; the path is the card's own matter.
_DATA: _Passed = dict.fromkeys(
    ("dataset", "category", "num_workers", "random_flip", "uniform_dequantization", "gaussian_dequantization",
     "rescaled", "channels", "out_of_dist", "tfrecords_path", "training", "sampling", "eval", "optim", "sde",
     "continuous"), _ANY
) | {"logit_transform": (False,)}  # fmt: skip
_DIFFUSION: _Passed = {
    "num_diffusion_timesteps": _ANY, "beta_schedule": ("linear",), "beta_start": (1e-4,), "beta_end": (0.02,)
}  # fmt: skip


def _facts(config: _Config, names: Sequence[str]) -> dict[str, Any]:
    """What a configuration says of its data, in a group `data` or beside the group `model`: `names`, and no others.

    Raises:
        ValueError: for another key, or one that is said twice in different ways.
    """
    flat = {name: value for name, value in config.items() if name not in ("data", "model")}
    data = config.get("data", {})
    for name in flat.keys() & data.keys():
        if flat[name] != data[name]:
            raise ValueError(f"{name} = {flat[name]!r} and data.{name} = {data[name]!r} exclude each other")
    facts = _arguments({**data, **flat}, _DATA)
    for name, value in facts.items():
        if name not in names:
            raise ValueError(f"{name} = {value!r} is not known; known: {', '.join((*names, *_DATA))}")
    return facts


def _ddpm(config: _Config) -> nn.Module:
    """Model of ermongroup/ddim and pesser/pytorch_diffusion."""
    passed = {"type": ("simple",), "var_type": _ANY, "ema": _ANY, "ema_rate": _ANY}
    facts = _facts(config, ("image_size", "diffusion"))
    for name, value in _arguments(facts.get("diffusion", {}), _DIFFUSION).items():
        raise ValueError(f"diffusion.{name} = {value!r} is not known; known: {', '.join(_DIFFUSION)}")
    return DDPMUNet(resolution=facts["image_size"], **_arguments(config["model"], passed))


_DIFFUSERS: _Passed = {
    "_class_name": ("UNet2DModel",),
    "_diffusers_version": _ANY,
    "_name_or_path": _ANY,
    "sample_size": _ANY,
    "time_embedding_type": ("positional",),
    "num_train_timesteps": _ANY,  # of a learned embedding of time
    "downsample_type": ("conv",),
    "upsample_type": ("conv",),
    "class_embed_type": (None,),
}


def _diffusers(config: _Config) -> nn.Module:
    """UNet2DModel of diffusers; what a configuration leaves out has the default of diffusers."""
    return DiffusersUNet(**_arguments(config, _DIFFUSERS))


_SCORE_SDE: _Passed = {
    "normalization": ("GroupNorm",),
    "nonlinearity": ("swish",),
    "resblock_type": ("biggan",),
    "attention_type": ("ddpm",),
    "conv_size": (3,),
    "conditional": (True,),
    "beta_min": (0.1,),  # of the path vp-linear
    "beta_max": (20.0,),
    "ema_rate": _ANY,
    "init_scale": _ANY,
}


def _score_sde(config: _Config, *, plain: bool) -> nn.Module:
    """NCSNpp or DDPM of score_sde and RectifiedFlow, from the groups `model` and `data` of their configurations."""
    passed = {**_SCORE_SDE, "name": ("ddpm",), "resblock_type": _ANY} if plain else {**_SCORE_SDE, "name": ("ncsnpp",)}
    facts = _facts(config, ("image_size", "num_channels", "centered"))
    facts["centered"]  # its default would be a guess
    return NCSNpp(plain=plain, **facts, **_arguments(config["model"], passed))


_FIRST_STAGE: _Passed = dict.fromkeys(
    ("target", "lossconfig", "monitor", "ckpt_path", "ignore_keys", "image_key", "batch_resize_range"), _ANY
) | {"colorize_nlabels": (None,), "remap": (None,)}


def _first_stage(make: Callable[..., nn.Module], *, double_z: bool) -> Callable[[_Config], nn.Module]:
    plain = {"attn_type": ("vanilla",), "resamp_with_conv": (True,), "give_pre_end": (False,), "tanh_out": (False,),
             "use_linear_attn": (False,)}  # fmt: skip

    def build(config: _Config) -> nn.Module:
        kept = _arguments(config, {**_FIRST_STAGE, "ddconfig": _ANY})
        return make(**kept, **_arguments(config["ddconfig"], {**plain, "double_z": (double_z,)}))

    return build


def _velocity(config: _Config) -> nn.Module:
    """A network, named as here with its own configuration, as velocity network of the linear path."""
    inner = build_network(config["network"], config["network_args"])
    return Velocity(inner, **_arguments(config, {"network": _ANY, "network_args": _ANY}))


_BUILDERS: dict[str, Callable[[_Config], nn.Module]] = {
    "SongUNet": _plain(SongUNet),
    "DhariwalUNet": _plain(DhariwalUNet),
    "EDMPrecond": _plain(EDMPrecond),
    "VPPrecond": _plain(VPPrecond),
    "VEPrecond": _plain(VEPrecond),
    "iDDPMPrecond": _plain(iDDPMPrecond),
    "EDMPrecondVel": _edm_velocity,
    "Precond": _plain(EDM2Precond),
    "UNetModel": _adm,
    "EncoderUNetModel": _adm_classifier,
    "ClassTokenUNet": _class_token,
    "UNetModelWrapper": _torchcfm,
    "Model": _ddpm,
    "UNet2DModel": _diffusers,
    "NCSNpp": lambda config: _score_sde(config, plain=False),
    "DDPM": lambda config: _score_sde(config, plain=True),
    "DiT": _plain(DiT),
    "SiT": _plain(SiT),
    "AutoencoderKL": _first_stage(AutoencoderKL, double_z=True),
    "VQModelInterface": _first_stage(AutoencoderVQ, double_z=False),
    "Velocity": _velocity,
    "MLP": _plain(MLP),
    "ResidualMLP": _plain(ResidualMLP),
    "CifarResNet": _plain(CifarResNet),
    "ConvClassifier": _plain(ConvClassifier),
}


def network_names() -> list[str]:
    """The names that `build_network` knows."""
    return list(_BUILDERS)


def build_network(name: str, config: Mapping[str, Any]) -> nn.Module:
    """A freshly initialised network, in training mode, on PyTorch's default device.

    It is built on the device `meta` first, where it costs no memory: one that passes the limits of `networks.limits`
    is refused there. On that device it has shapes and no values.

    Args:
        name: of the original class, such as "EDMPrecond" or "UNetModel".
        config: its arguments as published; wrappers take those of the network too, and its class as `model_type`.

    Raises:
        ValueError: for an unknown name, or a configuration that the network does not accept.
    """
    if name not in _BUILDERS:
        raise ValueError(f"unknown network {name!r}; known: {', '.join(_BUILDERS)}")
    try:
        check_integers(config)
        with torch.device("meta"), Counted():
            network = _BUILDERS[name](config)
        return network if torch.get_default_device().type == "meta" else _BUILDERS[name](config)
    except KeyError as error:
        raise ValueError(f"{name} refuses its configuration: {error} is missing") from error
    except Exception as error:  # a configuration can be wrong in every way
        raise ValueError(f"{name} refuses its configuration: {_told(error, config)}") from error


def _told(error: Exception, config: _Config) -> str:
    """A refused argument with its value."""
    groups = [config, *(group for group in config.values() if isinstance(group, Mapping))]
    found = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    values = [group[found[1]] for group in groups if found[1] in group] if found else []
    return f"{found[1]} = {values[0]!r} is not known" if found and values else str(error)
