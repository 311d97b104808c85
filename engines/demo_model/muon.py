"""Muon: momentum whose matrix updates are made orthogonal before they are applied.

Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks".
"""

from collections.abc import Iterable

import torch
from torch import Tensor

_MOMENTUM = 0.95
_WEIGHT_DECAY = 0.05
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # the quintic of the source: five steps bring singular values near 1


class Muon(torch.optim.Optimizer):
    """Optimises matrices; embeddings, norms and biases belong to another optimizer."""

    def __init__(self, matrices: Iterable[Tensor], lr: float) -> None:
        super().__init__(matrices, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # the base would also compute the loss
        """Applies one update to every matrix; each has a gradient."""
        for group in self.param_groups:
            for matrix in group["params"]:
                momentum = self.state[matrix].setdefault("momentum", torch.zeros_like(matrix))
                momentum.lerp_(matrix.grad, 1 - _MOMENTUM)
                update = orthogonal(matrix.grad.lerp(momentum, _MOMENTUM))
                rows, columns = matrix.shape
                matrix.mul_(1 - group["lr"] * _WEIGHT_DECAY).add_(
                    update, alpha=-group["lr"] * max(1, rows / columns) ** 0.5
                )


def orthogonal(matrix: Tensor) -> Tensor:
    """Returns the nearest roughly orthogonal matrix, by five Newton-Schulz steps."""
    first, third, fifth = _NEWTON_SCHULZ
    is_tall = matrix.shape[0] > matrix.shape[1]
    result: Tensor = matrix.T if is_tall else matrix
    result = result / (result.norm() + 1e-7)
    for _ in range(5):
        gram = result @ result.T
        result = first * result + (third * gram + fifth * gram @ gram) @ result
    return result.T if is_tall else result
