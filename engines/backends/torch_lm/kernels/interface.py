"""What kernels there are. Each is there twice: in C for CPUs, and in plain torch, which tests compare it with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from engines.backends.torch_lm.kernels.rows import Rows


@dataclass(frozen=True, slots=True)
class HeadNorm:
    """A root-mean-square norm over each head of queries and keys, before they are rotated."""

    query: Tensor  # [key_dim], the weight
    key: Tensor  # [key_dim]
    eps: float
    offset: float = 0.0  # added to the weights: 1 in the Gemma family


class Attention(Protocol):
    """Attention of one layer over its cache. Made once."""

    def write(self, keys: Tensor, values: Tensor, rows: Rows) -> None:
        """Stores tokens, in the dtype of the cache.

        keys: [tokens, kv_heads, key_dim]; values: [tokens, kv_heads, value_dim].
        """

    def write_qkv(
        self, qkv: Tensor, rows: Rows, cos: Tensor | None, sin: Tensor | None, norm: HeadNorm | None = None
    ) -> Tensor:
        """Norms and rotates queries in place, and keys on their way into the cache, where values go too.

        qkv: [tokens, heads * key_dim + kv_heads * key_dim + kv_heads * value_dim]: queries, keys, values. cos, sin:
        [tokens, rotary_dim / 2], float32, last dimension dense; dimension i is rotated with i + rotary_dim / 2, and
        those from rotary_dim on are left alone; None rotates nothing. Returns the queries, [tokens, heads, key_dim].
        """

    def attend(self, query: Tensor, rows: Rows) -> Tensor:
        """Returns what each token sees of its own row, at its position and before: [tokens, heads, value_dim].

        query: [tokens, heads, key_dim]. The step's keys and values are written by now.
        """


class Kernels(Protocol):
    """A set of kernels. Sums are float32, whatever the dtype; what a row gives depends on no other row."""

    @property
    def name(self) -> str:
        """`torch`, or the instructions that the compiled ones use: `generic`, `avx2`, `avx512`."""

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
    ) -> Attention:
        """Returns the attention of one layer.

        keys, values: its cache, [blocks, kv_heads, block_size, dim], of any strides that `KvCache` makes. window:
        positions that a query sees, its own included. sinks: [heads], logits that take weight and give nothing.
        """

    def rms_norm(
        self, x: Tensor, weight: Tensor, eps: float, *, offset: float = 0.0, residual: Tensor | None = None
    ) -> Tensor:
        """Returns x / rms(x) * (weight + offset), over the last dimension. x: [rows, dim].

        With a residual, x is added to it in place, and the sum is what is normed.
        """

    def layer_norm(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, eps: float, *, residual: Tensor | None = None
    ) -> Tensor:
        """Returns (x - mean(x)) / deviation(x) * weight + bias. A residual is as in `rms_norm`."""

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        """Returns silu(gate) * up, [rows, dim]. gate_up: [rows, 2 * dim], the gate first."""

    def gelu_tanh_mul(self, gate_up: Tensor) -> Tensor:
        """Returns gelu(gate) * up, gelu by its approximation with tanh. gate_up: as in `silu_mul`."""
