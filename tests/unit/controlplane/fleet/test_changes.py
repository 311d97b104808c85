"""Changes and marks: every listener is told, and nobody holds a backlog."""

from __future__ import annotations

import asyncio

from controlplane.fleet.changes import Changes, Marks


async def test_a_thing_that_changed_often_is_marked_once_and_in_order() -> None:
    marks: Marks[str] = Marks()
    for key in "abab":
        marks.mark(key)
    assert await marks.take() == ["a", "b"]
    assert await marks.take(0.0) == []


async def test_a_reader_is_woken_by_the_first_mark() -> None:
    marks: Marks[str] = Marks()
    taking = asyncio.create_task(marks.take())
    await asyncio.sleep(0)
    marks.mark("a")
    assert await taking == ["a"]


async def test_a_forgotten_mark_is_not_taken() -> None:
    marks: Marks[str] = Marks()
    marks.mark("a")
    assert marks.forget("a")
    assert not marks.forget("a")
    marks.mark("b")
    assert await marks.take() == ["b"]


def test_listeners_are_told_while_they_listen() -> None:
    changes: Changes[int] = Changes()
    heard: list[int] = []
    with changes.to(heard.append), changes.to(heard.append):
        changes.tell(1)
    changes.tell(2)
    assert heard == [1, 1]
