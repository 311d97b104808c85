"""Finds out, when a model is loaded, whether it computes with our parts in it what it computes with its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from engines.backends.torch_lm.attention import IMPLEMENTATION, Shape, register
from engines.backends.torch_lm.cache import LayerShape
from engines.backends.torch_lm.forward import Forward
from engines.backends.torch_lm.kernels.interface import Kernels
from engines.backends.torch_lm.trial import Trial, some_ids
from roundhouse.kit.errors import NotServed

_LONG, _SHORT = 20, 12  # tokens of the two sequences
_LONG_BLOCKS, _SHORT_BLOCKS = (5, 2, 4), (0, 3)
# How far the logits may be apart, as a share of the largest, and how many tokens may fail that. Rounding, not more, in
# float32; half precision may route a token of a mixture to another expert, which changes everything for that token.
# Logits so close choose the same token, unless two tokens are as close to each other.
_TOLERANCE = {torch.float32: (1e-3, 0.0), torch.bfloat16: (0.1, 0.25), torch.float16: (0.05, 0.25)}


@dataclass(slots=True)
class Layers:
    """How the layers of a model attend."""

    kept: dict[int, LayerShape] = field(default_factory=dict)
    shapes: dict[int, tuple[Shape, int]] = field(default_factory=dict)  # and with how many heads

    def __call__(self, shape: Shape, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Sees a layer attend, and gives zeros. See `attention.Attention`."""
        self.kept[shape.layer] = LayerShape(keys.shape[1], keys.shape[3], values.shape[3])
        self.shapes[shape.layer] = shape, query.shape[1]
        return query.new_zeros(1, query.shape[2], query.shape[1], values.shape[3])


class SelfTest:
    """Knows what the stock implementation gives, and compares."""

    @torch.inference_mode()
    def __init__(self, model: Any, device: torch.device) -> None:
        """Computes what is expected, and puts our attention into the model.

        Raises NotServed, naming the family, unless every layer attends through it.
        """
        self._family, self._device = model.config.model_type, device
        self.vocabulary = model.config.get_text_config().vocab_size
        self.prompts = some_ids(_LONG, self.vocabulary, 1), some_ids(_SHORT, self.vocabulary, 2)
        model.set_attn_implementation("eager")  # the one that leaves out nothing: others drop soft caps in silence
        self.expected = [self._logits(model, ids) for ids in self.prompts]
        self.dtype = self.expected[0].dtype
        self.tolerance = _TOLERANCE[self.dtype]
        self.layers = Layers()
        register()
        try:
            model.set_attn_implementation(IMPLEMENTATION)
            self._logits(model, self.prompts[0], paged=self.layers)
        except Exception as error:
            raise self.refusal(_failure(error)) from error
        count = model.config.get_text_config().num_hidden_layers
        if len(self.layers.kept) != count:
            raise self.refusal(f"{len(self.layers.kept)} of its {count} layers use attention that can be replaced")

    @torch.inference_mode()
    def fault(self, forward: Forward, kernels: Kernels) -> str | None:
        """Returns what is wrong with a model that should give what the stock one gave, or None."""
        try:
            wrong, count = self._compare(forward, kernels)
        except Exception as error:  # noqa: BLE001 - whatever it is, this model is not what it was taken for
            return _failure(error)
        too_many = wrong > self.tolerance[1] * count
        return f"{wrong} of {count} tokens differ with paged attention" if too_many else None

    def refusal(self, why: str) -> NotServed:
        """Returns the error that names the family."""
        name = self._family
        return NotServed(f'models of family "{name}" are not served by the torch engine: {why}: use the vllm engine')

    def _compare(self, forward: Forward, kernels: Kernels) -> tuple[int, int]:
        """Returns how many logits are wrong, of how many, with chunks of prompts, mixed steps and scattered blocks."""
        trial = Trial(forward, self.layers.kept, blocks=6, dtype=self.dtype, device=self._device, kernels=kernels)
        long, short = map(trial.sequence, self.prompts, (_LONG_BLOCKS, _SHORT_BLOCKS))
        given: tuple[list[Tensor], list[Tensor]] = ([], [])
        for long_count, short_count in ((8, 0), (4, 4), *[(1, 1)] * 8):
            counts = ((long, long_count), (short, short_count))
            results = trial.step(*[(sequence, count) for sequence, count in counts if count])
            if trial.runner.attended_count != len(self.layers.kept):
                raise RuntimeError(f"{trial.runner.attended_count} layers attended")
            for sink, result in zip(given, results, strict=False):
                sink.append(result)
        wrong, count = 0, 0
        for results, expected in zip(given, self.expected, strict=True):
            apart = (torch.cat(results).float() - expected.float()).abs().amax(-1)
            wrong += int((~(apart <= self.tolerance[0] * expected.abs().amax(-1))).sum())
            count += len(apart)
        return wrong, count

    def _logits(self, model: Any, ids: Sequence[int], **options: object) -> Tensor:
        logits: Tensor = model(input_ids=torch.tensor([ids], device=self._device), use_cache=False, **options).logits
        return logits[0]


def _failure(error: Exception) -> str:
    line = str(error).strip().partition("\n")[0]
    return f"it fails with paged attention ({type(error).__name__}: {line})"
