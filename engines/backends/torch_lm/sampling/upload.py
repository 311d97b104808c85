"""Brings small arrays of the host to where the logits are, without waiting for what is under way there."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def upload(array: NDArray[Any], device: torch.device) -> Tensor:
    """Returns the array as a tensor on the device. On the host it is the same memory."""
    tensor = torch.from_numpy(array)
    # From memory that is not pinned, a copy waits for the device.
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def columns(values: list[list[float]], device: torch.device) -> list[Tensor]:
    """Returns each list as a column, [rows, 1], float64."""
    return [column.unsqueeze(1) for column in upload(np.array(values, dtype=np.float64), device)]
