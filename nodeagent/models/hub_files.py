"""Which files of a repository an engine needs, by their names. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

INDEX = "model.safetensors.index.json"
_ONE = "model.safetensors"
# Configurations, tokenizers and chat templates, whatever a family calls them.
_SMALL = (".json", ".txt", ".jinja", ".model", ".tiktoken")
_OF_OTHERS = ("pytorch_model.bin.index.json", "tf_model.h5.index.json", "flax_model.msgpack.index.json")
_MAX_SMALL_BYTES = 128 * 1024**2


def small_files(sizes: Iterable[tuple[str, int]]) -> Sequence[str]:
    """Returns the files beside the weights, of a listing of names and bytes."""
    return sorted(
        name
        for name, size in sizes
        if "/" not in name and name.endswith(_SMALL) and name not in _OF_OTHERS and size <= _MAX_SMALL_BYTES
    )


def weight_files(names: Iterable[str], indexed: Iterable[str]) -> Sequence[str]:
    """Returns the files of weights: those that the index names, else the one that libraries load, else all there are.

    Many repositories ship the same weights a second time, in a folder or under another name.
    """
    found = {each for each in names if "/" not in each and each.endswith(".safetensors")}
    wanted = set(indexed)
    if wanted:
        return sorted(wanted)
    return [_ONE] if _ONE in found else sorted(found)
