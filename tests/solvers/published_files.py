"""Files in the layouts of published learned solvers, with numbers of their own, and a small EDM network to play them.

The modules that those files name stand here for as long as one is written, so that pickle writes what they write.
"""

from __future__ import annotations

import pickle
import sys
from collections import OrderedDict
from contextlib import contextmanager
from types import ModuleType
from unittest import mock

import numpy as np
import torch

from fastsample.models.checkpoints import DenoiserMetadata, save_checkpoint
from fastsample.models.networks.registry import build_network

__all__ = ["adasde", "amed", "dyweight", "dyweight_flow", "edm_checkpoint", "epd", "gas", "ld3", "persistent", "write"]


def _function(module, name):
    def made(*_):
        raise AssertionError("a reader has called what it reads")

    made.__module__, made.__name__, made.__qualname__ = module, name, name
    return made


_NAMED = {
    "torch_utils.persistence": ("_reconstruct_persistent_obj",),
    "solvers": ("dyweight_sampler", "epd_sampler", "heun_sampler", "ipndm_sampler"),
    "solvers_amed": ("amed_sampler",),
}
_MODULES = {}
for _name, _functions in _NAMED.items():
    _MODULES[_name] = ModuleType(_name)
    for _one in _functions:
        setattr(_MODULES[_name], _one, _function(_name, _one))
_MODULES["torch_utils"] = ModuleType("torch_utils")
_MODULES["torch_utils"].persistence = _MODULES["torch_utils.persistence"]


class _Persistent:
    def __init__(self, meta):
        self.meta = meta

    def __reduce__(self):
        return _MODULES["torch_utils.persistence"]._reconstruct_persistent_obj, (self.meta,)


@contextmanager
def _named():
    with mock.patch.dict(sys.modules, _MODULES):
        yield


def solver(name, module="solvers"):
    return getattr(_MODULES[module], name)


def _tensors(arrays):
    return OrderedDict(
        (name, torch.nn.Parameter(torch.tensor(array, dtype=torch.float32))) for name, array in arrays.items()
    )


def persistent(class_name, parameters=(), buffers=(), modules=(), **attributes):
    """An object of torch_utils.persistence."""
    state = {
        "training": False,
        "_parameters": _tensors(dict(parameters)),
        "_buffers": OrderedDict((name, torch.tensor(a, dtype=torch.float32)) for name, a in dict(buffers).items()),
        "_non_persistent_buffers_set": set(),
        "_forward_hooks": OrderedDict(),
        "_modules": OrderedDict(modules),
        "_init_args": (),
        "_init_kwargs": {},
        **attributes,
    }
    source = "raise AssertionError('a reader has run the source of a file')"
    meta = {"type": "class", "version": 6, "module_src": source, "class_name": class_name, "state": state}
    return _Persistent(meta)


def write(file, content):
    """Pickle it as the published files are."""
    with _named(), file.open("wb") as stream:
        pickle.dump(content, stream, protocol=4)
    return file


def dyweight(file, weights, scales, mask=None, loss="inception", window=3, data="cifar10", **facts):
    steps = len(weights) + 1
    facts = {"afs": True, "schedule_type": "polynomial", "schedule_rho": 7.0} | facts
    own = {"num_steps": steps, "max_history_steps": window, "afs": facts["afs"]}
    own |= {key: facts.pop(key) for key in ("guidance_rate", "guidance_type") if key in facts}
    parameters = {"hybrid_weights": weights} | ({} if scales is None else {"t_scale": scales})
    predictor = persistent("DyWeight_predictor", parameters, {} if mask is None else {"mask": mask}, **own)
    loss_fn = persistent(
        "DyWeight_loss", num_steps=steps, solver_stu=solver("dyweight_sampler"), solver_tea=solver("heun_sampler"),
        teacher_steps=35, sigma_min=0.002, sigma_max=80.0, loss_type=loss, dataset_name=data, **facts,
    )  # fmt: skip
    return write(file, {"predictor": predictor, "loss_fn": loss_fn})


