"""Nothing between a forward pass and its answers needs to know what a GPU has computed, or moves tensors to and fro.

Shown on torch's meta device, whose tensors have no numbers: whatever would wait for some, or take them from another
device, raises there. This is also what a CUDA graph demands of a step that it records.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from engines.backends.torch_lm.attention import IMPLEMENTATION, Shape, register
from engines.backends.torch_lm.cache import LayerShape
from engines.backends.torch_lm.cuda.cache import PagedCache
from engines.backends.torch_lm.cuda.limits import Limits
from engines.backends.torch_lm.cuda.machine import Host
from engines.backends.torch_lm.cuda.runner import CudaRunner
from engines.backends.torch_lm.cuda.stock import Stock
from engines.backends.torch_lm.cuda.tables import Tables
from engines.backends.torch_lm.kernels.interface import HeadNorm
from engines.backends.torch_lm.sampling import device as on_device
from engines.backends.torch_lm.sampling.sampler import Sampler
from engines.batching.batch import PENDING, Batch, Draw, Row, Score
from engines.batching.sequence import Sequence
from engines.model import Sampling, Work
from tests.support.outputs import GREEDY
from tests.support.tiny_models import FAMILIES

VOCABULARY = 320
LIMITS = Limits(rows=8, tokens=64, context=128)
META = torch.device("meta")
HAVE_OWN_ATTENTION = {"bloom"}


class Nowhere(Host):
    """Computes shapes alone."""

    device = META


class NoAttention:
    """Gives numbers of the right shape."""

    def __init__(self, keys: Tensor, values: Tensor, shape: Shape, heads: int) -> None:
        self._value_dim = values.shape[3]

    def write(self, keys: Tensor, values: Tensor, rows: Tables) -> None:
        pass

    def write_qkv(
        self, qkv: Tensor, rows: Tables, cos: Tensor | None, sin: Tensor | None, norm: HeadNorm | None = None
    ) -> Tensor:
        raise NotImplementedError

    def attend(self, query: Tensor, rows: Tables) -> Tensor:
        return query.new_empty(*query.shape[:2], self._value_dim)


def runner_of(family: str) -> CudaRunner:
    register()
    maker: Any = AutoConfig
    ids = {"eos_token_id": 0, "pad_token_id": 0, "bos_token_id": 1}
    config = maker.for_model(family, vocab_size=VOCABULARY, **ids, **FAMILIES[family])
    factory: Any = AutoModelForCausalLM
    with META:
        model = factory.from_config(config, dtype=torch.bfloat16).eval()
    model.set_attn_implementation(IMPLEMENTATION)
    heads = config.get_text_config().num_attention_heads
    kept = LayerShape(heads, 16, config.hidden_size // heads if family == "gpt2" else 16)
    cache = PagedCache(
        dict.fromkeys(range(3), kept), NoAttention, blocks=9, block_size=16, dtype=torch.bfloat16, device=META
    )
    return CudaRunner(Stock(model).bind(cache), cache, Nowhere(), LIMITS, Sampler(on_device))


@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - HAVE_OWN_ATTENTION))
def test_no_step_waits_for_the_device(family: str) -> None:
    assert runner_of(family).warm_up() is None


DRAWS = {
    "greedy": GREEDY,
    "by chance": Sampling(temperature=1.0, top_p=1.0, top_k=0, seed=1),
    "filtered": Sampling(temperature=0.7, top_p=0.9, top_k=20, seed=1, min_p=0.1, typical_p=0.9),
    "penalized": Sampling(
        temperature=0.7,
        top_p=0.9,
        top_k=0,
        seed=1,
        repetition_penalty=1.2,
        presence_penalty=0.5,
        frequency_penalty=0.5,
        logit_bias=((3, 1.0), (5, -100.0)),
        bad_words=((7,), (1, 8)),
        min_tokens=4,
    ),
}


@pytest.mark.parametrize("top", [None, 0, 5])
@pytest.mark.parametrize("mask", [None, b"\xf0" * (VOCABULARY // 8)], ids=["free", "masked"])
def test_no_draw_waits_for_the_device(top: int | None, mask: bytes | None) -> None:
    runner = runner_of("llama")
    sequences = [Sequence(Work(name, (1,), max_tokens=2, sampling=GREEDY)) for name in DRAWS]
    first = Batch(tuple(Row(each, (1, 2, 3), 0, [0], logits_from=1) for each in sequences))
    draws = [
        Draw(sampling, 2, ids=(1, 8, 1, 2), prompt_count=2, end_ids=frozenset({0}), mask=mask, top=top)
        for sampling in DRAWS.values()
    ]
    logits = runner.forward(first)
    runner.sample(logits, [ask for draw in draws for ask in (Score(3, 4), draw)])
    # The next step goes on with what was drawn, which nobody knows yet.
    logits = runner.forward(Batch(tuple(Row(each, (PENDING,), 3, [0], logits_from=0) for each in sequences)))
    runner.sample(logits, draws)
    runner.sample(runner.pick(logits, [2]), draws[:1])
