"""Finds out, when a model is loaded, whether it computes through our attention what it computes through its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from engines.backends.torch_lm.attention import IMPLEMENTATION, Shape, register
from engines.backends.torch_lm.cache import KvCache, LayerShape
from engines.backends.torch_lm.runner import TorchRunner
from engines.batching.batch import Batch, Row
from engines.batching.sequence import Sequence
from engines.model import Sampling, Work
from roundhouse.kit.errors import NotServed

_BLOCK_SIZE = 8
_LONG, _SHORT = 20, 12  # tokens of the two sequences
_LONG_BLOCKS, _SHORT_BLOCKS = (5, 2, 4), (0, 3)
# How far the logits may be apart, as a share of the largest. Rounding, not more, in float32; half precision may route a
# token of a mixture to another expert, which changes everything for that token.
_TOLERANCE = {torch.float32: (1e-3, 0.0), torch.bfloat16: (0.1, 0.25), torch.float16: (0.05, 0.25)}


class _Probe:
    """Sees what each layer would keep."""

    def __init__(self) -> None:
        self.shapes: dict[int, LayerShape] = {}

    def __call__(self, shape: Shape, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        self.shapes[shape.layer] = LayerShape(keys.shape[1], keys.shape[3], values.shape[3])
        return query.new_zeros(1, query.shape[2], query.shape[1], values.shape[3])


@torch.inference_mode()
def adopt(model: Any, device: torch.device) -> dict[int, LayerShape]:
    """Puts our attention into a model, and returns what each layer keeps.

    Raises NotServed, naming the family, unless every layer attends through it and the logits stay what they were.
    """
    family, vocabulary = model.config.model_type, model.config.get_text_config().vocab_size
    long, short = _ids(_LONG, vocabulary, 1), _ids(_SHORT, vocabulary, 2)
    model.set_attn_implementation("eager")  # the one that leaves out nothing: others drop soft caps in silence
    expected = [model(input_ids=torch.tensor([ids], device=device), use_cache=False).logits[0] for ids in (long, short)]
    try:
        register()
        model.set_attn_implementation(IMPLEMENTATION)
        probe = _Probe()
        model(input_ids=torch.tensor([long], device=device), use_cache=False, paged=probe)
        layers = model.config.get_text_config().num_hidden_layers
        if len(probe.shapes) != layers:
            raise _refusal(family, f"{len(probe.shapes)} of its {layers} layers use attention that can be replaced")
        wrong_count, count = _compare(model, probe.shapes, device, (long, short), expected)
    except NotServed:
        raise
    except Exception as error:
        line = str(error).strip().partition("\n")[0]
        raise _refusal(family, f"it fails with paged attention ({type(error).__name__}: {line})") from error
    if wrong_count > _TOLERANCE[expected[0].dtype][1] * count:
        raise _refusal(family, f"{wrong_count} of {count} tokens differ with paged attention")
    return probe.shapes


def _compare(
    model: Any,
    shapes: dict[int, LayerShape],
    device: torch.device,
    prompts: tuple[list[int], list[int]],
    expected: list[Tensor],
) -> tuple[int, int]:
    """Returns how many logits are wrong, of how many, with chunks of prompts, mixed steps and scattered blocks."""
    cache = KvCache(shapes, blocks=6, block_size=_BLOCK_SIZE, dtype=expected[0].dtype, device=device)
    runner = TorchRunner(model, cache, device)
    long, short = _sequence(prompts[0], _LONG_BLOCKS), _sequence(prompts[1], _SHORT_BLOCKS)
    steps = [((long, 8),), ((long, 4), (short, 4)), *[((long, 1), (short, 1))] * 8]
    tolerance, wrong_count, count = _TOLERANCE[expected[0].dtype][0], 0, 0
    for step in steps:
        logits = runner.forward(Batch(tuple(_row(sequence, tokens) for sequence, tokens in step)))
        for (sequence, tokens), row in zip(step, logits, strict=True):
            sequence.advance(tokens)
            wanted = expected[0 if sequence is long else 1][sequence.computed_count - 1]
            is_close = (row - wanted).abs().max() <= tolerance * wanted.abs().max()
            wrong_count += 0 if is_close else 1
            count += 1
    return wrong_count, count


def _sequence(ids: list[int], blocks: tuple[int, ...]) -> Sequence:
    sampling = Sampling(temperature=0.0, top_p=1.0, top_k=0, seed=0)
    sequence = Sequence(Work("self-test", tuple(ids), max_tokens=1, sampling=sampling))
    sequence.blocks = blocks
    return sequence


def _row(sequence: Sequence, count: int) -> Row:
    first = sequence.computed_count
    return Row(sequence, tuple(sequence.ids[first : first + count]), first, sequence.blocks, needs_logits=True)


def _ids(count: int, vocabulary: int, seed: int) -> list[int]:
    # Any ids will do, as long as they differ; a large prime steps all over the vocabulary.
    return [(seed * 7 + index * 65521) % vocabulary for index in range(count)]


def _refusal(family: str, why: str) -> NotServed:
    return NotServed(f'models of family "{family}" are not served by the torch engine: {why}: use the vllm engine')
