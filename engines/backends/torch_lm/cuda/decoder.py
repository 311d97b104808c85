"""A decoder of the usual shape as about ten kernels for each layer, in place of the modelling code of transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from engines.backends.torch_lm.attention import Shape
from engines.backends.torch_lm.cuda.cache import PagedCache
from engines.backends.torch_lm.cuda.runner import Compute
from engines.backends.torch_lm.cuda.step import CudaStep
from engines.backends.torch_lm.fused.layer import bind, pack
from engines.backends.torch_lm.fused.parts import DecoderParts
from engines.backends.torch_lm.kernels.interface import Kernels
from engines.backends.torch_lm.linears import Linears
from engines.backends.torch_lm.quantization import weight_of

Turns = tuple[Tensor, Tensor]  # cosines and sines of all positions, [context, rotated dim / 2]


class Decoder:
    """Its weights, apart from any cache. See `place.Bindable`."""

    def __init__(
        self,
        parts: DecoderParts,
        shapes: Mapping[int, tuple[Shape, int]],
        linears: Linears,
        kernels: Kernels,
        context: int,
    ) -> None:
        """Takes the weights out of the modules. shapes: how each layer attends, and with how many heads.

        Raises ValueError if the model rotates otherwise; the weights are where they were then.
        """
        self._shapes = shapes
        # All of them now: a recorded step finds them where they were.
        self._kinds = parts.layer_types
        self._turns = {kind: _turns(parts.rotary, kind, context) for kind in dict.fromkeys(parts.layer_types)}
        self._embedding, self._softcap = parts.embedding, parts.softcap
        self._layers, self._kernels = [pack(layer, linears) for layer in parts.layers], kernels
        self._head = linears.pack(weight_of(parts.head), parts.head.bias, norm=parts.norm)

    def bind(self, cache: PagedCache) -> Compute:
        """See `place.Bindable`."""
        attentions: Sequence[Any] = [cache.attention(*self._shapes[layer]) for layer in range(len(self._layers))]
        layers = [bind(layer, at, self._kernels) for layer, at in zip(self._layers, attentions, strict=True)]
        embed, head, softcap = self._embedding, self._head, self._softcap

        def compute(step: CudaStep) -> Tensor:
            positions, rows = step.positions[0], step.rows
            turns = {
                kind: (cos.index_select(0, positions), sin.index_select(0, positions))
                for kind, (cos, sin) in self._turns.items()
            }
            x = embed(step.ids[0])
            # Behind the last layer's keys and values, only tokens count whose logits are wanted.
            wanted = step.wanted if len(step.wanted) < len(x) else None
            untyped: Any = rows  # the layers hand them on to the attention that is bound to them
            for index, (layer, kind) in enumerate(zip(layers, self._kinds, strict=True), 1):
                x = layer(x, untyped, *turns[kind], wanted if index == len(layers) else None)
            step.attended_count += len(layers)
            logits = head(x)
            return logits if softcap is None else softcap * torch.tanh(logits / softcap)

        return compute


def _turns(rotary: Any, kind: str | None, context: int) -> Turns:
    """Returns what the model's own module gives for all positions."""
    device = next(rotary.buffers()).device
    positions, like = torch.arange(context, device=device)[None], torch.empty(1, 1, 1, device=device)
    cos, sin = rotary(like, positions) if kind is None else rotary(like, positions, kind)
    half = cos.shape[-1] // 2
    if not torch.equal(cos[..., :half], cos[..., half:]):
        raise ValueError("pairs of dimensions are not rotated together")
    return cos[0, :, :half].contiguous(), sin[0, :, :half].contiguous()
