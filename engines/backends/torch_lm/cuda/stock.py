"""The modelling code of transformers on a GPU, so that its steps can be recorded."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from engines.backends.torch_lm.cuda.cache import PagedCache
from engines.backends.torch_lm.cuda.runner import Compute
from engines.backends.torch_lm.cuda.step import CudaStep


class Stock:
    """See `place.Bindable`."""

    def __init__(self, model: Any) -> None:
        """`model` calls the attention that `attention.register` has registered."""
        self._model = model
        # Some look for padding in every step, to warn of it, and wait for the device to find any.
        model.config.get_text_config().pad_token_id = None

    def bind(self, cache: PagedCache) -> Compute:  # noqa: ARG002 - each step knows its cache
        """See `place.Bindable`."""
        return self._compute

    def _compute(self, step: CudaStep) -> Tensor:
        logits: Tensor = self._model(
            input_ids=step.ids, position_ids=step.positions, use_cache=False, logits_to_keep=step.wanted, paged=step
        ).logits[0]
        # A family that does not know `logits_to_keep` gives them all.
        return logits if len(logits) == len(step.wanted) else logits[step.wanted]
