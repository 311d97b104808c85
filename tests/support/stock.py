"""What transformers gives, with its own attention and its own generate."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM


def generated(directory: Path, prompt: Sequence[int], count: int) -> list[int]:
    """Returns so many tokens, greedily, whatever ends an output."""
    ids = torch.tensor([list(prompt)])
    output = _model(directory).generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=count, eos_token_id=-1
    )
    return list(output[0, len(prompt) :].tolist())


def logprobs(directory: Path, ids: Sequence[int]) -> Tensor:
    """Returns how likely each token of the vocabulary is behind each of the ids, [ids, vocabulary]."""
    with torch.inference_mode():
        logits: Tensor = _model(directory)(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0]
    return logits.log_softmax(-1)


@lru_cache(maxsize=2)
def _model(directory: Path) -> Any:
    # Eager, because the default leaves out the soft caps of gemma2.
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager")
