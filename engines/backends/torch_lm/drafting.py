"""Guesses with a smaller model how outputs go on."""

from __future__ import annotations

from collections.abc import Sequence as Run

from engines.batching.batch import Batch, Draw, Row
from engines.batching.blocks import BlockPool
from engines.batching.sequence import Sequence
from engines.loop import Runner
from engines.model import Sampled, Sampling, Work

_GREEDY = Sampling(temperature=0.0, top_p=1.0, top_k=0, seed=0)


class DraftModel:
    """The step loop's `Proposer`: gives what a model of the same vocabulary, but quicker, finds likeliest.

    Has a cache of its own. A sequence that finds no room there, or is longer than the model's context, gets no guesses.
    One whose prompt the model has not read yet gets none either, and a chunk of it is read.
    """

    def __init__(self, runner: Runner, pool: BlockPool, *, max_model_len: int, max_batched_tokens: int) -> None:
        """`runner` writes to a cache of as many blocks as `pool` counts, and gives the answers of a step at once."""
        assert runner.depth == 0
        self._runner = runner
        self._pool = pool
        self._max_model_len = max_model_len
        self._max_tokens = max_batched_tokens
        self._read: dict[str, Sequence] = {}
        self._true_counts: dict[str, int] = {}  # ids that were no guesses, when they were last given

    def propose(self, sequences: Run[tuple[str, Run[int]]], most: int) -> Run[Run[int]]:
        """Returns up to `most` next ids for each sequence, given as (name, all its ids)."""
        guesses: dict[str, list[int]] = {name: [] for name, _ in sequences}
        ready = self._catch_up([self._known(name, ids) for name, ids in sequences], most)
        for _ in range(most):
            if not ready:
                break
            for sequence, token in zip(ready, self._step([(each, _pending(each)) for each in ready]), strict=True):
                sequence.ids.append(token)
                guesses[sequence.work.key].append(token)
        return [guesses[name] for name, _ in sequences]

    def forget(self, name: str) -> None:
        """Says that a sequence has ended."""
        sequence = self._read.pop(name, None)
        self._true_counts.pop(name, None)
        if sequence is not None:
            self._pool.release(sequence.blocks)

    def _known(self, name: str, ids: Run[int]) -> Sequence:
        """Returns what was read of a sequence, without the guesses that came to nothing."""
        sequence = self._read.get(name)
        if sequence is None:
            work = Work(name, (ids[0],), max_tokens=self._max_model_len, sampling=_GREEDY)
            sequence = self._read[name] = Sequence(work)
        first = self._true_counts.get(name, 0)
        while first < sequence.computed_count and sequence.ids[first] == ids[first]:
            first += 1
        sequence.ids, sequence.computed_count = list(ids), min(first, sequence.computed_count)
        self._true_counts[name] = len(ids)
        return sequence

    def _catch_up(self, sequences: Run[Sequence], most: int) -> list[Sequence]:
        """Reads what is new but for the last token, as far as a step allows; returns those that can go on."""
        left, rows, ready = self._max_tokens, [], []
        for sequence in sequences:
            behind = _pending(sequence) - 1
            if len(sequence.ids) + most > self._max_model_len or not self._has_room(sequence, most):
                continue
            if behind <= left:
                ready.append(sequence)
            if min(behind, left) > 0:
                rows.append((sequence, min(behind, left)))
                left -= rows[-1][1]
        if rows:
            self._step(rows)
        return ready

    def _step(self, rows: Run[tuple[Sequence, int]]) -> list[int]:
        """Computes so many more tokens of each; returns what follows those that have come to their end."""
        batch = Batch(tuple(_row(sequence, count) for sequence, count in rows))
        logits = self._runner.forward(batch)
        wanted = [row.sequence for row in batch.rows if row.logits_count]
        answers = self._runner.sample(logits, [Draw(_GREEDY, position=len(each.ids)) for each in wanted]).wait()
        for sequence, count in rows:
            sequence.computed_count += count
        # A row that goes wrong here would go wrong in the model itself, which says so; as a guess anything will do.
        return [answer.token if isinstance(answer, Sampled) else 0 for answer in answers]

    def _has_room(self, sequence: Sequence, most: int) -> bool:
        missing = self._pool.blocks_for(len(sequence.ids) + most) - len(sequence.blocks)
        if missing > self._pool.free_count:
            return False
        sequence.blocks.extend(self._pool.allocate() for _ in range(missing))
        return True


def _pending(sequence: Sequence) -> int:
    return len(sequence.ids) - sequence.computed_count


def _row(sequence: Sequence, count: int) -> Row:
    first = sequence.computed_count
    ids = tuple(sequence.ids[first : first + count])
    is_last = first + count == len(sequence.ids)
    return Row(sequence, ids, first, tuple(sequence.blocks), logits_from=count - 1 if is_last else count)
