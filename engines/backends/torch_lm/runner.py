"""Computes batches with a model of transformers. One thread at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from engines.backends.torch_lm.cache import KvCache
from engines.backends.torch_lm.sampler import sample
from engines.backends.torch_lm.step import Step
from engines.batching.batch import Batch, Draw


class TorchRunner:
    """The step loop's `Runner`."""

    def __init__(self, model: Any, cache: KvCache, device: torch.device) -> None:
        """`model` calls the attention that `attention.register` has registered."""
        self._model = model
        self._cache = cache
        self._device = device
        self.attended_count = 0  # layers that attended in the last step

    @torch.inference_mode()
    def forward(self, batch: Batch) -> Tensor:
        """Writes the keys and values of all rows; returns [rows that need logits, vocabulary]."""
        step = Step(batch, self._cache, self._device)
        logits: Tensor = self._model(
            input_ids=step.ids, position_ids=step.positions, use_cache=False, logits_to_keep=step.last, paged=step
        ).logits[0]
        self.attended_count = step.attended_count
        # A family that does not know `logits_to_keep` gives them all.
        return logits if logits.shape[0] == step.last.shape[0] else logits[step.last]

    @torch.inference_mode()
    def sample(self, logits: object, draws: Sequence[Draw]) -> list[int | Exception]:
        """Returns one token for each row of the logits, or what is wrong with that row."""
        assert isinstance(logits, Tensor)
        return sample(logits, draws)
