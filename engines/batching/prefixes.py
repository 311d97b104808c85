"""Finds what is computed already, or is being computed: sequences with equal beginnings share the blocks of these."""

from __future__ import annotations

import array
import hashlib
from dataclasses import dataclass

from engines.batching.blocks import BlockPool
from engines.batching.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Need:
    """What a sequence would have to take if it joined now."""

    new_count: int  # blocks that it would write, in the end
    idle_count: int  # free blocks that it would share
    token_count: int  # that it would compute


class Prefixes:
    """Knows full blocks by a digest of all tokens up to their end.

    A block is known to others once a committed step has filled it. Before that it may be promised: a running sequence
    is going to fill it, and whoever needs the same next waits for it.
    """

    def __init__(self, pool: BlockPool, *, shares: bool, key: bytes = b"") -> None:
        """Unless it `shares`, only the sequences of one request find each other's blocks.

        key: of the digests, at most 64 bytes. Who does not know it cannot make two beginnings with one digest.
        """
        self._pool = pool
        self._shares = shares
        self._key = key
        self._promised: dict[bytes, Sequence] = {}

    def need(self, sequence: Sequence) -> Need:
        """Returns what all the tokens of a sequence without blocks need, and a block for the next one."""
        known = len(sequence.ids)
        hashes = self._hashes(sequence, self._readable_count(sequence))
        reused = idle = 0
        for content in hashes:
            if not self._pool.holds(content):
                break
            reused += 1
            idle += self._pool.is_idle(content)
        for content in hashes[reused:]:
            if content not in self._promised:
                break
            reused += 1
        whole = self._pool.blocks_for(min(known + 1, sequence.final_count - 1))
        return Need(whole - reused, idle, known - reused * self._pool.block_size)

    def reuse(self, sequence: Sequence) -> bool:
        """Gives it the next blocks that are known; tells whether it has to wait for one that another is going to fill.

        If not, it promises to fill the others itself.
        """
        size = self._pool.block_size
        if sequence.in_flight_count or sequence.scheduled_count != len(sequence.blocks) * size:
            return False  # it is in the middle of a block of its own
        for content in self._hashes(sequence, self._readable_count(sequence))[len(sequence.blocks) :]:
            block = self._pool.share(content)
            if block is None:
                if self._promised.get(content, sequence) is not sequence:
                    return True
                break
            sequence.blocks.append(block)
            sequence.computed_count = sequence.scheduled_count = len(sequence.blocks) * size
            if sequence.epoch == 0:
                sequence.cached_token_count = min(sequence.computed_count, len(sequence.work.prompt))
        for content in self._hashes(sequence, len(sequence.ids) // size)[len(sequence.blocks) :]:
            if not self._pool.holds(content):
                self._promised.setdefault(content, sequence)
        return False

    def withdraw(self, sequence: Sequence) -> None:
        """Says that it will fill no more blocks."""
        for content in sequence.hashes[sequence.registered_count :]:
            if self._promised.get(content) is sequence:
                del self._promised[content]

    def register(self, sequence: Sequence) -> None:
        """Makes known the blocks that are full of committed tokens."""
        full = sequence.computed_count // self._pool.block_size
        hashes = self._hashes(sequence, full)
        for index in range(sequence.registered_count, full):
            self._pool.register(sequence.blocks[index], hashes[index])
            self._promised.pop(hashes[index], None)
        sequence.registered_count = full

    def _readable_count(self, sequence: Sequence) -> int:
        # The logits behind the last token are always wanted, and those behind tokens of a prompt that is to be scored.
        token_count = len(sequence.ids) - 1 if sequence.is_scored else sequence.scored_count
        return token_count // self._pool.block_size

    def _root(self, sequence: Sequence) -> bytes:
        """Returns what stands before the first block of all that may share."""
        return b"" if self._shares else self._digest(sequence.work.key.encode())

    def _hashes(self, sequence: Sequence, count: int) -> list[bytes]:
        """Returns the digests of its first blocks. They never change, since ids are only ever appended."""
        hashes, size = sequence.hashes, self._pool.block_size
        if len(hashes) < count:
            begin = len(hashes)
            parent = hashes[-1] if hashes else self._root(sequence)
            content = array.array("q", sequence.ids[begin * size : count * size]).tobytes()
            for offset in range(0, len(content), 8 * size):
                parent = self._digest(parent + content[offset : offset + 8 * size])
                hashes.append(parent)
        return hashes[:count] if len(hashes) > count else hashes

    def _digest(self, content: bytes) -> bytes:
        return hashlib.blake2b(content, digest_size=16, key=self._key).digest()
