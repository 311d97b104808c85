"""What a step needs of the machine that computes it, behind the back of the thread that asks for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

Recorded = Callable[[], None]


class Mark(Protocol):
    """A place in the order of all that is asked for."""

    def synchronize(self) -> None:
        """Waits until all before it is done."""


class Machine(Protocol):
    """Does in order what it is asked for, perhaps later."""

    @property
    def device(self) -> torch.device:
        """Where tensors are."""

    @property
    def capability(self) -> tuple[int, int]:
        """What it can do, in NVIDIA's numbers."""

    @property
    def multiprocessors(self) -> int:
        """How many programs run side by side at least."""

    def host_numbers(self, count: int) -> Tensor:
        """Returns int32 numbers on the host, from which a copy does not wait."""

    def mark(self) -> Mark:
        """Marks this place in the order."""

    def record(self, work: Callable[[], None]) -> Recorded:
        """Returns what does the same work again, on the same tensors. Raises RuntimeError if that cannot be."""


class Host:
    """A CPU: all is done at once, and work is done again by doing it again."""

    device = torch.device("cpu")
    capability = (0, 0)
    multiprocessors = 1

    def host_numbers(self, count: int) -> Tensor:
        """See `Machine`."""
        return torch.zeros(count, dtype=torch.int32)

    def mark(self) -> Mark:
        """See `Machine`."""
        return _Done()

    def record(self, work: Callable[[], None]) -> Recorded:
        """See `Machine`."""
        work()
        return work


class _Done:
    def synchronize(self) -> None:
        """Nothing is under way."""


class Cuda:
    """An NVIDIA GPU, on the stream that is current; recorded work is a CUDA graph. All graphs share their memory."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.capability: tuple[int, int] = torch.cuda.get_device_capability(device)
        self.multiprocessors: int = torch.cuda.get_device_properties(device).multi_processor_count
        self._pool: Any = None
        self._cuda: Any = torch.cuda  # parts of it are not typed

    def host_numbers(self, count: int) -> Tensor:
        """See `Machine`."""
        return torch.zeros(count, dtype=torch.int32, pin_memory=True)

    def mark(self) -> Mark:
        """See `Machine`."""
        event: Any = self._cuda.Event()
        event.record()
        mark: Mark = event
        return mark

    def record(self, work: Callable[[], None]) -> Recorded:
        """See `Machine`. It is done once before: nothing is compiled while a graph is captured."""
        stream: Any = self._cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            work()
        torch.cuda.current_stream(self.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # The largest is captured first, so that the others find room in what it has taken.
        with torch.cuda.graph(graph, pool=self._pool, stream=stream):
            work()
        self._pool = self._pool or graph.pool()
        return graph.replay
