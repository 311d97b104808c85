"""Makes sure that the code of a decoder does with its modules what `layer` does with them.

Logits cannot tell. In half precision, and with weights that are next to nothing, another rotation is lost in rounding.
So each kind of layer is computed in float32 and with large weights, by its own code and by ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from engines.backends.torch_lm.attention import Shape
from engines.backends.torch_lm.cache import KvCache, LayerShape
from engines.backends.torch_lm.fused.enlarged import enlarged, kinds, widened
from engines.backends.torch_lm.fused.layer import bind, pack
from engines.backends.torch_lm.fused.parts import DecoderParts, layer_of, structure_of
from engines.backends.torch_lm.fused.turns import halves, turns_of
from engines.backends.torch_lm.kernels.reference import TorchKernels
from engines.backends.torch_lm.linears_torch import TorchLinears
from engines.backends.torch_lm.self_test import Layers
from engines.backends.torch_lm.step import Step
from engines.backends.torch_lm.trial import BLOCK_SIZE, some_ids, whole_batch

_TOKENS = 20
_TOLERANCE = 1e-4  # as a share of the largest number, in float32
_CPU = torch.device("cpu")


def parts_of(model: Any, layer_count: int) -> DecoderParts | None:
    """Returns the parts of a causal language model of transformers, or None if it is built otherwise.

    The model attends by `attention.IMPLEMENTATION`.
    """
    parts = structure_of(model, layer_count)
    if parts is None:
        return None
    try:
        return parts if _agrees(model, parts) else None
    except Exception:  # noqa: BLE001 - whatever it is, this code wants something else
        return None


@dataclass(slots=True)
class _Seen:
    """What the layers of a model are called with, and what the last of them returns."""

    inputs: list[Tensor] = field(default_factory=list)
    options: list[Mapping[str, Any]] = field(default_factory=list)
    output: Tensor | None = None

    def before(self, _: nn.Module, arguments: tuple[Tensor, ...], options: Mapping[str, Any]) -> None:
        self.inputs.append(arguments[0])
        self.options.append(options)

    def after(self, _: nn.Module, __: object, output: Any) -> None:
        self.output = _first(output)


class _Noted:
    """Attention that remembers how it was called. See `attention.Attention`."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self.shape: Shape | None = None
        self.heads = 0

    def __call__(self, shape: Shape, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        self.shape, self.heads = shape, query.shape[1]
        return self._step(shape, query, keys, values)


def _agrees(model: Any, parts: DecoderParts) -> bool:
    modules = list(getattr(model, model.base_model_prefix).layers)
    seen, layers = _Seen(), Layers()
    hooks = [module.register_forward_pre_hook(seen.before, with_kwargs=True) for module in modules]
    hooks.append(modules[-1].register_forward_hook(seen.after))
    ids = torch.tensor([some_ids(_TOKENS, model.config.get_text_config().vocab_size, 1)], device=model.device)
    try:
        logits = model(input_ids=ids, use_cache=False, paged=layers).logits[0]
    finally:
        for hook in hooks:
            hook.remove()
    assert seen.output is not None
    tolerance = max(_TOLERANCE, 8 * torch.finfo(logits.dtype).eps)
    return (
        _are_close(parts.embedding(ids), seen.inputs[0], tolerance)
        and _are_close(_logits(parts, seen.output[0]), logits, tolerance)
        and all(_turns_agree(parts, index, seen.options[index], tolerance) for index in range(len(modules)))
        and all(_layer_agrees(modules[index], seen.options[index], layers.kept) for index in kinds(modules))
    )


def _logits(parts: DecoderParts, x: Tensor) -> Tensor:
    normed = functional.rms_norm(x.float(), x.shape[-1:], parts.norm.weight, parts.norm.eps)
    logits: Tensor = parts.head(normed.to(x.dtype))
    return logits if parts.softcap is None else parts.softcap * torch.tanh(logits / parts.softcap)


def _turns_agree(parts: DecoderParts, index: int, options: Mapping[str, Any], tolerance: float) -> bool:
    theirs = halves(*options["position_embeddings"])
    positions = torch.arange(_TOKENS, device=theirs[0].device)[None]
    ours = turns_of(parts.rotary, parts.layer_types[index], positions)
    return all(_are_close(one, other, tolerance) for one, other in zip(ours, theirs, strict=True))


def _layer_agrees(module: nn.Module, options: Mapping[str, Any], kept: Mapping[int, LayerShape]) -> bool:
    copy: Any = enlarged(module)
    kernels, hidden = TorchKernels(), copy.self_attn.o_proj.out_features
    layer = {copy.self_attn.layer_idx: kept[copy.self_attn.layer_idx]}
    blocks = -(-_TOKENS // BLOCK_SIZE)
    cache = KvCache(layer, blocks=blocks, block_size=BLOCK_SIZE, dtype=torch.float32, device=_CPU, kernels=kernels)
    step = Step(whole_batch(some_ids(_TOKENS, 1000, 1)), cache, _CPU)
    noted, given = _Noted(step), {name: widened(value) for name, value in options.items()}
    x = torch.randn(_TOKENS, hidden, generator=torch.Generator().manual_seed(0))
    expected = _first(copy(x[None], **(given | {"paged": noted})))[0]
    parts = layer_of(copy)
    assert parts is not None
    assert noted.shape is not None
    ours = bind(pack(parts, TorchLinears(kernels, _CPU)), cache.attention(noted.shape, noted.heads), kernels)
    cos, sin = (each[0] for each in halves(*given["position_embeddings"]))
    return _are_close(ours(x.clone(), step.rows, cos, sin, None), expected, _TOLERANCE)


def _are_close(given: Tensor, expected: Tensor, tolerance: float) -> bool:
    apart = (given.float() - expected.float()).abs().max()
    return given.shape == expected.shape and bool(apart <= tolerance * expected.float().abs().max())


def _first(output: Any) -> Tensor:
    first: Tensor = output[0] if isinstance(output, tuple) else output
    return first
