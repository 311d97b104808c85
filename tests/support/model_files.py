"""Files of a model directory, written byte by byte: what no library would write can be written too."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

CONFIG = {
    "model_type": "qwen3",
    "max_position_embeddings": 2048,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "hidden_size": 192,
}


def write_weights(path: Path, *names: str, dtype: str = "BF16") -> None:
    """Writes a file of tensors of 2 by 3 weights of two bytes each."""
    header = {
        name: {"dtype": dtype, "shape": [2, 3], "data_offsets": [12 * at, 12 * at + 12]}
        for at, name in enumerate(names)
    }
    write_raw(path, {"__metadata__": {"format": "pt"}, **header}, bytes(12 * len(names)))


def write_raw(path: Path, header: Any, data: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
