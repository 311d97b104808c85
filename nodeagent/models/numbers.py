"""Numbers in the configuration of a model. Families name the same thing differently; the first name there counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nodeagent.models.safetensors import Broken

LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
HIDDEN = ("hidden_size", "n_embd", "d_model")


def number(config: Mapping[str, Any], names: tuple[str, ...], default: int | None = None) -> int:
    """Returns a positive number; raises Broken if there is something else, or nothing and no default."""
    for name in names:
        value = config.get(name)
        if value is not None:
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise Broken(f"config.json: {name} is {value!r}, not a positive number")
            return value
    if default is None:
        raise Broken(f"config.json: it has none of {', '.join(names)}")
    return default
