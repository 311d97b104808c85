"""Memory that is used again from step to step: fresh memory of megabytes costs more than what is written to it."""

from __future__ import annotations

import torch
from torch import Tensor


class Buffer:
    """Grows to the largest that was asked for. What it gave before is overwritten."""

    def __init__(self) -> None:
        self._memory = torch.empty(0)

    def rows(self, count: int, width: int, device: torch.device) -> Tensor:
        """Returns [count, width], float32, of any content."""
        if self._memory.numel() < count * width or self._memory.device != device:
            self._memory = torch.empty(count * width, device=device)
        return self._memory[: count * width].view(count, width)
