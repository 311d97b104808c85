"""The example in docs/batching.md is what happens."""

from pathlib import Path

from engines.batching.batch import Row
from engines.batching.blocks import BlockPool
from engines.batching.scheduler import Freed, Scheduler
from engines.batching.sequence import Sequence
from tests.support.batching import finish_step, sequence_of

PAGE = Path(__file__).parents[4] / "docs" / "batching.md"


def told(row: Row) -> str:
    last = row.first_position + len(row.ids) - 1
    span = f"{row.first_position}–{last}" if len(row.ids) > 1 else str(last)
    return f"`{row.sequence.work.key}` {span} in {' '.join(map(str, row.blocks))}"


def test_the_example_of_the_page_is_what_happens() -> None:
    a = sequence_of([1, 2, 3, 4, 5, 6], 18, key="a")
    b = sequence_of([1, 2, 3, 4, 7, 8, 9], 12, key="b")
    c = sequence_of([11, 12, 13, 14, 15], 12, key="c", priority=-1)
    arrivals: dict[int, list[Sequence]] = {1: [a, b], 2: [c]}
    scheduler = Scheduler(BlockPool(6, 4), batch_size=3, max_batched_tokens=8)
    lines = []
    for number in range(1, 8):
        for sequence in arrivals.get(number, ()):
            scheduler.add(sequence)
        batch = scheduler.next_batch()
        lines.append(f"| {number} | {' · '.join(map(told, batch.rows))} | {scheduler.pool.free_count} |")
        if number == 5:
            assert scheduler.remove(a) == Freed(before=1, after=3)
        finish_step(scheduler, batch)
    page = PAGE.read_text()
    assert [line for line in lines if line not in page] == []
    assert len(a.ids) == 6 + 4  # of step 5 it took nothing
