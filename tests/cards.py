"""The least card of one's own: a flow of 8x8 images by a network of a few thousand weights."""

import json

CONFIG = {
    "img_resolution": 8,
    "in_channels": 3,
    "out_channels": 3,
    "model_channels": 8,
    "channel_mult": [1],
    "num_blocks": 1,
    "attn_resolutions": [],
}
_LEAST = {
    "title": "mine",
    "source": "me",
    "page": "https://example.org",
    "file": "weights.pt",
    "size_mb": 1,
    "licence": "-",
    "notice": "-",
    "layout": "state-dict",
    "image_shape": [3, 8, 8],
    "output": "velocity",
    "time": {"scale": 1000.0},
    "path": {"name": "flow"},
    "data": "-",
    "recipe": "as-is",
    "papers": [],
    "network": {"name": "SongUNet", "config": CONFIG},
}


def toml(value):
    """A value as TOML has it, a dictionary as an inline table."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(one)}" for key, one in value.items()) + "}"
    return json.dumps(value)


def table(name, facts):
    """A table of TOML."""
    return f"[{name}]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in facts.items())


def write_card(folder, name="mine", head="", **facts):
    """FOLDER/card.toml: the least card with these facts, after `head`."""
    file = folder / "card.toml"
    file.write_text(head + table(name, _LEAST | facts), "utf-8")
    return file
