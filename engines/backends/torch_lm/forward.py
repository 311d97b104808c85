"""A model, ready to be bound to a cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from engines.backends.torch_lm.attention import Attention, Shape
from engines.backends.torch_lm.cache import KvCache
from engines.backends.torch_lm.step import Step

Compute = Callable[[Step], Tensor]  # returns the logits that the step wants, [wanted, vocabulary]


class Forward(Protocol):
    """A model."""

    def bind(self, cache: KvCache) -> Compute:
        """Returns what computes steps over this cache."""


class Untraced:
    """Attention that a compiler leaves alone."""

    def __init__(self, attention: Attention) -> None:
        self._attention = attention

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(self, shape: Shape, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """See `attention.Attention`."""
        return self._attention(shape, query, keys, values)


class Stock:
    """The modelling code of transformers, with our attention in it."""

    def __init__(self, model: Any, *, is_compiled: bool = False) -> None:
        """`model` calls the attention that `attention.register` has registered.

        is_compiled: by torch, when a step of a new kind is computed first, which takes minutes.
        """
        self._model = torch.compile(model, dynamic=True) if is_compiled else model
        self._paged = Untraced if is_compiled else lambda step: step

    def bind(self, cache: KvCache) -> Compute:  # noqa: ARG002 - each step knows its cache
        """See `Forward`."""
        return self._compute

    def _compute(self, step: Step) -> Tensor:
        logits: Tensor = self._model(
            input_ids=step.ids,
            position_ids=step.positions,
            use_cache=False,
            logits_to_keep=step.wanted,
            paged=self._paged(step),
        ).logits[0]
        # A family that does not know `logits_to_keep` gives them all.
        return logits if logits.shape[0] == step.wanted.shape[0] else logits[step.wanted]
