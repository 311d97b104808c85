"""Decides how many tokens a sequence may have, by what the model was made for and what was asked for. Pure."""

from __future__ import annotations

from typing import Any

from roundhouse.kit.errors import InvalidArgument


def context_tokens(config: Any, wanted: int | None) -> int:
    """Returns what was asked for, else the longest that works. Raises InvalidArgument if less works than is wanted."""
    text = config.get_text_config()
    own: int | None = getattr(text, "max_position_embeddings", None)
    if wanted is None and own is None:
        raise InvalidArgument("the model does not say how long its context is: set max_model_len")
    if wanted is not None and own is not None and wanted > own:
        raise InvalidArgument(f"max_model_len is {wanted}, and the context of the model is {own}: ask for less")
    context = own if wanted is None else wanted
    assert context is not None
    longest = min([context, *_switches(text)])
    if wanted is not None and wanted > longest:
        raise InvalidArgument(
            f"max_model_len is {wanted}, but a request of more than {longest} tokens would change the output of those "
            f"beside it (the model's RoPE has long factors): ask for {longest} or less"
        )
    return longest


def _switches(text: Any) -> list[int]:
    """Returns beyond how many tokens the model turns positions by other factors, if it ever does.

    transformers chooses the factors by the largest position of a step, for all its sequences. What is called `longrope`
    now was `su` or `yarn` once, so it is known by its factors. `dynamic` changes only beyond the context of the model.
    nodeagent/models/directory.py has the same rule, because deployments ask for the context that a node reports, and
    components do not import one another: change both.
    """
    ropes = getattr(text, "rope_parameters", None) or {}
    found = [rope for rope in (ropes, *ropes.values()) if isinstance(rope, dict) and "long_factor" in rope]
    limits = [rope.get("original_max_position_embeddings") for rope in found]
    if found:
        limits.append(getattr(text, "original_max_position_embeddings", None))
    return [limit for limit in limits if isinstance(limit, int)]
