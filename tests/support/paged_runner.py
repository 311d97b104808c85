"""A runner in plain Python that keeps tokens in paged blocks, and gives tokens that depend on all that it reads there.

If a block were shared by mistake, or written past its end, other tokens would come out. A test can hold its steps, and
have it fail.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence

from engines.batching.batch import Batch, Draw, Row
from engines.model import Work

VOCABULARY_SIZE = 256
PATIENCE_S = 20.0  # only a test that fails waits so long


def reference(work: Work) -> list[int]:
    """Returns what the runner gives for a request, alone and without blocks."""
    ids = list(work.prompt)
    for position in range(work.max_tokens):
        ids.append(_token(_digest(ids), Draw(work.sampling, position)))
    return ids[len(work.prompt) :]


class PagedRunner:
    """Lets every step pass, unless it is held."""

    def __init__(self, *, blocks: int, block_size: int) -> None:
        self._slots: list[int | None] = [None] * (blocks * block_size)
        self._block_size = block_size
        self._changed = threading.Condition()
        self._permit_count: int | None = None
        self._entered_count = 0
        self.fail_forward: Callable[[Batch], Exception | None] = lambda _: None
        self.fail_row: Callable[[Row], Exception | None] = lambda _: None
        self.batches: list[Batch] = []

    def hold(self) -> None:
        """Lets no step pass until `step` or `go`."""
        with self._changed:
            self._permit_count = 0

    def step(self, count: int = 1) -> None:
        """Lets so many more steps pass."""
        with self._changed:
            assert self._permit_count is not None
            self._permit_count += count
            self._changed.notify_all()

    def go(self) -> None:
        """Lets every step pass."""
        with self._changed:
            self._permit_count = None
            self._changed.notify_all()

    def entered(self, count: int) -> None:
        """Waits until so many steps have begun."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._entered_count >= count, timeout=PATIENCE_S)

    def forward(self, batch: Batch) -> list[bytes | Exception]:
        """Writes the ids; the logits of a row are a digest of all ids that its blocks hold for it."""
        self._pass()
        self.batches.append(batch)
        failure = self.fail_forward(batch)
        if failure is not None:
            raise failure
        for row in batch.rows:
            for offset, token in enumerate(row.ids):
                self._slots[self._slot(row, row.first_position + offset)] = token
        return [self._read(row) for row in batch.rows if row.needs_logits]

    def sample(self, logits: object, draws: Sequence[Draw]) -> list[int | Exception]:
        """Returns one token for each row."""
        assert isinstance(logits, list)
        return [
            row if isinstance(row, Exception) else _token(row, draw) for row, draw in zip(logits, draws, strict=True)
        ]

    def _pass(self) -> None:
        with self._changed:
            self._entered_count += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._permit_count is None or self._permit_count > 0)
            if self._permit_count is not None:
                self._permit_count -= 1

    def _read(self, row: Row) -> bytes | Exception:
        count = row.first_position + len(row.ids)
        held = [self._slots[self._slot(row, position)] for position in range(count)]
        return self.fail_row(row) or _digest(held)

    def _slot(self, row: Row, position: int) -> int:
        return row.blocks[position // self._block_size] * self._block_size + position % self._block_size


def _digest(ids: Sequence[int | None]) -> bytes:
    return hashlib.blake2b(repr(list(ids)).encode(), digest_size=8).digest()


def _token(digest: bytes, draw: Draw) -> int:
    salt = repr((draw.sampling.seed, draw.position)).encode() if draw.sampling.temperature > 0 else b""
    return hashlib.blake2b(digest + salt, digest_size=1).digest()[0]
