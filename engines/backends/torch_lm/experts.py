"""Mixtures of experts, each expert packed: a token's result does not depend on who else goes to its experts."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from engines.backends.torch_lm.even import evenly
from engines.backends.torch_lm.linears import Linear, Linears
from engines.backends.torch_lm.norms import gate_of


def are_experts(module: Any) -> bool:
    """Tells whether a module keeps the weights of all experts in tensors of three dimensions, with gates."""
    weights = [module._parameters.get(name) for name in ("gate_up_proj", "down_proj")]
    has_weights = all(weight is not None and weight.dim() == 3 for weight in weights)
    return has_weights and getattr(module, "has_gate", False) and hasattr(module, "_apply_gate")


class Experts(nn.Module):
    """Stands for an experts module of transformers."""

    def __init__(self, experts: Any, linears: Linears) -> None:
        """Takes the weights out of `experts`, one by one."""
        super().__init__()
        # Gates that are not computed as usual, or lie between the ups, are left to the module's own code.
        is_usual = experts.is_concatenated and type(experts)._apply_gate.__name__ == "_default_apply_gate"
        gate = gate_of(getattr(experts, "act_fn", None)) if is_usual else None
        self._apply_gate = None if gate else experts._apply_gate
        self._gate_up = [linears.pack(*part, gate=gate) for part in _each(experts, "gate_up_proj")]
        self._down = [linears.pack(*part) for part in _each(experts, "down_proj")]
        del experts.gate_up_proj, experts.down_proj

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """Computes as the module does that it stands for. hidden_states: [tokens, hidden]; the others: [tokens, k]."""
        tokens, picks = top_k_index.shape
        given = hidden_states.new_empty(tokens * picks, hidden_states.shape[1])
        by_expert = top_k_index.flatten().argsort(stable=True)
        counts = top_k_index.flatten().bincount(minlength=len(self._down)).tolist()
        end = 0
        for expert, count in enumerate(counts):
            places, end = by_expert[end : end + count], end + count
            if count:
                given[places] = self._expert(expert, hidden_states, places // picks)
        given = given.view(tokens, picks, given.shape[1])
        total = given[:, 0] * top_k_weights[:, :1]
        for pick in range(1, picks):
            total += given[:, pick] * top_k_weights[:, pick, None]
        return total.to(hidden_states.dtype)

    def _expert(self, expert: int, hidden_states: Tensor, tokens: Tensor) -> Tensor:
        inner = self._gate_up[expert](hidden_states, of=tokens)
        if self._apply_gate is not None:
            inner = evenly(self._apply_gate, inner)
        down: Linear = self._down[expert]
        return down(inner)


def _each(experts: Any, name: str) -> list[tuple[Tensor, Tensor | None]]:
    """Returns the weight, [outputs, inputs], and the bias of each expert."""
    weights, biases = getattr(experts, name), getattr(experts, f"{name}_bias", None)
    if experts.is_transposed:
        weights = weights.transpose(1, 2)
    return [(weight, None if biases is None else biases[index]) for index, weight in enumerate(weights)]
