"""Every network by the name of its original class and the configuration that its checkpoint was published with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from fastsample.models.networks.adm_unet import ADMClassifier
from fastsample.models.networks.cifar_resnet import CifarResNet
from fastsample.models.networks.conv_classifier import ConvClassifier
from fastsample.models.networks.ddpm_unet import DDPMUNet
from fastsample.models.networks.dhariwal_unet import DhariwalUNet
from fastsample.models.networks.dit import DiT, SiT
from fastsample.models.networks.edm2_unet import EDM2Precond
from fastsample.models.networks.edm_precond import EDMPrecond, EDMPrecondVel, VEPrecond, VPPrecond, iDDPMPrecond
from fastsample.models.networks.ldm_autoencoder import AutoencoderKL, AutoencoderVQ
from fastsample.models.networks.ldm_unet import ClassTokenUNet, ldm_unet
from fastsample.models.networks.mlp import MLP, ResidualMLP
from fastsample.models.networks.ncsnpp import NCSNpp
from fastsample.models.networks.song_unet import SongUNet
from fastsample.models.networks.velocity import Velocity

__all__ = ["build_network", "network_names"]

_Config = Mapping[str, Any]

# Facts about training and execution, not about the function that the network computes.
_NO_ARCHITECTURE = {"use_fp16", "use_checkpoint", "num_params"}


def _plain(make: Callable[..., nn.Module]) -> Callable[[_Config], nn.Module]:
    return lambda config: make(**_without(config))


def _without(config: _Config, *names: str) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name not in _NO_ARCHITECTURE.union(names)}


def _adm(config: _Config) -> nn.Module:
    """UNetModel of guided-diffusion, improved-diffusion, consistency_models and latent-diffusion."""
    return ldm_unet(**_without(config, "image_size", "dims", "legacy", "use_spatial_transformer"))


def _adm_classifier(config: _Config) -> nn.Module:
    """EncoderUNetModel of guided-diffusion; the published ones are pooled by attention."""
    if config.get("pool") != "attention":
        raise ValueError(f"pool {config.get('pool')!r} is not supported; known: 'attention'")
    return ADMClassifier(**_without(config, "dims", "num_heads_upsample", "pool"))


def _class_token(config: _Config) -> nn.Module:
    """UNetModel with `num_tokens`, the rows of the embedding of classes that it attends to."""
    unet = ldm_unet(**_without(config, "image_size", "dims", "legacy", "use_spatial_transformer", "num_tokens"))
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
    kept = _without(config, "dim", "num_channels", "learn_sigma", "class_cond", "num_classes", "attention_resolutions")
    channels, size = config["dim"][0], config["dim"][-1]
    if kept.get("channel_mult") is None:
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
    kept = _without(config, "in_channels", "out_channels", "unet_type")
    if "unet_type" in config:
        kept["model_type"] = {"songunet": "SongUNet", "adm": "DhariwalUNet"}[config["unet_type"]]
    return EDMPrecondVel(img_channels=config["in_channels"], **kept)


def _ddpm(config: _Config) -> nn.Module:
    """Model of ermongroup/ddim and pesser/pytorch_diffusion."""
    size = config["image_size"] if "image_size" in config else config["data"]["image_size"]
    return DDPMUNet(resolution=size, **_without(config["model"], "type", "var_type", "ema", "ema_rate"))


def _diffusers(config: _Config) -> nn.Module:
    """UNet2DModel of diffusers, as google/ddpm-* use it; its weights come through `from_diffusers`."""
    size, widths = config["sample_size"], config["block_out_channels"]
    attending = [size >> i for i, kind in enumerate(config["down_block_types"]) if kind == "AttnDownBlock2D"]
    return DDPMUNet(
        resolution=size,
        in_channels=config["in_channels"],
        out_ch=config["out_channels"],
        ch=widths[0],
        ch_mult=[width // widths[0] for width in widths],
        num_res_blocks=config["layers_per_block"],
        attn_resolutions=attending,
        dropout=config.get("dropout", 0.0),
    )


_SCORE_SDE_FIXED = {
    "normalization": ("GroupNorm",),
    "nonlinearity": ("swish",),
    "resblock_type": ("biggan",),
    "attention_type": ("ddpm",),
    "conv_size": (3,),
    "conditional": (True,),
}
_SCORE_SDE_TRAINING = ("name", "beta_min", "beta_max", "ema_rate", "init_scale")


def _score_sde(config: _Config, *, plain: bool) -> nn.Module:
    """NCSNpp or DDPM of score_sde and RectifiedFlow, from the groups `model` and `data` of their configurations."""
    model, data = config["model"], config.get("data", config)
    for name, known in _SCORE_SDE_FIXED.items():
        if model.get(name, known[0]) not in known and not (plain and name == "resblock_type"):
            raise ValueError(f"{name} {model[name]!r} is not supported; known: {known[0]!r}")
    return NCSNpp(
        image_size=data["image_size"],
        num_channels=data.get("num_channels", 3),
        centered=data["centered"],
        plain=plain,
        **_without(model, *_SCORE_SDE_FIXED, *_SCORE_SDE_TRAINING),
    )


def _first_stage(make: Callable[..., nn.Module]) -> Callable[[_Config], nn.Module]:
    def build(config: _Config) -> nn.Module:
        kept = _without(config, "target", "ddconfig", "lossconfig", "monitor")
        return make(**kept, **_without(config["ddconfig"], "double_z"))

    return build


def _velocity(config: _Config) -> nn.Module:
    """A network, named as here with its own configuration, as velocity network of the linear path."""
    inner = build_network(config["network"], config["network_args"])
    return Velocity(inner, **_without(config, "network", "network_args"))


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
    "AutoencoderKL": _first_stage(AutoencoderKL),
    "VQModelInterface": _first_stage(AutoencoderVQ),
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

    Inside `with torch.device("meta")` it costs no memory and no time.

    Args:
        name: of the original class, such as "EDMPrecond" or "UNetModel".
        config: its arguments as published; wrappers take those of the network too, and its class as `model_type`.

    Raises:
        ValueError: for an unknown name, or a configuration that the network does not accept.
    """
    if name not in _BUILDERS:
        raise ValueError(f"unknown network {name!r}; known: {', '.join(_BUILDERS)}")
    try:
        return _BUILDERS[name](config)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{name} refuses its configuration: {error}") from error
