"""The kernels in plain torch: what the ones in C are compared with, and what runs where they cannot."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from engines.backends.torch_lm.kernels.interface import HeadNorm
from engines.backends.torch_lm.kernels.rows import Group, Rows


class TorchKernels:
    """See `interface.Kernels`. Works on every device."""

    name = "torch"

    def attention(
        self,
        keys: Tensor,
        values: Tensor,
        *,
        heads: int,
        scale: float,
        window: int | None = None,
        softcap: float | None = None,
        sinks: Tensor | None = None,
    ) -> TorchAttention:
        """See `interface.Kernels`."""
        return TorchAttention(keys, values, heads, scale, window, softcap, sinks)

    def rms_norm(
        self, x: Tensor, weight: Tensor, eps: float, *, offset: float = 0.0, residual: Tensor | None = None
    ) -> Tensor:
        """See `interface.Kernels`."""
        return _rms_norm(_added(x, residual), weight, eps, offset).to(x.dtype)

    def layer_norm(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, eps: float, *, residual: Tensor | None = None
    ) -> Tensor:
        """See `interface.Kernels`."""
        wide = _added(x, residual).float()
        return functional.layer_norm(
            wide, wide.shape[-1:], weight.float(), None if bias is None else bias.float(), eps
        ).to(x.dtype)

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        """See `interface.Kernels`."""
        gate, up = gate_up.float().chunk(2, -1)
        return (functional.silu(gate) * up).to(gate_up.dtype)

    def gelu_tanh_mul(self, gate_up: Tensor) -> Tensor:
        """See `interface.Kernels`."""
        gate, up = gate_up.float().chunk(2, -1)
        return (functional.gelu(gate, approximate="tanh") * up).to(gate_up.dtype)


class TorchAttention:
    """See `interface.Attention`."""

    def __init__(
        self,
        keys: Tensor,
        values: Tensor,
        heads: int,
        scale: float,
        window: int | None,
        softcap: float | None,
        sinks: Tensor | None,
    ) -> None:
        self._keys, self._values = keys, values
        self._heads, self._scale = heads, scale
        self._window, self._softcap, self._sinks = window, softcap, sinks

    def write(self, keys: Tensor, values: Tensor, rows: Rows) -> None:
        """See `interface.Attention`."""
        size = self._keys.shape[2]
        blocks, offsets = rows.slots // size, rows.slots % size
        self._keys[blocks, :, offsets] = keys.to(self._keys.dtype)
        self._values[blocks, :, offsets] = values.to(self._values.dtype)

    def write_qkv(
        self, qkv: Tensor, rows: Rows, cos: Tensor | None, sin: Tensor | None, norm: HeadNorm | None = None
    ) -> Tensor:
        """See `interface.Attention`."""
        kv_heads, key_dim, value_dim = self._keys.shape[1], self._keys.shape[3], self._values.shape[3]
        tokens, values_from = qkv.shape[0], (self._heads + kv_heads) * key_dim
        turning = qkv[:, :values_from].view(tokens, self._heads + kv_heads, key_dim)
        query, keys = turning[:, : self._heads], turning[:, self._heads :]
        values = qkv[:, values_from:].view(tokens, kv_heads, value_dim)
        query_weight, key_weight = (norm.query, norm.key) if norm else (None, None)
        query.copy_(_turned(query, query_weight, norm, cos, sin))
        self.write(_turned(keys, key_weight, norm, cos, sin).to(qkv.dtype), values, rows)
        return query

    def attend(self, query: Tensor, rows: Rows) -> Tensor:
        """See `interface.Attention`."""
        query = query.to(self._keys.dtype)
        output = query.new_empty(*query.shape[:2], self._values.shape[3])
        for group in rows.groups:
            output[group.tokens] = self._attend(query[group.tokens], group)
        return output

    def _attend(self, query: Tensor, group: Group) -> Tensor:
        # [rows * queries, heads, dim] → [rows, heads, queries, dim]
        query = query.view(*group.positions.shape, *query.shape[1:]).transpose(1, 2)
        keys, values = self._read(self._keys, group.slots), self._read(self._values, group.slots)
        places, positions = torch.arange(keys.shape[2], device=keys.device), group.positions[:, None, :, None]
        is_seen = places <= positions
        if self._window is not None:
            is_seen &= places > positions - self._window
        if self._softcap is None and self._sinks is None:
            seen = functional.scaled_dot_product_attention(
                query, keys, values, is_seen, scale=self._scale, enable_gqa=query.shape[1] != keys.shape[1]
            )
        else:
            seen = self._attend_in_steps(query, keys, values, is_seen)
        return seen.transpose(1, 2).flatten(0, 1)

    def _attend_in_steps(self, query: Tensor, keys: Tensor, values: Tensor, is_seen: Tensor) -> Tensor:
        group = query.shape[1] // keys.shape[1]
        keys, values = keys.repeat_interleave(group, 1), values.repeat_interleave(group, 1)
        scores = (query @ keys.transpose(2, 3)).float() * self._scale
        if self._softcap is not None:
            scores = self._softcap * torch.tanh(scores / self._softcap)
        scores = scores.masked_fill(~is_seen, -torch.inf)
        if self._sinks is not None:
            sinks = self._sinks.float().view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
            scores = torch.cat([scores, sinks], dim=-1)
        weights = scores.softmax(dim=-1)[..., : keys.shape[2]]
        return weights.to(values.dtype) @ values

    def _read(self, cache: Tensor, slots: Tensor) -> Tensor:
        """Returns what is in these slots, [rows, kv_heads, tokens, dim]. slots: [rows, tokens]."""
        size = cache.shape[2]
        return cache[slots // size, :, slots % size].transpose(1, 2)


def _added(x: Tensor, residual: Tensor | None) -> Tensor:
    return x if residual is None else residual.add_(x)


def _rms_norm(x: Tensor, weight: Tensor, eps: float, offset: float) -> Tensor:
    wide = x.float()
    return wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps) * (weight.float() + offset)


def _turned(x: Tensor, weight: Tensor | None, norm: HeadNorm | None, cos: Tensor | None, sin: Tensor | None) -> Tensor:
    """Returns heads, normed and rotated, in float32. x: [tokens, heads, dim]."""
    wide = x.float() if norm is None or weight is None else _rms_norm(x, weight, norm.eps, norm.offset)
    if cos is None or sin is None:
        return wide
    half = cos.shape[-1]
    first, second, rest = wide[..., :half], wide[..., half : 2 * half], wide[..., 2 * half :]
    cos, sin = cos[:, None], sin[:, None]
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1)