def epd(file, numbers, name="EPD_predictor", **facts):
    """`numbers` are r_params, scale_dir_params, scale_time_params, weight_s and, of AdaSDE, gamma_params, [N, K]."""
    shape = np.shape(numbers["r_params"])
    own = {
        "num_steps": shape[0] + 1, "num_points": shape[1], "afs": True, "schedule_type": "time_uniform",
        "schedule_rho": 1.0, "scale_dir": 0.05, "scale_time": 0.2, "sampler_stu": "epd", "max_order": 3, "fcn": False,
        "guidance_type": None, "guidance_rate": 0.0,
    } | facts  # fmt: skip
    buffers = [torch.ones(2, 3)]  # of training, which nobody reads
    loss_fn = persistent("EPD_loss", solver_tea=solver("heun_sampler"), buffer_model=buffers, sigma_max=80.0)
    return write(file, {"model": persistent(name, numbers, **own), "loss_fn": loss_fn})


def adasde(file, numbers, **facts):
    return epd(file, numbers, "adasde_predictor", gamma=0.01, gamma_min=2e-4, **facts)


def amed_layers(rng, heads=("fc_r", "fc_scale_dir", "fc_scale_time"), pixels=64):
    sizes = {"map_layer0": (8, 8), "enc_layer0": (12, pixels), "enc_layer1": (4, 12), **dict.fromkeys(heads, (1, 20))}
    return {
        name: {"weight": 0.5 * rng.standard_normal(size), "bias": 0.2 * rng.standard_normal(size[0])}
        for name, size in sizes.items()
    }


def amed(file, layers, **facts):
    own = {
        "num_steps": 4, "sampler_stu": "amed", "schedule_type": "time_uniform", "schedule_rho": 1.0, "afs": True,
        "scale_dir": 0.01, "scale_time": 0.2, "max_order": 3, "predict_x0": True, "lower_order_final": True,
    } | facts  # fmt: skip
    modules = {name: persistent("Linear", layer, in_features=1) for name, layer in layers.items()}
    modules["map_noise"] = persistent("PositionalEmbedding", num_channels=8)
    loss_fn = persistent("AMED_loss", solver_stu=solver("amed_sampler", "solvers_amed"), sigma_min=0.002)
    return write(file, {"model": persistent("AMED_predictor", modules=modules, **own), "loss_fn": loss_fn})


def dyweight_flow(file, theta, phi, window):
    k = len(theta)
    below = np.subtract.outer(np.arange(k), np.arange(k))
    masks = {"tril_mask": (below >= 0) * 1.0, "win_mask": (below < window) * 1.0}
    tensors = {name: torch.tensor(a, dtype=torch.float32) for name, a in ({"theta": theta, "phi": phi} | masks).items()}
    meta = {"K": k, "tscale_low": 0.5, "tscale_high": 1.5}
    torch.save({"window_size": window, "dyweight_meta": meta, "dyweight_params": tensors}, file)
    return file


def gas(file, theta, xi, corrections):
    """`corrections` are c1, a1, c2, a2, ..."""
    numbers = [torch.tensor(a, dtype=torch.float32) for a in (theta, xi, *corrections)]
    state = {"model": [torch.nn.Parameter(0 * one) for one in numbers], "optim": {"state": {}, "param_groups": []}}
    torch.save(state | {"step": 7, "ema": {"decay": 0.999, "num_updates": 7, "shadow_params": numbers}}, file)
    return file


def ld3(file, logits, offsets):
    params = {
        "params1": torch.tensor(logits, dtype=torch.float32),
        "params2": torch.tensor(offsets, dtype=torch.float32),
    }
    torch.save(params | {"best_t_steps": torch.zeros(2 * len(logits))}, file)
    return file


def edm_checkpoint(file, **network):
    """A small EDM network of random weights, on EDM's path."""
    arguments = {
        "img_resolution": 32, "img_channels": 3, "model_type": "SongUNet", "model_channels": 8, "num_blocks": 1,
        "channel_mult": [1, 1, 1], "attn_resolutions": [], "dropout": 0.0,
    } | network  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(5)
        made = build_network("EDMPrecond", arguments)
        for one in made.parameters():  # also those that are zero at first
            one.data += 0.05 * torch.randn_like(one)
    facts = DenoiserMetadata(
        id="tiny-edm", title="", network="EDMPrecond", network_args=arguments, image_shape=(3, 32, 32), data="none",
        data_sha256="", images_seen=0, ema_halflife_images=0, optimizer={}, loss="", precision="float32",
        storage="float32", path="edm", prediction="x0", time_scale=1.0, times="",
    )  # fmt: skip
    save_checkpoint(file, made.state_dict(), facts)
    return file
