"""Finds out whether a sequence's logits are the same bits whatever is computed beside it, and in whatever pieces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from engines.backends.torch_lm.cache import LayerShape
from engines.backends.torch_lm.forward import Forward
from engines.backends.torch_lm.kernels.interface import Kernels
from engines.backends.torch_lm.trial import BLOCK_SIZE, Trial, some_ids

_LENGTH = 21
_OTHERS = (1, 2, 5, 14, 30)  # tokens of those beside it: with each length of its own pieces, other counts of rows
_PIECES = ((_LENGTH,), (1, 2, 7, 11), (13, *[1] * 8), (*[1] * 4, 16, 1))


def is_batch_invariant(
    forward: Forward,
    shapes: Mapping[int, LayerShape],
    vocabulary: int,
    *,
    dtype: torch.dtype,
    device: torch.device,
    kernels: Kernels,
) -> bool:
    """Tells whether a sample of steps gives the same bits. A sample: it cannot prove what it did not try."""
    blocks = -(-_LENGTH // BLOCK_SIZE)
    total = blocks + sum(-(-count // BLOCK_SIZE) for count in _OTHERS)

    def logits(pieces: Sequence[int], *, is_alone: bool) -> torch.Tensor:
        trial = Trial(forward, shapes, blocks=total, dtype=dtype, device=device, kernels=kernels)
        sequence = trial.sequence(some_ids(_LENGTH, vocabulary, 1), range(blocks))
        given, free = [], blocks
        for index, piece in enumerate(pieces):
            parts = [(sequence, piece)]
            if not is_alone and index < len(_OTHERS):
                count = _OTHERS[index]
                width = -(-count // BLOCK_SIZE)
                other = trial.sequence(some_ids(count, vocabulary, 2 + index), range(free, free + width))
                free += width
                parts.append((other, count))
            parts.sort(key=lambda part: part[1] > 1)
            results = trial.step(*parts)
            given.append(next(result for part, result in zip(parts, results, strict=True) if part[0] is sequence))
        return torch.cat(given)

    expected = logits(_PIECES[0], is_alone=True)
    return all(
        torch.equal(logits(pieces, is_alone=is_alone), expected) for pieces in _PIECES for is_alone in (True, False)
    )
