"""A whole decoder, from ids to logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from engines.backends.torch_lm.attention import Shape
from engines.backends.torch_lm.cache import KvCache
from engines.backends.torch_lm.even import evenly
from engines.backends.torch_lm.fused.layer import bind, pack
from engines.backends.torch_lm.fused.native import Layers, bind_native
from engines.backends.torch_lm.fused.parts import DecoderParts
from engines.backends.torch_lm.fused.turns import turns_of
from engines.backends.torch_lm.kernels.interface import Attention, Kernels
from engines.backends.torch_lm.linears import Linears
from engines.backends.torch_lm.quantization import weight_of
from engines.backends.torch_lm.rotary import RotaryTable
from engines.backends.torch_lm.step import Step


class Decoder:
    """A decoder with its weights, apart from any cache. See `forward.Forward`."""

    def __init__(
        self,
        parts: DecoderParts,
        shapes: Mapping[int, tuple[Shape, int]],
        linears: Linears,
        kernels: Kernels,
        context: int,
    ) -> None:
        """Takes the weights out of the modules. shapes: how each layer attends, and with how many heads."""
        kinds = list(dict.fromkeys(parts.layer_types))
        self._shapes, self._kernels, self._softcap = shapes, kernels, parts.softcap
        self._embed = _embed(parts.embedding)
        self._tables = [_table(parts.rotary, kind, context) for kind in kinds]
        self._turns = [kinds.index(kind) for kind in parts.layer_types]
        self._layers = [pack(layer, linears) for layer in parts.layers]
        self._head = linears.pack(weight_of(parts.head), parts.head.bias, norm=parts.norm, is_wide=True)
        del parts.head.weight

    def bind(self, cache: KvCache) -> Callable[[Step], Tensor]:
        """See `forward.Forward`."""
        embed, softcap, tables, count = self._embed, self._softcap, self._tables, len(self._layers)
        attentions = [cache.attention(*self._shapes[layer]) for layer in range(count)]
        layers = bind_native(self._layers, self._turns, attentions, self._head) or self._bind(attentions)

        def compute(step: Step) -> Tensor:
            positions = step.positions[0]
            highest = int(positions.max())
            logits = layers(step, embed(step.ids[0]), [table.at(positions, highest) for table in tables])
            step.attended_count += count
            return logits if softcap is None else softcap * evenly(torch.tanh, logits / softcap)

        return compute

    def _bind(self, attentions: Sequence[Attention]) -> Layers:
        """Returns all layers and the head, one after the other."""
        bound = [bind(layer, at, self._kernels) for layer, at in zip(self._layers, attentions, strict=True)]
        *early, (last, last_turn) = zip(bound, self._turns, strict=True)
        head = self._head

        def layers(step: Step, x: Tensor, turns: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
            for layer, turn in early:
                x = layer(x, step.rows, *turns[turn], None)
            # Behind the last layer's keys and values, only tokens count whose logits are wanted.
            wanted = step.wanted if len(step.wanted) < len(x) else None
            return head(last(x, step.rows, *turns[last_turn], wanted))

        return layers


def _embed(module: nn.Embedding) -> Callable[[Tensor], Tensor]:
    if type(module) is nn.Embedding:
        weight = module.weight.detach()
        return lambda ids: weight.index_select(0, ids)
    return module


def _table(rotary: nn.Module, kind: str | None, context: int) -> RotaryTable:
    return RotaryTable(lambda positions: turns_of(rotary, kind, positions), context)
