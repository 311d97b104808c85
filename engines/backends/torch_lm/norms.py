"""Recognizes root-mean-square norms and gated activations by what they compute, whatever they are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from engines.backends.torch_lm.linears import Gate, Norm

_EPS_NAMES = ("variance_epsilon", "eps", "epsilon")
_ROWS = 3
_TOLERANCE = 1e-5


def norm_of(module: nn.Module) -> Norm | None:
    """Returns the norm that a module computes over its last dimension, or None if it computes something else."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.dim() != 1 or not weight.is_floating_point():
        return None
    eps = next((value for name in _EPS_NAMES if isinstance(value := getattr(module, name, None), float)), None)
    if eps is None or [name for name, _ in module.named_parameters()] != ["weight"]:
        return None
    wide = weight.detach().float()
    # Small numbers show how much is added under the root, a mean shows whether it is taken away.
    probe = _noise(_ROWS, len(weight), weight.device) * torch.tensor([[1.0], [30.0], [eps**0.5]], device=weight.device)
    probe = probe.to(weight.dtype)
    try:
        given = module(probe[None])[0].float()
    except Exception:  # noqa: BLE001 - it takes something else: no norm
        return None
    rounding = 4 * torch.finfo(weight.dtype).eps if weight.dtype != torch.float32 else _TOLERANCE
    for candidate in (wide, 1 + wide):  # the Gemma family keeps weights around zero
        expected = functional.rms_norm(probe.float(), wide.shape, candidate, eps)
        if torch.allclose(given, expected, rtol=rounding, atol=rounding):
            return Norm(candidate.contiguous(), eps)
    return None


_GATES: Mapping[Gate, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
}


def gate_of(function: Callable[[Tensor], Tensor] | None) -> Gate | None:
    """Returns which of the known functions this is, or None."""
    if function is None:
        return None
    probe = torch.linspace(-6, 6, 97)
    try:
        given = function(probe)
    except Exception:  # noqa: BLE001 - whatever it is, it is none of ours
        return None
    return next((gate for gate, known in _GATES.items() if torch.allclose(given, known(probe), atol=_TOLERANCE)), None)


def _noise(rows: int, columns: int, device: torch.device) -> Tensor:
    """Returns numbers that look random and are the same every time, around 0.5."""
    places = torch.arange(1, rows * columns + 1, dtype=torch.float64).view(rows, columns)
    return ((places * 0.754877666).frac() * 2 - 0.5).float().to(device)
