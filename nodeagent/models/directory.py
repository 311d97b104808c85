"""Reads a Hugging Face model directory: what its config, the headers of its weights and its tokenizer say.

No weight is read. Blocks; call it on a thread that may hang with a file system.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nodeagent.models.numbers import HEADS, HIDDEN, LAYERS, number
from nodeagent.models.safetensors import Broken, Weights, read_header
from nodeagent.models.sizes import Sizes, sizes_of

_INDEX = "model.safetensors.index.json"
_CONTEXT = ("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length", "seq_length", "max_seq_len")
_KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv")
_ROPES = ("rope_parameters", "rope_scaling")
_BEFORE_SWITCH = "original_max_position_embeddings"
_PHI = {"phi3": 4096, "phi4_multimodal": 4096}  # what transformers assumes where the config does not say
_TOKENIZERS = (("tokenizer.json",), ("tokenizer.model",), ("spiece.model",), ("vocab.json", "merges.txt"))


@dataclass(frozen=True, slots=True)
class Model:
    """What can be known of a model without loading it."""

    model_type: str
    weights: Weights
    context_tokens: int
    kv_elements_per_token: int  # keys and values, over all layers
    sizes: Sizes


def read_model(directory: Path) -> Model:
    """Returns what the directory holds; raises Broken, naming the file, if it cannot be served."""
    config = _config(directory)
    text = config.get("text_config", config)  # a model that also sees keeps its language part apart
    if not isinstance(text, dict):
        raise Broken("config.json: text_config is no object")
    shards = _shards(directory).items()
    tensors = [each for name, expected in shards for each in read_header(directory / name, expected)]
    _check_tokenizer(directory)
    sizes = sizes_of(config, text, tensors)
    return Model(str(config["model_type"]), Weights.of(tensors), _context(text), _kv_elements(text), sizes)


def files_of(directory: Path) -> Iterable[Path]:
    """Returns the files that the answer depends on, as far as they are there."""
    names = {"config.json", *(name for each in _TOKENIZERS for name in each)}
    return [path for path in directory.iterdir() if path.name in names or ".safetensors" in path.name]


def _config(directory: Path) -> Mapping[str, Any]:
    config = _json(directory, "config.json")
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise Broken("config.json: it has no model_type, so it is no configuration of a model")
    return config


def _context(config: Mapping[str, Any]) -> int:
    """Returns how many tokens a sequence may have: those before the model turns positions by other factors, if it does.

    The torch engine takes no more, because beyond them a request would change its neighbours' output.
    engines/backends/torch_lm/context.py says how, and has the same rule, because components do not import one another:
    change both, or a deployment that states no context gets one that its engine refuses.
    """
    context = number(config, _CONTEXT)
    given = [ropes for ropes in map(config.get, _ROPES) if isinstance(ropes, dict)]
    # Some families have one for each kind of layer.
    every = [rope for ropes in given for rope in (ropes, *ropes.values()) if isinstance(rope, dict)]
    long = [rope for rope in every if "long_factor" in rope]
    if not long:
        return context
    own = number(config, (_BEFORE_SWITCH,), default=_PHI.get(str(config.get("model_type")), context))
    return min(context, own, *(number(rope, (_BEFORE_SWITCH,), default=context) for rope in long))


def _kv_elements(config: Mapping[str, Any]) -> int:
    heads = number(config, HEADS)
    # Falcon says it with a flag.
    kv_heads = 1 if config.get("multi_query") else number(config, _KV_HEADS, default=heads)
    head_size = number(config, ("head_dim",), default=number(config, HIDDEN) // heads)
    return 2 * number(config, LAYERS) * kv_heads * head_size


def _shards(directory: Path) -> Mapping[str, frozenset[str]]:
    """Returns the files with weights, and the tensors that each must have as far as an index says so."""
    if (directory / _INDEX).exists():
        index = _json(directory, _INDEX)
        tensors = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(tensors, dict) or not tensors:
            raise Broken(f"{_INDEX}: it has no weight_map")
        names = {str(name) for name in tensors.values()}
        if any("/" in name for name in names):
            raise Broken(f"{_INDEX}: it names files outside of the directory")
        return {name: frozenset(each for each, where in tensors.items() if where == name) for name in sorted(names)}
    found = sorted(path.name for path in directory.glob("*.safetensors"))
    if not found:
        others = sorted(path.name for pattern in ("*.bin", "*.pt", "*.gguf") for path in directory.glob(pattern))
        instead = f" (there is {others[0]}: convert it)" if others else ""
        raise Broken(f"there is no *.safetensors file{instead}")
    # Some repositories ship the same weights twice; the one of this name is the one that libraries load.
    return {name: frozenset() for name in (["model.safetensors"] if "model.safetensors" in found else found)}


def _check_tokenizer(directory: Path) -> None:
    found = next((each for each in _TOKENIZERS if all((directory / name).exists() for name in each)), None)
    if found is None:
        raise Broken("there is no tokenizer (tokenizer.json, tokenizer.model, or vocab.json with merges.txt)")
    if found == ("tokenizer.json",):
        tokenizer = _json(directory, "tokenizer.json")
        if not isinstance(tokenizer, dict) or "model" not in tokenizer:
            raise Broken("tokenizer.json: it has no model")
    for name in found:
        if (directory / name).stat().st_size == 0:
            raise Broken(f"{name}: it is empty")


def _json(directory: Path, name: str) -> Any:
    try:
        return json.loads((directory / name).read_bytes())
    except FileNotFoundError:
        raise Broken(f"{name} is missing") from None
    except OSError as error:
        raise Broken(f"{name} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise Broken(f"{name} is no JSON: {error}") from error
